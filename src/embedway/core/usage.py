"""Defines usage records, the lines of the ledger.

A request has a record for each deployment that it was sent to, or a single one if it was
well-formed but refused before. A probe has one too, which belongs to no project.
"""

from collections.abc import Mapping

import msgspec

from embedway.core.money import NanoUsd

ANSWERED = 200
REPEATED = 208
"""The status in the ledger if a line of a batch was answered again, because its first answer, which
was charged, was lost with the process that had it."""
CLIENT_LEFT = 499
"""The status in ledger, logs and metrics if the client left before the answer."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one deployment did for one request, and what it cost."""

    id: str
    """The answer's id, `embd_...`; unique together with `line`, so no answer is billed twice."""
    line: int = 0
    """The number of the record. Record 0 counts as the request."""
    at_ms: int
    """When the request had been read, in ms since the epoch."""
    request_id: str
    project_id: str
    """The caller's project; empty for a probe."""
    key_id: str
    """The caller's key; empty for a probe."""
    on_behalf_of: str | None
    user: str | None
    metadata: Mapping[str, str]
    model: str
    """The model that answered or failed; empty if none was called. Usage is summed by it, so it
    never holds the name of a model that does not exist."""
    asked: str = ""
    """The name that the request used for the model."""
    provider: str
    """The provider that answered or failed; empty if none was called."""
    items: int
    tokens: int
    """The tokens charged."""
    cached_tokens: int = 0
    """How many of `tokens` were answered from the cache."""
    estimated: bool = False
    """Whether `tokens` is an estimate, because neither gateway nor provider counted them."""
    priced: bool = True
    """Whether the price was known; if not, both costs are 0."""
    cost_nano_usd: NanoUsd
    """The cost charged, at the price of that time."""
    upstream_cost_nano_usd: NanoUsd
    """What the provider may charge, including calls that failed after it may have done the work."""
    calls: int
    """The calls to the provider, retries included."""
    failed_calls: int
    latency_us: int
    """The time from the request's head to this record, in microseconds."""
    status: int
    """The HTTP status of the answer. Only records with 200 are charged."""

    @property
    def end_user(self) -> str | None:
        """The end user by whom usage is summed."""
        return self.on_behalf_of or self.user or None


PROBE = "probe"
"""The request id of probes, in the log and the ledger."""
