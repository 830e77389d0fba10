"""Projects, end users, what keys may do, and the record of administrative acts."""

import sqlalchemy as sa
from alembic import op

from embedway.core.clock import now_ms

revision = "0005"
down_revision = "0004"

DEFAULT_PROJECT = "proj_default"


def upgrade() -> None:
    """Creates the tables; keys that there are belong to a project that is made for them."""
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("archived_ms", sa.BigInteger),
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("providers", sa.JSON(none_as_null=True)),
        sa.Column("eu_native", sa.Boolean, nullable=False),
        sa.Column("zero_data_retention", sa.Boolean, nullable=False),
        sa.Column("allow_quantization", sa.Boolean, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("budgets", sa.JSON, nullable=False),
        sa.Column("user_limits", sa.JSON, nullable=False),
        sa.Column("user_budgets", sa.JSON, nullable=False),
    )
    op.execute(
        sa.insert(projects).values(
            id=DEFAULT_PROJECT,
            name="default",
            created_ms=now_ms(),
            eu_native=False,
            zero_data_retention=False,
            allow_quantization=True,
            limits=[],
            budgets=[],
            user_limits=[],
            user_budgets=[],
        )
    )
    op.create_table(
        "end_users",
        sa.Column("project_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("blocked_ms", sa.BigInteger),
        sa.Column("limits", sa.JSON(none_as_null=True)),
        sa.Column("budgets", sa.JSON(none_as_null=True)),
    )
    op.add_column("keys", sa.Column("project_id", sa.Text))
    op.add_column(
        "keys",
        sa.Column(
            "scopes", sa.JSON, nullable=False, server_default='["embeddings", "on_behalf_of"]'
        ),
    )
    op.add_column("keys", sa.Column("issued_by", sa.Text))
    op.add_column("keys", sa.Column("limits", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("keys", sa.Column("budgets", sa.JSON, nullable=False, server_default="[]"))
    op.create_index("keys_by_project", "keys", ["project_id"])
    op.create_index("keys_by_issuer", "keys", ["issued_by"])
    keys = sa.table("keys", sa.column("project_id"))
    op.execute(sa.update(keys).values(project_id=DEFAULT_PROJECT))
    op.create_table(
        "audit",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("request_id", sa.Text),
    )
    op.create_index("audit_by_time", "audit", ["at_ms"])
    op.create_table(
        "installation",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
