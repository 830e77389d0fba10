"""Holds the router's result: the deployments to try, best first, and why others are not."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.errors import EmbedwayError
from embedway.core.request import Preference
from embedway.core.space_id import SpaceId
from embedway.health.health import HealthState


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate at its place, with the numbers that put it there."""

    deployment: Deployment
    latency_s: float
    """Estimated for this batch."""
    health: HealthState = "healthy"
    wait_s: float = 0.0
    """Until it may be asked."""
    decided_by: Preference | Literal["alone", "order", "weight", "explored", "named"] = "alone"
    """What decided its place, if it may be asked now."""
    price_ratio: float = 1.0
    time_ratio: float = 1.0
    """To the best of the candidates."""

    @property
    def reason(self) -> str:
        """Why it has its place, for people."""
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
                said = "price unknown" if price is None else f"{price:f} USD per million tokens"
                said = f"cheapest: {said}" if best and price is not None else said
            case "speed":
                said = f"about {self.latency_s * 1000:.0f} ms for this batch"
                said = f"fastest: {said}" if best else said
            case "balanced":
                said = f"balanced: {self.price_ratio:.1f} x price, {self.time_ratio:.1f} x time"
            case "alone":
                said = "the only candidate"
            case "order":
                said = "order of embedway.toml"
            case "weight":
                said = "weight 0 in embedway.toml: after everybody else"
            case "named":
                return "in the order in which the alias names them"
            case "explored":
                said = "asked first now and then, to learn how fast it is"
        return said


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that is not asked."""

    deployment: Deployment
    filter: str
    """The field of the request, or the word, for what removed it."""
    reason: str
    error: EmbedwayError | None = None
    """What the client is told if it was the only one."""
    wait_s: float | None = None
    """Until it may be asked, if that is all that is the matter."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked for a request."""

    space: SpaceId
    """That the name means."""
    revisions: Mapping[str, str]
    """By model id, the revision of that space for this model's deployments."""
    candidates: Sequence[Candidate]
    """The best first, all of that space."""
    unproven: Sequence[Exclusion]
    """They would be among them, if it were proven that they are of that space."""
    due: Sequence[Deployment]
    """Of all there are, those whose proof should be renewed or looked for."""
    excluded: Sequence[Exclusion]
