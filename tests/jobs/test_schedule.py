"""Upkeep runs when it is due, and its failure ends nothing."""

import asyncio

import asyncpg

from annotomy.jobs.engine import queuer_for
from annotomy.jobs.handlers import Schedule
from annotomy.services import Services


async def test_upkeep_is_done_when_due_and_goes_on_after_a_failure(services: Services) -> None:
    done = asyncio.Event()
    turns = 0

    async def fails_first(_: Services) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise RuntimeError("the first turn fails")
        done.set()

    connection = await asyncpg.connect(services.db.url)
    try:
        queuer = queuer_for(connection, services, [], [Schedule("every-second", "* * * * * *", fails_first)])
        running = asyncio.create_task(queuer.run())
        await asyncio.wait_for(done.wait(), timeout=60)
        queuer.shutdown.set()
        await running
    finally:
        await connection.close()
