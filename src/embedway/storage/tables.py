"""Defines the tables, in SQLAlchemy Core, alike for SQLite and Postgres.

A change here needs a migration in `migrations/versions`. A test compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("archived_ms", BigInteger),
    Column("models", JSON(none_as_null=True)),
    Column("providers", JSON(none_as_null=True)),
    Column("eu_native", Boolean, nullable=False),
    Column("zero_data_retention", Boolean, nullable=False),
    Column("allow_quantization", Boolean, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("budgets", JSON, nullable=False),
    Column("user_limits", JSON, nullable=False),
    Column("user_budgets", JSON, nullable=False),
)

end_users = Table(
    "end_users",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("blocked_ms", BigInteger),
    Column("limits", JSON(none_as_null=True)),
    Column("budgets", JSON(none_as_null=True)),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("models", JSON(none_as_null=True)),
    Column("providers", JSON(none_as_null=True)),
    Column("project_id", Text),
    Column("scopes", JSON, nullable=False, server_default='["embeddings", "on_behalf_of"]'),
    Column("issued_by", Text),
    Column("limits", JSON, nullable=False, server_default="[]"),
    Column("budgets", JSON, nullable=False, server_default="[]"),
    Column("previous_digest", LargeBinary),
    Column("previous_expires_ms", BigInteger),
    Index("keys_by_previous_digest", "previous_digest", unique=True),
    Index("keys_by_project", "project_id"),
    Index("keys_by_issuer", "issued_by"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("project_id", Text),
    Column("target", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("request_id", Text),
    Index("audit_by_time", "at_ms"),
)

installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("id", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("on_behalf_of", Text),
    Column("user", Text),
    Column("end_user", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("model", Text, nullable=False),
    Column("asked", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("items", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("priced", Boolean, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("upstream_cost_nano_usd", BigInteger, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("failed_calls", Integer, nullable=False),
    Column("latency_us", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Index("usage_by_time", "at_ms"),
)

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
"""The columns of sums in a roll-up, by time, project, key, model and provider."""


def _rollup(name: str, *, end_users: bool) -> Table:
    # `at_ms` is the start of the hour or day. A missing id or end user is empty, not null, because
    # it is in the primary key.
    return Table(
        name,
        metadata,
        Column("at_ms", BigInteger, primary_key=True),
        Column("project_id", Text, primary_key=True),
        Column("key_id", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("provider", Text, primary_key=True),
        *([Column("end_user", Text, primary_key=True)] if end_users else []),
        *(Column(each, BigInteger, nullable=False) for each in SUMS),
        *(
            [Index(f"{name}_by_end_user", "project_id", "end_user", "at_ms")]
            if end_users
            else [
                Index(f"{name}_by_key", "key_id", "at_ms"),
                Index(f"{name}_by_project", "project_id", "at_ms"),
            ]
        ),
        sqlite_with_rowid=False,  # stored in key order, because reports read ranges of the key
    )


usage_hours = _rollup("usage_hours", end_users=False)
usage_days = _rollup("usage_days", end_users=False)
usage_user_hours = _rollup("usage_user_hours", end_users=True)
usage_user_days = _rollup("usage_user_days", end_users=True)

refusals = Table(
    "refusals",
    metadata,
    # `at_ms` is the start of a quarter hour. The ids are empty if no key was recognised.
    Column("at_ms", BigInteger, primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    sqlite_with_rowid=False,  # stored in key order, because reports read ranges of the key
)

holds = Table(
    "holds",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("process", Text, primary_key=True),
    Column("amount_nano_usd", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

budget_alerts = Table(
    "budget_alerts",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("per", Text, primary_key=True),
    Column("window_ms", BigInteger, primary_key=True),
    Column("amount_nano_usd", BigInteger, primary_key=True),
    Column("percent", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

space_references = Table(
    "space_references",
    metadata,
    Column("model", Text, primary_key=True),
    Column("revision", Text, primary_key=True),
    Column("input_type", Text, primary_key=True),
    Column("texts", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("vectors", LargeBinary, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
)

space_proofs = Table(
    "space_proofs",
    metadata,
    Column("deployment", Text, primary_key=True),
    Column("input_type", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("home", Text, nullable=False),
    Column("cosine", Float),
    Column("norm_deviation", Float),
    Column("reason", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("models", JSON, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

event_deliveries = Table(
    "event_deliveries",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("webhook", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    # When the next try is due, or when the claim of the present one lapses.
    Column("next_ms", BigInteger, nullable=False),
    Column("result", Text),
    Index("event_deliveries_by_due", "webhook", "state", "next_ms"),
    Index("event_deliveries_by_subject", "subject", "at_ms"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Index("files_by_project", "project_id", "created_ms", "id"),
    Index("files_by_expiry", "expires_ms"),
)

file_segments = Table(
    "file_segments",
    metadata,
    Column("file_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("submitter", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("output_file_id", Text, nullable=False),
    Column("error_file_id", Text, nullable=False),
    Column("output_expires_s", BigInteger),
    Column("status", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    # When each status began, by its name.
    Column("reached_ms", JSON, nullable=False),
    Column("errors", JSON, nullable=False),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    # The first line that is not answered yet: its number, and its place in the input file.
    Column("next_line", Integer, nullable=False),
    Column("next_byte", BigInteger, nullable=False),
    # Who works on it, until when unless renewed. Other processes may take it over after that.
    Column("worker", Text, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),
    Index("batches_by_project", "project_id", "created_ms", "id"),
    Index("batches_by_lease", "status", "lease_ms"),
)
