"""Describes where spans and metrics go, as plain values that cost nothing to import."""

from collections.abc import Mapping

import msgspec

from embedway.observe.trace_context import Sampler


class OtlpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send spans and metrics, and which. Contains secrets: never log it."""

    traces_url: str | None
    """The URL that takes spans; None to make none."""
    metrics_url: str | None
    """The URL that takes metrics; None to send none."""
    headers: Mapping[str, str]
    """Headers to send with each message, such as a key."""
    resource: Mapping[str, str]
    """The attributes of this gateway."""
    sampler: Sampler
    metrics_every_s: float

    def __repr__(self) -> str:
        return f"OtlpOptions({self.traces_url!r}, {self.metrics_url!r})"
