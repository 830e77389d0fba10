"""The row of the ledger: one for each 200, and one for each refusal of a well-formed request."""

from collections.abc import Mapping

import msgspec

from embedway.core.money import NanoUsd


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered, to whom, and what it cost."""

    id: str
    """The answer's own id, `embd_...`; unique in the ledger, so no answer is billed twice."""
    at_ms: int
    """When the request had been read, milliseconds since 1970-01-01 UTC."""
    request_id: str
    key_id: str
    on_behalf_of: str | None
    user: str | None
    metadata: Mapping[str, str]
    model: str
    """The model that answered; for a refused request the one asked for."""
    provider: str
    """The provider that answered; empty where none was asked."""
    items: int
    tokens: int
    estimated: bool = False
    """Whether `tokens` is an estimate: they could not be counted, and the provider did not tell."""
    priced: bool = True
    """Whether the price was known; if not, the cost is 0."""
    cost_nano_usd: NanoUsd
    latency_us: int
    """From the request's head to the row, microseconds."""
    status: int
    """The HTTP status of the answer. Only rows with 200 are billed."""
