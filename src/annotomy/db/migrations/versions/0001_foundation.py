"""The first schema.

Revision ID: 0001
Revises:
"""

from annotomy.db.migrations import run_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_file(__file__)


def downgrade() -> None:
    raise RuntimeError("the first schema has nothing below it; restore a backup instead")
