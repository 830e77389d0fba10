"""Which models and providers a key may use."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds both lists; keys made before may use anything, which null says."""
    op.add_column("keys", sa.Column("models", sa.JSON))
    op.add_column("keys", sa.Column("providers", sa.JSON))
