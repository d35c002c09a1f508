"""The DICOM listener process: one port, one event loop, an association for each connection."""

import asyncio
import contextlib
import signal
import ssl
import time

import structlog

from annotomy.dimse.incoming_data import remove_abandoned
from annotomy.dimse.provider import Shared, provide
from annotomy.dimse.upper_layer import SOURCE_PROVIDER, Deadlines, UpperLayer
from annotomy.services import Services
from annotomy.settings import DimseSettings

log = structlog.get_logger(__name__)

BACKLOG = 128
CONNECTIONS_BEYOND = 32
"""Connections above the limit of associations that still get a polite rejection; more are cut at once."""
WATCH_S = 1.0
"""How often deadlines are looked at."""
DRAIN_S = 20.0
"""At a stop: how long requests in hand may take before their associations are aborted."""
DRAIN_LOOK_S = 0.2
AUDIT_DRAIN_S = 10.0
"""For the last audit records to be written; a database that takes longer is away, and the log has `audit.write_failed`."""


class Listener:
    """`async with Listener(services) as listener` listens on `listener.port`; at the end, associations are drained."""

    def __init__(self, services: Services, *, deadlines: Deadlines | None = None, drain_s: float = DRAIN_S) -> None:
        self.port = 0
        self._services = services
        self.deadlines = deadlines or Deadlines()
        self._drain_s = drain_s
        self._shared = Shared(services)
        self._layers: dict[UpperLayer, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._auditing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Listener":
        settings = self._services.settings.dimse
        temporary = self._services.settings.spool_dir
        removed = await asyncio.to_thread(remove_abandoned, temporary)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), settings.host, settings.port, backlog=BACKLOG, ssl=tls_context(settings)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._watch = asyncio.create_task(self._watch_deadlines())
        self._auditing = asyncio.create_task(self._shared.audit.run())
        log.info("dimse.listening", port=self.port, ae_title=settings.ae_title, tls=settings.tls_cert is not None,
                 abandoned_files=removed)  # fmt: skip
        if settings.open:
            log.warning(
                "dimse.open",
                meaning="ANNOTOMY_DIMSE_OPEN=1: ANY calling AE may store, query and retrieve as the user dimse."
                " For tests only; never where there are patients' images.",
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._watch is not None
        assert self._auditing is not None
        self._server.close()
        deadline = time.monotonic() + self._drain_s
        while self._layers and time.monotonic() < deadline:
            for layer in list(self._layers):
                if layer.is_idle:  # a request in hand is answered first
                    layer.abort(SOURCE_PROVIDER, 0, "stopping")
            await asyncio.wait(self._layers.values(), timeout=DRAIN_LOOK_S)
        for layer in list(self._layers):
            layer.abort(SOURCE_PROVIDER, 0, "stopping")
        if self._layers:
            await asyncio.wait(self._layers.values())
        # Records wait for a database that is away; a listener that has to stop does not wait for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._shared.audit.drain(), AUDIT_DRAIN_S)
        self._watch.cancel()
        self._auditing.cancel()
        await asyncio.gather(self._watch, self._auditing, return_exceptions=True)

    def connected(self, layer: UpperLayer) -> None:
        if len(self._layers) >= self._services.settings.dimse.associations + CONNECTIONS_BEYOND:
            log.warning("dimse.cut", peer=layer.peer_address, connections=len(self._layers))
            layer.abort(SOURCE_PROVIDER, 0, "too-many-connections")
            return
        task = asyncio.create_task(self._provide(layer))
        self._layers[layer] = task
        task.add_done_callback(lambda _: self._layers.pop(layer))

    async def _provide(self, layer: UpperLayer) -> None:
        try:
            await provide(layer, self._shared)
        except Exception:  # the edge of an association: the others go on
            log.exception("dimse.association_failed", peer=layer.peer_address)
            layer.abort(SOURCE_PROVIDER, 0, "failed")

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            for layer in list(self._layers):
                layer.expire(now)


class _Connection(UpperLayer):
    """An UpperLayer that tells its listener when the connection stands (with TLS: after the handshake)."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.deadlines)
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.connected(self)


def tls_context(settings: DimseSettings) -> ssl.SSLContext | None:
    """None without a certificate. With a CA, peers show a certificate that it signed (PS3.15 B.9, BCP 195)."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_ca is not None:
        context.load_verify_locations(settings.tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def run_listener(services: Services) -> None:
    """Listens until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Listener(services):
        await stop.wait()
    log.info("dimse.stopped")
