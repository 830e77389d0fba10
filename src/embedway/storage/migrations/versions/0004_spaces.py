"""What is proven of vector spaces."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "space_references",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("revision", sa.Text, primary_key=True),
        sa.Column("input_type", sa.Text, primary_key=True),
        sa.Column("texts", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("vectors", sa.LargeBinary, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "space_proofs",
        sa.Column("deployment", sa.Text, primary_key=True),
        sa.Column("input_type", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("home", sa.Text, nullable=False),
        sa.Column("cosine", sa.Float),
        sa.Column("norm_deviation", sa.Float),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
