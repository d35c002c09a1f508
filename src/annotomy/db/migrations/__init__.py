"""Alembic revisions; each runs the SQL file of its own name."""

from functools import partial
from pathlib import Path
from typing import Any

from alembic import op


def run_sql_file(revision_file: str) -> None:
    """Runs the `.sql` beside a revision, in its transaction.

    The statements go to asyncpg as one simple query, since a prepared statement holds one command only.
    """
    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind()
    connection.exec_driver_sql("select 1")  # the dialect begins its transaction with its own first statement
    dbapi: Any = connection.connection.dbapi_connection
    dbapi.run_async(partial(_execute, sql))


async def _execute(sql: str, raw: Any) -> None:
    await raw.execute(sql)
