"""What runs beside the requests of an HTTP process: writing audit records, appending the chain, rules that begin or end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from annotomy.actor import SYSTEM
from annotomy.ops.audit_chain import AuditChain
from annotomy.ops.audit_queue import AuditQueue
from annotomy.projects.requests import lapse
from annotomy.projects.visibility import settle_due
from annotomy.services import Services

log = structlog.get_logger(__name__)

APPEND_S = 0.5
"""How long a record waits for its place in the chain; its seal protects it meanwhile."""
RULES_S = 1.0
"""How long past the moment at which a rule begins or ends its audience sees nothing."""


@asynccontextmanager
async def upkeep(services: Services) -> AsyncGenerator[tuple[AuditQueue, AuditChain]]:
    """Runs until the end of the block; what was noted by then is written and appended."""
    queue, chain = AuditQueue(services.db), AuditChain(services.db, services.settings.data_dir)

    async def settle_rules() -> None:
        async with services.db.read(SYSTEM) as tx:
            due = await tx.fetchval(
                "select exists (select from audiences where good_until <= now())"
                " or exists (select from access_requests where state = 'pending' and expires_at <= now())"
            )
        if due:
            async with services.db.write(SYSTEM) as tx:
                await settle_due(tx)
                await lapse(tx)

    tasks = [
        asyncio.create_task(queue.run()),
        asyncio.create_task(_every(APPEND_S, "audit.append", chain.append_if_idle)),
        asyncio.create_task(_every(RULES_S, "rules.settle", settle_rules)),
    ]
    try:
        yield queue, chain
        await queue.drain()
        await chain.append_all()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:  # the database may be away for a while; the next round tries again
            log.exception("upkeep.failed", task=name)
