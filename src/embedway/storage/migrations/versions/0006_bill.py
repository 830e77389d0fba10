"""Lines of the ledger, what they are summed into, and what is held of budgets."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SUMS = (
    "requests",
    "errors",
    "items",
    "tokens",
    "cached_tokens",
    "estimated_tokens",
    "unpriced_tokens",
    "cost_nano_usd",
    "upstream_cost_nano_usd",
    "calls",
    "failed_calls",
)
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
OK = 200


def upgrade() -> None:
    """Makes a line of each row that there is, and sums them up."""
    op.drop_index("usage_by_time", "usage")
    op.drop_index("usage_by_key_and_time", "usage")
    op.rename_table("usage", "usage_0005")
    _create_usage()
    _copy_usage()
    op.drop_table("usage_0005")
    op.create_index("usage_by_time", "usage", ["at_ms"])
    _create_rollup("usage_hours", width_ms=HOUR_MS, end_users=False)
    _create_rollup("usage_days", width_ms=DAY_MS, end_users=False)
    _create_rollup("usage_user_hours", width_ms=HOUR_MS, end_users=True)
    _create_rollup("usage_user_days", width_ms=DAY_MS, end_users=True)
    op.create_table(
        "holds",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("process", sa.Text, primary_key=True),
        sa.Column("amount_nano_usd", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "budget_alerts",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("per", sa.Text, primary_key=True),
        sa.Column("window_ms", sa.BigInteger, primary_key=True),
        sa.Column("amount_nano_usd", sa.BigInteger, primary_key=True),
        sa.Column("percent", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("on_behalf_of", sa.Text),
        sa.Column("user", sa.Text),
        sa.Column("end_user", sa.Text, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("items", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("priced", sa.Boolean, nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger, nullable=False),
        sa.Column("upstream_cost_nano_usd", sa.BigInteger, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("failed_calls", sa.Integer, nullable=False),
        sa.Column("latency_us", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        # Named, for the table that it replaces has the usual name until it is dropped.
        sa.PrimaryKeyConstraint("id", "line", name="usage_lines"),
    )


def _copy_usage() -> None:
    kept = (
        "id", "at_ms", "request_id", "key_id", "on_behalf_of", "user", "metadata", "model",
        "provider", "items", "tokens", "estimated", "priced", "cost_nano_usd", "latency_us",
        "status",
    )  # fmt: skip
    before = sa.table("usage_0005", *map(sa.column, kept))
    made: dict[str, Any] = {
        "line": sa.literal_column("0"),
        "asked": before.c.model,
        "project_id": sa.literal_column("'proj_default'"),
        "end_user": sa.func.coalesce(before.c.on_behalf_of, before.c.user, ""),
        "cached_tokens": sa.literal_column("0"),
        "upstream_cost_nano_usd": sa.case((before.c.status == OK, before.c.cost_nano_usd), else_=0),
        "calls": sa.case((before.c.status == OK, 1), else_=0),
        "failed_calls": sa.literal_column("0"),
    }
    after = sa.table("usage", *map(sa.column, [*kept, *made]))
    rows: Any = sa.select(*before.c, *made.values())
    op.execute(sa.insert(after).from_select([*kept, *made], rows))


def _create_rollup(name: str, *, width_ms: int, end_users: bool) -> None:
    by = ["project_id", "key_id", "model", "provider", *(["end_user"] if end_users else [])]
    op.create_table(
        name,
        sa.Column("at_ms", sa.BigInteger, primary_key=True),
        *(sa.Column(each, sa.Text, primary_key=True) for each in by),
        *(sa.Column(each, sa.BigInteger, nullable=False) for each in SUMS),
        sqlite_with_rowid=False,
    )
    if end_users:
        op.create_index(f"{name}_by_end_user", name, ["project_id", "end_user", "at_ms"])
    else:
        op.create_index(f"{name}_by_key", name, ["key_id", "at_ms"])
        op.create_index(f"{name}_by_project", name, ["project_id", "at_ms"])
    flags = (sa.column("estimated", sa.Boolean), sa.column("priced", sa.Boolean))
    lines = sa.table(
        "usage",
        *map(sa.column, ["at_ms", "items", "tokens", "cost_nano_usd", "status", *by]),
        *flags,
    )
    answered = lines.c.status == OK
    # No parameter: Postgres would not see that it is the same one in both places.
    width: sa.ColumnElement[int] = sa.literal_column(str(width_ms), sa.BigInteger)
    start = (lines.c.at_ms - lines.c.at_ms % width).label("at_ms")
    tokens, cost = lines.c.tokens, lines.c.cost_nano_usd
    summed = {
        "requests": (answered, 1),
        "errors": (~answered, 1),
        "items": (answered, lines.c["items"]),
        "tokens": (answered, tokens),
        "cached_tokens": (sa.false(), 0),
        "estimated_tokens": (answered & lines.c.estimated, tokens),
        "unpriced_tokens": (answered & ~lines.c.priced, tokens),
        "cost_nano_usd": (answered, cost),
        "upstream_cost_nano_usd": (answered, cost),
        "calls": (answered, 1),
        "failed_calls": (sa.false(), 0),
    }
    sums = [sa.func.sum(sa.case(when, else_=0)) for when in summed.values()]
    groups = [lines.c[each] for each in by]
    op.execute(
        sa.insert(sa.table(name, *map(sa.column, ["at_ms", *by, *SUMS]))).from_select(
            ["at_ms", *by, *summed], sa.select(start, *groups, *sums).group_by(start, *groups)
        )
    )
