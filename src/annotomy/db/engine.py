"""Transactions. Reads and writes are different types, opened visibly with `async with`.

Each transaction tells PostgreSQL who asks (`app.actor`), in which projects (`app.project`, the text of a uuid[]; empty: in
all) and by which share link (`app.share`, or empty), which the row-level-security policies read. The settings travel in the
same round trip as BEGIN: a UUID's canonical text needs no quoting beyond what is written here.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg
import structlog

from annotomy.actor import SYSTEM, Actor

log = structlog.get_logger(__name__)

ACQUIRE_TIMEOUT_S = 10.0
"""A request that cannot get a connection for this long is refused rather than queued on."""
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""The escape itself, not a text that spells it behind an escaped backslash."""
STATEMENT_TIMEOUT_S = 60.0
"""No statement of ours is meant to take longer; a runaway one is cancelled and its connection freed."""


START_PATIENCE_S = 60.0
"""PostgreSQL's recovery after a crash; a process that starts meanwhile waits rather than dies and is restarted late."""
RETRY_PAUSE_S = 0.25
_NOT_YET = (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, asyncpg.TooManyConnectionsError)
"""What a PostgreSQL answers that is down, starting or full for the moment. A wrong password is not among them."""


class ReadTx:
    """A read-only transaction: it sees one snapshot and is rolled back at its end."""

    def __init__(
        self,
        raw: asyncpg.pool.PoolConnectionProxy,
        actor: Actor,
        *,
        unrestricted: bool = False,
        audit_key: bytes | None = None,
    ) -> None:
        self.raw = raw
        self.actor = actor
        self.unrestricted = unrestricted
        self.audit_key = audit_key

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        return await self.raw.fetch(sql, *values)

    async def fetchrow(self, sql: str, *values: Any) -> Any | None:
        return await self.raw.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        return await self.raw.fetchval(sql, *values)


class WriteTx(ReadTx):
    """A transaction that commits when its block ends without an exception."""

    gathered: list[Any] | None = None
    """Events that `events.gathered` holds back until the end of its block."""

    async def execute(self, sql: str, *values: Any) -> str:
        """Returns the command tag, as `UPDATE 1`."""
        return await self.raw.execute(sql, *values)

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        await self.raw.executemany(sql, rows)


@asynccontextmanager
async def unrestricted(tx: ReadTx) -> AsyncGenerator[None]:
    """Statements inside see every row, where rights were decided before: what others see is told by rows one may not see."""
    if tx.unrestricted:
        yield
        return
    await _speak_as(tx, SYSTEM, opened=True)
    yield  # after an exception the transaction is rolled back, and its settings with it
    await _speak_as(tx, tx.actor, opened=False)


@asynccontextmanager
async def restricted(tx: ReadTx, actor: Actor) -> AsyncGenerator[None]:
    """Statements inside an unrestricted transaction that see what `actor` sees."""
    assert tx.unrestricted
    await _speak_as(tx, actor, opened=False)
    yield
    await _speak_as(tx, SYSTEM, opened=True)


async def _speak_as(tx: ReadTx, actor: Actor, *, opened: bool) -> None:
    tx.unrestricted = opened
    await tx.fetchval(
        "select set_config('app.actor', $1, true), set_config('app.project', $2, true), set_config('app.share', $3, true)",
        str(actor.user_id), _projects(actor), str(actor.share_link_id or ""),
    )  # fmt: skip


class Database:
    """A pool of connections to one PostgreSQL. `audit_key` seals what its write transactions record."""

    def __init__(self, pool: asyncpg.Pool, url: str, audit_key: bytes | None) -> None:
        self.pool = pool
        self.url = url
        self.audit_key = audit_key

    @classmethod
    async def connect(cls, url: str, *, pool_size: int = 4, audit_key: bytes | None = None) -> Self:
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=pool_size,
            init=_teach_json,
            reset=_leave_as_it_is,
            command_timeout=STATEMENT_TIMEOUT_S,
            max_inactive_connection_lifetime=300.0,
        )
        return cls(pool, url, audit_key)

    async def answers(self) -> None:
        """Returns once PostgreSQL answers. After START_PATIENCE_S it raises what the last attempt met."""
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                await self.pool.fetchval("select 1")
            except _NOT_YET as error:
                if time.monotonic() > deadline:
                    raise
                log.info("database.awaited", kind=type(error).__name__)
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return

    async def close(self) -> None:
        await self.pool.close()

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[asyncpg.pool.PoolConnectionProxy]:
        """A bare connection, for what outlives a transaction: a lock of the session. It is given back as if it were new."""
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            try:
                yield connection
            finally:
                try:
                    await connection.reset(timeout=ACQUIRE_TIMEOUT_S)
                except BaseException:
                    connection.terminate()
                    raise

    @asynccontextmanager
    async def read(
        self, actor: Actor, *, unrestricted: bool = False, keep_plans: bool = False
    ) -> AsyncGenerator[ReadTx]:
        """A snapshot of what `actor` may see. `unrestricted` opens row-level security where rights were decided before.

        With `keep_plans` each statement is planned once for a connection: for statements whose best plan does not hang on
        their values, and that take less time than the planning of all that the access wall joins.
        """
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            begin = _begin(actor, "begin isolation level repeatable read read only", unrestricted)
            await connection.execute(begin + _KEEP_PLANS if keep_plans else begin)
            try:
                yield ReadTx(connection, actor, unrestricted=unrestricted)
            finally:
                await _end(connection, "rollback")

    @asynccontextmanager
    async def write(
        self, actor: Actor, *, unrestricted: bool = False, keep_plans: bool = False
    ) -> AsyncGenerator[WriteTx]:
        """Commits at the end of the block, rolls back when it raises."""
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            begin = _begin(actor, "begin", unrestricted)
            await connection.execute(begin + _KEEP_PLANS if keep_plans else begin)
            try:
                yield WriteTx(connection, actor, unrestricted=unrestricted, audit_key=self.audit_key)
            except BaseException:
                await _end(connection, "rollback")
                raise
            await connection.execute("commit")


_KEEP_PLANS = "; set local plan_cache_mode = force_generic_plan"


def _begin(actor: Actor, statement: str, unrestricted: bool) -> str:
    seen = SYSTEM if unrestricted else actor
    return (
        f"{statement}; set local app.actor = '{seen.user_id}'; set local app.project = '{_projects(seen)}';"
        f" set local app.share = '{seen.share_link_id or ''}'"
    )


def _projects(actor: Actor) -> str:
    return "" if actor.project_ids is None else f"{{{','.join(map(str, actor.project_ids))}}}"


async def _leave_as_it_is(connection: Any) -> None:
    """Our transactions set what they set with `set local`, and an open one is rolled back by asyncpg itself: a statement that
    resets the session after each of them would be a round trip for nothing."""
    del connection


async def _end(connection: Any, statement: str) -> None:
    if not connection.is_closed():
        await connection.execute(statement)


async def _teach_json(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_to_json, decoder=json.loads, schema="pg_catalog")


def _to_json(value: Any) -> str:
    if isinstance(value, str):
        return value  # the queue library encodes by itself; our own columns hold objects and lists, never a bare string
    # PostgreSQL refuses NUL in text and jsonb; real DICOM strings hold it.
    return _ESCAPED_NUL.sub(r"\1", json.dumps(value, ensure_ascii=False, default=str))
