"""The database that tests get is real, migrated, and each test's own."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_each_test_gets_a_migrated_database_of_its_own(database_url: str, turn: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from events") == 0, turn
    await connection.execute(
        "insert into events (type, actor_id, actor_name, object_kind, object_id)"
        " values ('test.ran', gen_random_uuid(), 'test', 'test', $1)",
        turn,
    )
    await connection.close()


async def test_the_role_of_the_application_cannot_pass_row_level_security(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    role = await connection.fetchrow("select rolsuper, rolbypassrls from pg_roles where rolname = current_user")
    assert role is not None
    assert tuple(role) == (False, False)
    await connection.close()


async def test_the_address_is_understood_by_sqlalchemy(database_url: str) -> None:
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1
    await engine.dispose()


async def test_an_empty_database_can_be_had_for_migrations(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    await connection.close()
