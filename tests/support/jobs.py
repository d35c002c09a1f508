"""Runs the jobs that are queued, in the test's own process, by the engine that workers use."""

from uuid import UUID

import asyncpg
from pgqueuer.errors import RetryRequested
from pgqueuer.types import QueueExecutionMode

from annotomy.actor import SYSTEM
from annotomy.jobs.engine import _run, queuer_for  # pyright: ignore[reportPrivateUsage] - one attempt, without its pauses
from annotomy.jobs.handlers import HandlerSpec
from annotomy.services import Services
from annotomy.worker import HANDLERS


async def run_queued_jobs(services: Services, handlers: list[HandlerSpec] | None = None) -> None:
    connection = await asyncpg.connect(services.db.url)
    try:
        queuer = queuer_for(connection, services, HANDLERS if handlers is None else handlers)
        await queuer.run(batch_size=2, mode=QueueExecutionMode.drain)
    finally:
        await connection.close()


async def run_attempt(services: Services, job_id: UUID) -> bool:
    """One attempt at a job, at once and without the queue; whether it is to be tried again later."""
    async with services.db.read(SYSTEM) as tx:
        kind = await tx.fetchval("select kind from jobs where id = $1", job_id)
    [spec] = [one for one in HANDLERS if one.job_type.kind == kind]
    try:
        await _run(services, spec, job_id)
    except RetryRequested:
        return True
    return False
