"""The answer to a request, before it is encoded."""

from collections.abc import Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.money import NanoUsd
from embedway.core.space_id import SpaceId
from embedway.core.vectors import Vectors
from embedway.metering.billing import UsageContext
from embedway.ratelimits.limiter import LimitStatus
from embedway.sending.attempt import Attempt


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request."""

    id: str
    created_s: int
    deployments: Sequence[Deployment]
    """The deployments that answered, each once, in the order of the items."""
    space: SpaceId
    vectors: Vectors
    tokens: int
    costs_nano_usd: Sequence[NanoUsd]
    """What each of `deployments` charges; 0 where the price is unknown."""
    limit_statuses: Sequence[LimitStatus]
    """The state of each rate limit after counting this request."""
    engine_s: float
    """The seconds spent waiting for a model."""

    @property
    def cost_nano_usd(self) -> NanoUsd:
        """The cost at all deployments together."""
        return sum(self.costs_nano_usd)

    @property
    def providers(self) -> str:
        """The providers that answered, joined by commas."""
        return ",".join(each.provider for each in self.deployments)


def build_result(
    vectors: Vectors,
    attempts: Sequence[Attempt],
    context: UsageContext,
    *,
    space: SpaceId,
    limit_statuses: Sequence[LimitStatus],
    engine_s: float,
) -> EmbedResult:
    """Build the answer from the vectors and what each attempt counted."""
    answered = [each for each in attempts if each.items]
    if len(answered) > 1:
        answered.sort(key=lambda each: each.first_item or 0)
    width = vectors.shape[1]
    if space.dimensions != width:
        space = msgspec.structs.replace(space, dimensions=width)
    return EmbedResult(
        id=context.id,
        created_s=context.received_ms // 1000,
        deployments=[each.deployment for each in answered],
        space=space,
        vectors=vectors,
        tokens=sum(each.tokens for each in answered),
        costs_nano_usd=[context.cost(each) for each in answered],
        limit_statuses=limit_statuses,
        engine_s=engine_s,
    )
