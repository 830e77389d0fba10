"""The deliveries of events to webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0002_events"
down_revision = "0001_initial"
loses = "Events that wait for delivery to webhooks, and the record of those delivered."


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "event_deliveries",
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column("webhook", sa.Text(), primary_key=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text()),
    )
    op.create_index("event_deliveries_by_due", "event_deliveries", ["webhook", "state", "next_ms"])
    op.create_index("event_deliveries_by_subject", "event_deliveries", ["subject", "at_ms"])


def downgrade() -> None:
    """Delete the table."""
    op.drop_table("event_deliveries")
