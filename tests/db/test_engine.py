"""A process that starts while PostgreSQL recovers waits for it."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest

from annotomy.db import engine
from annotomy.db.engine import Database

REFUSED_FIRST = 3


@asynccontextmanager
async def refusing_first(database_url: str) -> AsyncGenerator[tuple[str, list[int]]]:
    """A socket that hangs up on the first connections and hands the others to the database."""
    target = urlsplit(database_url)
    where = dict(parse_qsl(target.query))
    seen: list[int] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        if len(seen) <= REFUSED_FIRST:
            writer.close()
            return
        from_database, to_database = await asyncio.open_unix_connection(f"{where['host']}/.s.PGSQL.{where['port']}")
        await asyncio.gather(pipe(reader, to_database), pipe(from_database, writer))

    with tempfile.TemporaryDirectory() as folder:
        async with await asyncio.start_unix_server(serve, f"{folder}/.s.PGSQL.{where['port']}"):
            yield target._replace(query=urlencode({**where, "host": folder})).geturl(), seen


async def test_a_database_that_hangs_up_at_first_is_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRY_PAUSE_S", 0.01)
    async with refusing_first(database_url) as (url, seen):
        database = await Database.connect(url)
        await database.answers()
        assert len(seen) > REFUSED_FIRST
        await database.close()


async def test_patience_ends_with_what_was_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "START_PATIENCE_S", 0.0)
    database = await Database.connect("postgresql://nobody:nothing@127.0.0.1:1/none")
    with pytest.raises(ConnectionRefusedError):
        await database.answers()
    await database.close()


async def test_a_wrong_password_is_told_at_once(database_url: str) -> None:
    database = await Database.connect(urlsplit(database_url)._replace(netloc="nobody:wrong@").geturl())
    with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        await database.answers()
    await database.close()
