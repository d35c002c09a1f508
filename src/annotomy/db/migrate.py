"""Brings a database to this release's schema. Safe to call from several processes at once: one runs, the others wait."""

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

MIGRATION_LOCK = 0x616E6E6F  # any fixed number: one migrator at a time in this database
LOCK_TIMEOUT_S = 60


async def migrate(database_url: str) -> None:
    """Runs every revision that is missing, then installs the queue's own schema when absent."""
    engine = create_async_engine(_sqlalchemy_url(database_url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"set lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            await connection.execute(text(f"select pg_advisory_lock({MIGRATION_LOCK})"))
            await connection.commit()
            try:
                await connection.run_sync(_upgrade)
                await connection.commit()
                await _install_queue(database_url)
            finally:
                await connection.rollback()
                await connection.execute(text(f"select pg_advisory_unlock({MIGRATION_LOCK})"))
                await connection.commit()
    finally:
        await engine.dispose()


async def pending(database_url: str) -> list[str]:
    """Revisions that this release has and the database lacks."""
    engine = create_async_engine(_sqlalchemy_url(database_url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_pending)
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _pending(connection: Connection) -> list[str]:
    have = set(MigrationContext.configure(connection).get_current_heads())
    script = ScriptDirectory.from_config(_config())
    known = {r.revision for head in have for r in script.iterate_revisions(head, "base")}
    return [r.revision for r in script.walk_revisions() if r.revision not in known]


async def _install_queue(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        if await connection.fetchval("select to_regclass('pgqueuer')") is None:
            await Queries(AsyncpgDriver(connection)).install()
    finally:
        await connection.close()


def _sqlalchemy_url(database_url: str) -> str:
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    return url.render_as_string(hide_password=False)
