"""Probes. /livez: the event loop turns. /readyz: the database and the blob store answer. /startupz: migrations done."""

import asyncio
import secrets
import time
from typing import Any

import asyncpg
import structlog
from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.registry import REGISTRY

from annotomy.actor import SYSTEM
from annotomy.services import Services

log = structlog.get_logger(__name__)

PROBE_TIMEOUT_S = 3.0
PROBE_MEMORY_S = 5.0
"""A write probe of the blob store costs an fsync; probes within this time share one."""


class Readiness:
    """Remembers the last verdict for a moment. One for each process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._until = 0.0
        self._verdict: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def verdict(self) -> dict[str, str]:
        """Part -> "ok" or the kind of failure."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._verdict = {"database": await self._database(), "blobs": await self._blobs()}
                self._until = time.monotonic() + PROBE_MEMORY_S
            return self._verdict

    async def _database(self) -> str:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S), self._services.db.read(SYSTEM) as tx:
                await tx.fetchval("select 1 from studies limit 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("readiness.database_failed", kind=type(error).__name__)
            return type(error).__name__
        return "ok"

    async def _blobs(self) -> str:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                stat = await self._services.blobs.put(b"readiness probe " + secrets.token_bytes(16))
                await self._services.blobs.delete(stat.address)
        except (OSError, TimeoutError) as error:
            log.warning("readiness.blobs_failed", kind=type(error).__name__)
            return type(error).__name__
        return "ok"


@get("/livez", include_in_schema=False, opt={"permission": "anyone"}, sync_to_thread=False)
def livez() -> dict[str, str]:
    return {"status": "ok"}


@get("/startupz", include_in_schema=False, opt={"permission": "anyone"}, sync_to_thread=False)
def startupz() -> dict[str, str]:
    """Answers only after the application has started, which needs a migrated database."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False, opt={"permission": "anyone"})
async def readyz(readiness: NamedDependency[Readiness]) -> Response[dict[str, Any]]:
    verdict = await readiness.verdict()
    ready = all(v == "ok" for v in verdict.values())
    return Response({"status": "ok" if ready else "failing", "parts": verdict}, status_code=200 if ready else 503)


@get("/metrics", include_in_schema=False, opt={"permission": "anyone"}, sync_to_thread=True)
def metrics(services: NamedDependency[Services]) -> Response[bytes]:
    """Prometheus text. With several HTTP processes the figures are the sum over all."""
    folder = services.settings.metrics_dir
    registry = REGISTRY
    if folder is not None:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(folder))
    return Response(generate_latest(registry), media_type=MediaType.TEXT, headers={"Content-Type": CONTENT_TYPE_LATEST})


handlers = [livez, startupz, readyz, metrics]
