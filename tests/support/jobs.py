"""Runs the jobs that are queued, in the test's own process, by the engine that workers use."""

import asyncpg
from pgqueuer.types import QueueExecutionMode

from annotomy.jobs.engine import queuer_for
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
