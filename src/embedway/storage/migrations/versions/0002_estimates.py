"""Which usage is an estimate, and which has no price."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds both marks; what was recorded before was counted and priced."""
    op.add_column(
        "usage",
        sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "usage", sa.Column("priced", sa.Boolean, nullable=False, server_default=sa.true())
    )
