"""Counts of refused requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table, empty: earlier refusals were not counted."""
    op.create_table(
        "refusals",
        sa.Column("at_ms", sa.BigInteger, primary_key=True),
        sa.Column("project_id", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
