"""The tables, in SQLAlchemy Core; the same on every database.

A change here needs a migration in `migrations/versions`; a test compares the two.
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
    false,
    true,
)

metadata = MetaData()

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
)

usage = Table(
    "usage",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("on_behalf_of", Text),
    Column("user", Text),
    Column("metadata", JSON, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("items", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False, server_default=false()),
    Column("priced", Boolean, nullable=False, server_default=true()),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("latency_us", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Index("usage_by_time", "at_ms"),
    Index("usage_by_key_and_time", "key_id", "at_ms"),
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
