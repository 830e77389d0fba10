"""The secret that a key had before it was rotated, and how long it still works."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds both columns, empty: no key has been rotated yet."""
    op.add_column("keys", sa.Column("previous_digest", sa.LargeBinary))
    op.add_column("keys", sa.Column("previous_expires_ms", sa.BigInteger))
    op.create_index("keys_by_previous_digest", "keys", ["previous_digest"], unique=True)
