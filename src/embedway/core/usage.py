"""The ledger's lines: what was answered, to whom, what it cost, and what providers were asked.

One for each deployment that a request was sent to, and one for a well-formed request that was
refused before; a probe of a deployment has one too, of no project.
"""

from collections.abc import Mapping

import msgspec

from embedway.core.money import NanoUsd

ANSWERED = 200
CLIENT_LEFT = 499
"""In the ledger, logs and metrics, for a request whose client did not wait for the answer."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    id: str
    """The answer's own id, `embd_...`; with `line` unique, so no answer is billed twice."""
    line: int = 0
    """0 is the line that counts as the request."""
    at_ms: int
    """When the request had been read, milliseconds since 1970-01-01 UTC."""
    request_id: str
    project_id: str
    """Empty of a probe."""
    key_id: str
    """Empty of a probe."""
    on_behalf_of: str | None
    user: str | None
    metadata: Mapping[str, str]
    model: str
    """The model that answered or failed to; empty where none was asked. Names that clients make up
    are here only if there is such a model, for usage is summed by it."""
    asked: str = ""
    """The name that the request had for the model."""
    provider: str
    """The provider that answered or failed to; empty where none was asked."""
    items: int
    tokens: int
    """That are charged."""
    cached_tokens: int = 0
    """Of these, that were answered from the cache."""
    estimated: bool = False
    """Whether `tokens` is an estimate: they could not be counted, and the provider did not tell."""
    priced: bool = True
    """Whether the price was known; if not, both costs are 0."""
    cost_nano_usd: NanoUsd
    """What is charged, at the price of that time."""
    upstream_cost_nano_usd: NanoUsd
    """What the provider may charge: also for calls that failed after it may have done the work."""
    calls: int
    """To the provider, retries included."""
    failed_calls: int
    latency_us: int
    """From the request's head to the line, microseconds."""
    status: int
    """The HTTP status of the answer. Only lines with 200 are charged."""

    @property
    def end_user(self) -> str | None:
        """For whom it was, as usage is summed."""
        return self.on_behalf_of or self.user or None


PROBE = "probe"
"""Stands where a request is named, in the log and the ledger, for a probe."""
