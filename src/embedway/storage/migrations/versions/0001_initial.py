"""All tables of the first release."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from embedway.core.clock import now_ms

revision = "0001_initial"
down_revision = None


def upgrade() -> None:
    """Create the tables and the default project."""
    _create_organization()
    _create_usage()
    op.create_table("holds", *_keys("subject process"), *_numbers("amount_nano_usd expires_ms"))
    op.create_table(
        "budget_alerts",
        *_keys("subject per"),
        *_keys("window_ms amount_nano_usd", sa.BigInteger()),
        *_keys("percent", sa.Integer()),
        *_numbers("at_ms"),
    )
    _create_spaces()


def _create_organization() -> None:
    projects = op.create_table(
        "projects",
        *_keys("id"),
        *_texts("name"),
        *_numbers("created_ms"),
        *_optional("archived_ms", sa.BigInteger()),
        *_optional("models providers", sa.JSON(none_as_null=True)),
        *_required("eu_native zero_data_retention allow_quantization", sa.Boolean()),
        *_required("limits budgets user_limits user_budgets", sa.JSON()),
    )
    op.execute(
        sa.insert(projects).values(
            id="proj_default",
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
        *_keys("project_id id"),
        *_numbers("created_ms"),
        *_optional("blocked_ms", sa.BigInteger()),
        *_optional("limits budgets", sa.JSON()),
    )
    op.create_table(
        "keys",
        *_keys("id"),
        *_texts("name"),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        *_texts("hint"),
        *_numbers("created_ms"),
        *_optional("expires_ms revoked_ms", sa.BigInteger()),
        *_optional("models providers", sa.JSON()),
        *_optional("project_id", sa.Text()),
        *_required("scopes", sa.JSON(), server_default='["embeddings", "on_behalf_of"]'),
        *_optional("issued_by", sa.Text()),
        *_required("limits budgets", sa.JSON(), server_default="[]"),
        *_optional("previous_digest", sa.LargeBinary()),
        *_optional("previous_expires_ms", sa.BigInteger()),
    )
    op.create_index("keys_by_project", "keys", ["project_id"])
    op.create_index("keys_by_issuer", "keys", ["issued_by"])
    op.create_index("keys_by_previous_digest", "keys", ["previous_digest"], unique=True)
    op.create_table(
        "audit",
        *_keys("id"),
        *_numbers("at_ms"),
        *_texts("actor action"),
        *_optional("project_id", sa.Text()),
        *_texts("target"),
        *_required("details", sa.JSON()),
        *_optional("request_id", sa.Text()),
    )
    op.create_index("audit_by_time", "audit", ["at_ms"])
    op.create_table("installation", *_keys("name"), *_texts("value"))


def _create_usage() -> None:
    op.create_table(
        "usage",
        *_texts("id"),
        *_required("line", sa.Integer()),
        *_numbers("at_ms"),
        *_texts("request_id project_id key_id"),
        *_optional("on_behalf_of user", sa.Text()),
        *_texts("end_user"),
        *_required("metadata", sa.JSON()),
        *_texts("model asked provider"),
        *_required("items", sa.Integer()),
        *_numbers("tokens cached_tokens"),
        *_required("estimated priced", sa.Boolean()),
        *_numbers("cost_nano_usd upstream_cost_nano_usd"),
        *_required("calls failed_calls", sa.Integer()),
        *_numbers("latency_us"),
        *_required("status", sa.Integer()),
        sa.PrimaryKeyConstraint("id", "line", name="usage_lines"),
    )
    op.create_index("usage_by_time", "usage", ["at_ms"])
    for name in ("usage_hours", "usage_days"):
        _create_rollup(name, by="project_id key_id model provider")
        op.create_index(f"{name}_by_key", name, ["key_id", "at_ms"])
        op.create_index(f"{name}_by_project", name, ["project_id", "at_ms"])
    for name in ("usage_user_hours", "usage_user_days"):
        _create_rollup(name, by="project_id key_id model provider end_user")
        op.create_index(f"{name}_by_end_user", name, ["project_id", "end_user", "at_ms"])
    _create_sums("refusals", by="project_id key_id reason", sums="requests")


def _create_rollup(name: str, *, by: str) -> None:
    sums = (
        "requests errors items tokens cached_tokens estimated_tokens unpriced_tokens cost_nano_usd "
        "upstream_cost_nano_usd calls failed_calls"
    )
    _create_sums(name, by=by, sums=sums)


def _create_sums(name: str, *, by: str, sums: str) -> None:
    op.create_table(
        name,
        *_keys("at_ms", sa.BigInteger()),
        *_keys(by),
        *_numbers(sums),
        sqlite_with_rowid=False,
    )


def _create_spaces() -> None:
    op.create_table(
        "space_references",
        *_keys("model revision input_type"),
        *_texts("texts"),
        *_required("count", sa.Integer()),
        *_required("vectors", sa.LargeBinary()),
        *_texts("made_by"),
        *_numbers("made_ms"),
    )
    op.create_table(
        "space_proofs",
        *_keys("deployment input_type"),
        *_texts("state revision home"),
        *_optional("cosine norm_deviation", sa.Float()),
        *_texts("reason fingerprint"),
        *_required("models", sa.JSON()),
        *_numbers("at_ms since_ms"),
    )


def _keys(names: str, type: Any = sa.Text()) -> list[sa.Column[Any]]:  # noqa: B008  # holds no state
    return [sa.Column(name, type, primary_key=True) for name in names.split()]


def _texts(names: str) -> list[sa.Column[Any]]:
    return _required(names, sa.Text())


def _numbers(names: str) -> list[sa.Column[Any]]:
    return _required(names, sa.BigInteger())


def _required(names: str, type: Any, *, server_default: str | None = None) -> list[sa.Column[Any]]:
    return [
        sa.Column(name, type, nullable=False, server_default=server_default)
        for name in names.split()
    ]


def _optional(names: str, type: Any) -> list[sa.Column[Any]]:
    return [sa.Column(name, type) for name in names.split()]
