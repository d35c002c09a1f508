"""A change of somebody's rights is told to every process at once by NOTIFY; what a process remembers dies after a few
seconds anyway, so that a lost connection delays a revocation and never loses it.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from annotomy.db.engine import WriteTx

log = structlog.get_logger(__name__)

CHANNEL = "annotomy_identity"
SIGNING_KEYS = "signing-keys"
PROBE_S = 30.0
"""A connection that died without a word is found out this often."""
RECONNECT_S = 1.0


async def announce(tx: WriteTx, user_id: UUID) -> None:
    """What processes remember of this user is wrong once the transaction commits."""
    await tx.execute("select pg_notify($1, $2)", CHANNEL, str(user_id))


async def announce_signing_keys(tx: WriteTx) -> None:
    await tx.execute("select pg_notify($1, $2)", CHANNEL, SIGNING_KEYS)


async def listen(database_url: str, *, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
    """Runs until cancelled. `heard` gets each announcement; `missed` is called whenever some may have been lost."""
    while True:
        try:
            await _listen_once(database_url, heard, missed)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("revocation.connection_lost", kind=type(error).__name__)
        missed()
        await asyncio.sleep(RECONNECT_S)


async def _listen_once(database_url: str, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
    lost = asyncio.Event()

    def on_message(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    def on_end(_connection: Any) -> None:
        lost.set()

    connection = await asyncpg.connect(database_url)
    try:
        connection.add_termination_listener(on_end)
        await connection.add_listener(CHANNEL, on_message)
        missed()
        while not lost.is_set():
            try:
                await asyncio.wait_for(lost.wait(), PROBE_S)
            except TimeoutError:
                await connection.execute("select 1", timeout=PROBE_S)
    finally:
        connection.terminate()
