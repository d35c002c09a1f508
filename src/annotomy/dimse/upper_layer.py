"""One TCP connection as an association sees it (PS3.8 9.2): PDUs in and out, backpressure, deadlines.

The states of PS3.8 9.2.1 are where the coroutines that use this wait: Sta2 is `provider` waiting for the first PDU, Sta3
its negotiation, Sta6 `dialogue` exchanging messages, Sta7 and Sta8 the release, Sta13 `close`. What this class owns is
what every state shares: an invalid PDU aborts (AA-8), a closed connection ends (AA-4), a deadline that passes aborts (ARTIM).
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import cast

import structlog

from annotomy.dimse.pdu import Abort, Data, Pdu, PduDecoder, PduError, encode

log = structlog.get_logger(__name__)

QUEUE_HIGH_BYTES = 512 << 10
"""Received and not yet taken: beyond it we stop reading, so that a fast sender waits in its own kernel."""
QUEUE_LOW_BYTES = 128 << 10
FRAGMENT_COST_BYTES = 256
"""What a fragment costs besides its bytes."""
CLOSE_WAIT_S = 5.0
"""How long a peer may take to close after the last PDU of an association."""
SOURCE_USER, SOURCE_PROVIDER = 0, 2


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. Each has a reason of its own."""

    artim_s: float = 30.0
    """From the connection to a whole association request, and for a peer to close after the end (PS3.8 9.1.5)."""
    pdu_s: float = 60.0
    """For a PDU that has begun, so that nobody holds an association by one byte a minute."""
    idle_s: float = 600.0
    """Between messages: modalities keep associations open while a patient is moved."""
    send_s: float = 60.0
    """For a peer to take what we send."""


class AssociationEnded(Exception):
    """The other side aborted or went, a deadline passed, or we aborted. Nothing more can be sent or received."""


class UpperLayer(asyncio.Protocol):
    """`now` deadlines are looked at by `expire`, which the owner calls once a second or so."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.peer_address = ""
        self.ended = ""
        """Why it is over, in a stable word; empty while it is not."""
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._decoder = PduDecoder()
        self._queue: deque[tuple[Pdu, int]] = deque()
        self._queued_bytes = 0
        self._reading = True
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._established = False
        self._serving = 0
        self._since = time.monotonic()
        """Connected, or the last word of the peer or end of our work."""
        self._pdu_since = self._since

    # -- what the event loop calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer_address = str(peer[0]) if peer else ""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = sock
        self._transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        now, began = time.monotonic(), not self._decoder.in_pdu
        try:
            for pdu in self._decoder.feed(data):
                size = sum(len(one.data) + FRAGMENT_COST_BYTES for one in pdu.fragments) if isinstance(pdu, Data) else 0
                self._queue.append((pdu, size))
                self._queued_bytes += size
                began = True
        except PduError as error:
            log.warning("dimse.protocol_error", peer=self.peer_address, reason=str(error))
            self.abort(SOURCE_PROVIDER, error.reason, "protocol-error")
            return
        in_pdu = self._decoder.in_pdu
        if in_pdu and began:
            self._pdu_since = now
        if self._established:
            self._since = now
        if in_pdu and self._socket is not None:
            # Senders that leave Nagle on hold the rest of a PDU back until we acknowledge: do it now, not in 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self._queued_bytes > QUEUE_HIGH_BYTES and self._reading and self._transport is not None:
            self._transport.pause_reading()
            self._reading = False
        self._wake()

    def eof_received(self) -> bool:
        return False  # close; there is no half of an association

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("connection-lost")
        self._gone.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what an association uses ------------------------------------------------------------------------------------

    async def receive(self) -> Pdu:
        """The next PDU. An A-ABORT, like every other end, raises AssociationEnded."""
        while not self._queue:
            self._check()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        pdu, size = self._queue.popleft()
        self._queued_bytes -= size
        if not self._reading and self._queued_bytes < QUEUE_LOW_BYTES and self._transport is not None:
            if not self._transport.is_closing():
                self._transport.resume_reading()
            self._reading = True
        if isinstance(pdu, Abort):
            self._end("aborted-by-peer")
            self._close()
            self._check()
        return pdu

    def write(self, parts: Iterable[bytes | memoryview]) -> None:
        """Hands over at once, to be sent in one piece where the kernel takes it."""
        self._check()
        assert self._transport is not None
        self._transport.writelines(parts)

    async def drain(self) -> None:
        """Waits until the peer took enough; a peer that takes nothing for too long is aborted."""
        if self._writable.is_set():
            self._check()
            return
        try:
            async with asyncio.timeout(self.deadlines.send_s):
                await self._writable.wait()
        except TimeoutError:
            self.abort(SOURCE_PROVIDER, 0, "send-timeout")
        self._check()

    def abort(self, source: int, reason: int, why: str) -> None:
        """Sends an A-ABORT and drops the connection."""
        if self._transport is not None and not self.ended:
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write(encode(Abort(source, reason)))
        self._queue.clear()
        self._end(why)
        self._close()

    async def close(self) -> None:
        """After the last PDU: lets the peer close first, for a while (Sta13), then closes."""
        self._end("closed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.deadlines.artim_s, CLOSE_WAIT_S)):
                await self._gone.wait()
        self._close()

    def established(self) -> None:
        """Negotiation is over: from here the idle deadline runs instead of ARTIM."""
        self._established = True
        self._since = time.monotonic()

    @contextlib.contextmanager
    def serving(self) -> Generator[None]:
        """While we work for the peer, it owes us nothing and no idle deadline runs."""
        self._serving += 1
        try:
            yield
        finally:
            self._serving -= 1
            self._since = time.monotonic()

    def hang_up(self) -> None:
        """As requestor, after the answer to our release (AR-3): closes at once."""
        self._end("closed")
        self._close()

    def expire(self, now: float) -> None:
        """Aborts when the deadline of the present state passed."""
        if self.ended or not self._reading:
            return
        if not self._established:
            late = now > self._since + self.deadlines.artim_s
        elif self._decoder.in_pdu:
            late = now > self._pdu_since + self.deadlines.pdu_s
        else:
            late = not self._serving and now > self._since + self.deadlines.idle_s
        if late:
            self.abort(SOURCE_PROVIDER, 0, "deadline")

    @property
    def is_idle(self) -> bool:
        """Nothing is in hand and nothing is half received, as far as PDUs tell."""
        return not self._serving and not self._decoder.in_pdu and not self._queue

    def _check(self) -> None:
        if self.ended:
            raise AssociationEnded(self.ended)

    def _end(self, why: str) -> None:
        if not self.ended:
            self.ended = why
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _close(self) -> None:
        if self._transport is not None:
            if self._writable.is_set():
                self._transport.close()
            else:
                self._transport.abort()  # the peer takes nothing: what is buffered would hold the memory
