"""What the API takes and gives, field for field.

The gateway's OpenAPI description says what each field means; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

T = TypeVar("T")

LimitPeriod = Literal["second", "minute", "hour", "day"]
BudgetPeriod = Literal["day", "week", "month", "total"]
Scope = Literal["embeddings", "on_behalf_of", "tokens", "usage", "keys", "admin"]


# --- Embeddings --------------------------------------------------------------------------------


class EmbedFields(TypedDict, total=False):
    """The optional fields of a request for embeddings; leave one out to use its default."""

    dimensions: int | None
    """The width of the vectors, for models that were trained for shorter ones."""
    input_type: Literal["query", "document", "classification", "clustering"] | None
    """What the texts are for, for models that tell these apart."""
    truncate: Literal["none", "end", "start"] | None
    """What to do with a text that is too long: refuse it, cut its end, or cut its start."""
    user: str | None
    """Your end user; `on_behalf_of` comes first."""
    metadata: Mapping[str, str] | None
    """Up to 16 pairs of strings, kept with the usage; you can group usage by them."""
    preference: Literal["balanced", "speed", "cost"] | None
    """What to favour if several deployments may answer."""
    allowed_providers: Sequence[str] | None
    """Use only these providers."""
    eu_native: bool | None
    """Use only deployments that are based and regulated in the EU."""
    allow_quantization: bool | None
    """False: use only unquantised weights."""
    zdr: bool | None
    """Use only deployments that keep no data."""
    fallbacks: Sequence[str] | None
    """Models to try next if `model` fails; each must be of the same vector space."""
    enable_model_fallback: bool | None
    """False: ignore `fallbacks`."""
    extra_body: Mapping[str, Any] | None
    """Fields for the provider, sent unchanged."""


@dataclass(frozen=True)
class DryRunCandidate:
    """A deployment that a request would try."""

    id: str
    provider: str
    model: str
    upstream_model: str
    tokens: int
    calls: int
    price_per_mtok_usd: float | None
    cost_usd: str | None
    latency_s: float
    quantisation: str
    region: str
    eu_native: bool
    zero_data_retention: bool
    health: str
    reason: str


@dataclass(frozen=True)
class DryRunExclusion:
    """A deployment that a request would not try, and why."""

    id: str
    filter: str
    reason: str


@dataclass(frozen=True)
class DryRun:
    """What would happen to a request."""

    object: str
    model: str
    space: str
    items: int
    tokens: int | None
    tokens_estimated: bool
    preference: str
    candidates: list[DryRunCandidate]
    unproven: list[DryRunExclusion]
    removed: list[DryRunExclusion]


@dataclass(frozen=True)
class EmbeddingLimits:
    """The limits of one request to a deployment."""

    max_batch_size: int
    max_input_tokens: int | None
    max_input_length: int


@dataclass(frozen=True)
class CallLimits:
    """The limits of one call from the gateway to a provider."""

    max_items: int
    max_tokens: int | None
    max_parallel: int


@dataclass(frozen=True)
class SharedSpace:
    """The models that share a vector space, according to their makers."""

    model: str
    models: list[str]
    proof: str
    proof_reason: str


@dataclass(frozen=True)
class Deployment:
    """A model at a provider."""

    id: str
    provider: str
    model: str
    upstream_model: str
    declared: bool
    aliases: list[str]
    description: str
    licence: str
    limits: EmbeddingLimits
    call_limits: CallLimits
    dimensions: int | None
    native_dimensions: int | None
    allowed_dimensions: list[int] | str
    tokenizer: str
    pooling: str
    normalised: bool | None
    prompts: dict[str, str]
    space: str
    home_space: str
    shared_space: SharedSpace | None
    proof: str
    proof_reason: str
    price_per_mtok_usd: float | None
    price_date: str | None
    region: str
    hq_country: str
    eu_native: bool
    quantisation: str
    zero_data_retention: bool
    released: str | None
    deprecated: str | None
    retires: str | None
    successor: str
    dates_source: str
    health: str


@dataclass(frozen=True)
class DeploymentList:
    """All deployments that the key may use."""

    object: str
    data: list[Deployment]


# --- Authentication ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ExchangedToken:
    """A token for one end user."""

    token: str
    expires_at: int
    """Until when it works, in Unix seconds."""


# --- Projects, keys, end users -----------------------------------------------------------------


@dataclass(frozen=True)
class RateLimit:
    """A rate limit: the most requests or tokens in any period of this length."""

    of: Literal["requests", "tokens"]
    amount: int
    per: LimitPeriod


@dataclass(frozen=True)
class Budget:
    """The most USD to spend per period, or in total."""

    amount_usd: float
    per: BudgetPeriod
    alerts: Sequence[int] = ()
    """Percentages of the amount at which to alert."""


@dataclass(frozen=True)
class BudgetSpending:
    """How much of a budget is spent."""

    per: BudgetPeriod
    amount_usd: float
    spent_usd: float
    left_usd: float
    resets_at: int | None


class _Grants(TypedDict, total=False):
    models: Sequence[str] | None
    """The models that may be used; None: all."""
    providers: Sequence[str] | None
    """The providers that may be used; None: all."""
    limits: Sequence[RateLimit] | None
    budgets: Sequence[Budget] | None


class ProjectFields(_Grants, total=False):
    """What a project may use. A field that is left out stays as it is, or has its default."""

    eu_native: bool
    zero_data_retention: bool
    allow_quantization: bool
    user_limits: Sequence[RateLimit] | None
    """The rate limits of each end user."""
    user_budgets: Sequence[Budget] | None
    """The budgets of each end user."""


class ProjectChanges(ProjectFields, total=False):
    """What to change about a project."""

    name: str


class KeyFields(_Grants, total=False):
    """What a key may do. A field that is left out stays as it is, or has its default."""

    scopes: Sequence[Scope]
    expires_in_seconds: int | None
    expires_at: int | None
    """Until when it works, in Unix seconds."""


class KeyChanges(KeyFields, total=False):
    """What to change about a key."""

    name: str


class EndUserFields(TypedDict, total=False):
    """What an end user may do. A field that is left out stays as it is, or has its default."""

    blocked: bool
    limits: Sequence[RateLimit] | None
    """In place of the project's for each; None: the project's."""
    budgets: Sequence[Budget] | None
    """In place of the project's for each; None: the project's."""


class Expiry(TypedDict, total=False):
    """Until when a key works: give one of the two, or neither."""

    expires_in_seconds: int | None
    expires_at: int | None


@dataclass(frozen=True)
class Project:
    """A team or customer, with keys of its own."""

    id: str
    object: str
    name: str
    created_at: int
    archived_at: int | None
    status: str
    models: list[str] | None
    providers: list[str] | None
    eu_native: bool
    zero_data_retention: bool
    allow_quantization: bool
    limits: list[RateLimit]
    budgets: list[Budget]
    spending: list[BudgetSpending]
    user_limits: list[RateLimit]
    user_budgets: list[Budget]


@dataclass(frozen=True)
class ApiKey:
    """A key of a project."""

    id: str
    object: str
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    previous_expires_at: int | None
    status: str
    owner: dict[str, Any]
    owner_project_access: str
    project_id: str
    scopes: list[Scope]
    models: list[str] | None
    providers: list[str] | None
    limits: list[RateLimit]
    budgets: list[Budget]
    spending: list[BudgetSpending]
    issued_by: str | None


@dataclass(frozen=True)
class ApiKeyWithSecret(ApiKey):
    """A key that was just made or rotated, with its secret, which is shown this once."""

    value: str


@dataclass(frozen=True)
class AdminApiKey:
    """A key for the organisation's administration."""

    id: str
    object: str
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    previous_expires_at: int | None
    status: str
    owner: dict[str, Any]


@dataclass(frozen=True)
class AdminApiKeyWithSecret(AdminApiKey):
    """An admin key that was just made or rotated, with its secret, which is shown this once."""

    value: str


@dataclass(frozen=True)
class EndUser:
    """An end user of a project."""

    id: str
    object: str
    project_id: str
    created_at: int | None
    blocked: bool
    blocked_at: int | None
    limits: list[RateLimit] | None
    budgets: list[Budget] | None
    spending: list[BudgetSpending]


@dataclass(frozen=True)
class DeletionReceipt:
    """What was deleted."""

    id: str
    object: str
    deleted: bool


@dataclass(frozen=True)
class AuditEvent:
    """Who changed what, and when."""

    id: str
    object: str
    type: str
    effective_at: int
    actor: dict[str, Any]
    project: dict[str, Any] | None
    request_id: str | None
    changes: dict[str, Any] | None
    details: dict[str, Any] | None = field(metadata={"named_by": "type"})
    """What was changed: the field of the event that is named after its `type`."""


# --- Usage -------------------------------------------------------------------------------------


class UsageQuery(TypedDict, total=False):
    """Which usage to sum up, and how."""

    end_time: int | datetime
    """Not included; default: now."""
    bucket_width: Literal["1m", "1h", "1d"]
    """The length of each bucket; default: a day."""
    group_by: Sequence[str]
    """`project_id`, `api_key_id`, `user_id`, `model`, `provider` or `metadata.KEY`."""
    project_ids: Sequence[str]
    api_key_ids: Sequence[str]
    user_ids: Sequence[str]
    models: Sequence[str]
    providers: Sequence[str]
    metadata: Mapping[str, str]
    """Count only requests with these pairs."""
    time_zone: str
    """Whose days to use, such as `Europe/Berlin`; default: UTC."""
    limit: int
    """How many buckets a page has."""


class RefusalsQuery(TypedDict, total=False):
    """Which refused requests to count, and how."""

    end_time: int | datetime
    bucket_width: Literal["1m", "1h", "1d"]
    group_by: Sequence[str]
    """`project_id`, `api_key_id` or `reason`."""
    project_ids: Sequence[str]
    api_key_ids: Sequence[str]
    reasons: Sequence[str]
    time_zone: str
    limit: int


@dataclass(frozen=True)
class UsageBucket(Generic[T]):
    """The sums of one period."""

    object: str
    start_time: int
    end_time: int
    results: list[T]


@dataclass(frozen=True)
class UsageResult:
    """The usage of one group. Fields that were not grouped by are None."""

    object: str
    project_id: str | None
    project_name: str | None
    api_key_id: str | None
    api_key_name: str | None
    user_id: str | None
    model: str | None
    provider: str | None
    metadata: dict[str, str | None] | None
    input_tokens: int
    num_model_requests: int
    input_cached_tokens: int
    estimated_tokens: int
    unpriced_tokens: int
    num_items: int
    num_errors: int
    num_calls: int
    num_failed_calls: int


@dataclass(frozen=True)
class Amount:
    """An amount of money."""

    value: float
    currency: str


@dataclass(frozen=True)
class CostsResult:
    """The cost of one group. Fields that were not grouped by are None."""

    object: str
    project_id: str | None
    project_name: str | None
    api_key_id: str | None
    api_key_name: str | None
    user_id: str | None
    model: str | None
    provider: str | None
    metadata: dict[str, str | None] | None
    amount: Amount
    amount_nano_usd: int
    """What was charged, exactly, in billionths of a USD."""
    upstream_amount: Amount
    upstream_amount_nano_usd: int
    """What providers may charge, exactly, in billionths of a USD."""
    line_item: str | None
    quantity: int | None
    quantity_unit: str | None


@dataclass(frozen=True)
class RefusalsResult:
    """The refused requests of one group. Fields that were not grouped by are None."""

    object: str
    project_id: str | None
    project_name: str | None
    api_key_id: str | None
    api_key_name: str | None
    reason: str | None
    num_requests: int
