"""Holds the router's result: the deployments to try, best first, and why others are not."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.errors import EmbedwayError
from embedway.core.request import EmbedRequest, Preference
from embedway.core.space_id import SpaceId
from embedway.health.health import HealthState


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that may serve a request, with what decided its rank."""

    deployment: Deployment
    latency_s: float
    """Estimated for this request."""
    health: HealthState = "healthy"
    wait_s: float = 0.0
    """Seconds until it may be called."""
    decided_by: Preference | Literal["alone", "order", "weight", "explored", "named"] = "alone"
    """What decided its rank, if it may be called now."""
    price_ratio: float = 1.0
    """Its price over the cheapest candidate's."""
    time_ratio: float = 1.0
    """Its latency over the fastest candidate's."""

    @property
    def reason(self) -> str:
        """Why it has its rank, for people."""
        match self.health:
            case "ejected":
                return f"ejected after failures, for {self.wait_s:.1f} s more"
            case "limited":
                return f"rate-limited, for {self.wait_s:.1f} s more"
            case "full":
                return f"no room, for about {self.wait_s:.1f} s more"
            case "healthy":
                return self._preferred()

    def _preferred(self) -> str:
        best = self.price_ratio == 1 if self.decided_by == "cost" else self.time_ratio == 1
        match self.decided_by:
            case "cost":
                price = self.deployment.spec.price_per_mtok_usd
                reason = "price unknown" if price is None else f"{price:f} USD per million tokens"
                reason = f"cheapest: {reason}" if best and price is not None else reason
            case "speed":
                reason = f"about {self.latency_s * 1000:.0f} ms for this batch"
                reason = f"fastest: {reason}" if best else reason
            case "balanced":
                reason = f"balanced: {self.price_ratio:.1f} x price, {self.time_ratio:.1f} x time"
            case "alone":
                reason = "the only candidate"
            case "order":
                reason = "order of embedway.toml"
            case "weight":
                reason = "weight 0 in embedway.toml: after everybody else"
            case "named":
                return "in the order in which the alias names them"
            case "explored":
                reason = "asked first now and then, to learn how fast it is"
        return reason


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that may not serve the request."""

    deployment: Deployment
    filter: str
    """The request field that removed it, or a word for what did."""
    reason: str
    error: EmbedwayError | None = None
    """The client's error if no filter but this one removed anything."""
    wait_s: float | None = None
    """Seconds until it may be called, if only a rate limit removed it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The deployments to try for a request."""

    request: EmbedRequest
    """The request, without an `input_type` that the space does not depend on."""
    space: SpaceId
    """The space that the requested name means."""
    revisions: Mapping[str, str]
    """The revision of that space by model id."""
    candidates: Sequence[Candidate]
    """The deployments to try, best first, all in that space."""
    unproven: Sequence[Exclusion]
    """Deployments that would be candidates if they were proven to be in that space."""
    probes_due: Sequence[Deployment]
    """Deployments to probe in the background."""
    excluded: Sequence[Exclusion]
    """Deployments that a filter removed."""
