"""What would become of a request: who would be asked, in which order, and at what price."""

from collections.abc import Sequence

import msgspec

from embedway.core import money
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest
from embedway.routing.plan import Plan
from embedway.routing.router import Exclusion
from embedway.sending.attempt import Attempt


class DryRunCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that would be asked."""

    id: str
    provider: str
    model: str
    upstream_model: str
    """What the provider calls it."""
    tokens: int
    calls: int
    """To the provider."""
    price_per_mtok_usd: float | None
    cost_usd: str | None
    latency_s: float
    """Estimated, of a call as large as this request."""
    quantisation: str
    region: str
    eu_native: bool
    zero_data_retention: bool
    health: str
    reason: str
    """Why it has this place."""


class DryRunExclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that would not be asked."""

    id: str
    filter: str
    """The field of the request, or the word, for what removes it."""
    reason: str


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a dry run."""

    object: str = "embedding.dry_run"
    model: str
    space: str
    items: int
    tokens: int | None
    """As the first candidate's model counts them; None if nobody is left to."""
    tokens_estimated: bool
    preference: str
    candidates: Sequence[DryRunCandidate]
    """In the order in which they would be asked."""
    unproven: Sequence[DryRunExclusion]
    """Not asked before it is proven that their vectors are of this space."""
    removed: Sequence[DryRunExclusion]


async def describe(request: EmbedRequest, plan: Plan, attempts: Sequence[Attempt]) -> DryRun:
    """Count and cut a request, and send nothing.

    Args:
        request: What the client asks for.
        plan: The deployments that could serve it.
        attempts: One for each deployment that the plan ranks, in its order.

    Raises:
        InvalidRequest: No deployment accepts the request.
        ServiceOverloaded: Too much is waiting.
    """
    candidates: list[DryRunCandidate] = []
    removed = _left_out(plan.excluded)
    exact = False
    refusals: list[InvalidRequest] = []
    for ranked, attempt in zip(plan.candidates, attempts, strict=True):
        try:
            batch = await attempt.prepare()
        except InvalidRequest as error:
            refusals.append(error)
            removed.append(
                DryRunExclusion(id=ranked.deployment.id, filter="input", reason=error.message)
            )
            continue
        exact = exact if candidates else batch.exact
        served, tokens = ranked.deployment, sum(batch.tokens)
        deployment = served.spec
        price = deployment.price_per_mtok_usd
        cost = None if price is None else money.cost(tokens, price_per_mtok=price)
        candidates.append(
            DryRunCandidate(
                id=served.id,
                provider=served.provider,
                model=served.model.id,
                upstream_model=served.clients_name,
                tokens=tokens,
                calls=len(attempt.cut(batch)),
                price_per_mtok_usd=None if price is None else float(price),
                cost_usd=None if cost is None else money.format_usd(cost),
                latency_s=round(ranked.latency_s, 4),
                quantisation=deployment.quantisation,
                region=deployment.region,
                eu_native=deployment.eu_native,
                zero_data_retention=deployment.zero_data_retention,
                health=ranked.health,
                reason=ranked.reason,
            )
        )
    if refusals and not candidates:
        raise refusals[0]
    return DryRun(
        model=request.model,
        space=str(plan.space),
        items=len(request.items),
        tokens=candidates[0].tokens if candidates else None,
        tokens_estimated=not exact,
        preference=request.preference,
        candidates=candidates,
        unproven=_left_out(plan.unproven),
        removed=removed,
    )


def _left_out(removed: Sequence[Exclusion]) -> list[DryRunExclusion]:
    return [
        DryRunExclusion(id=each.deployment.id, filter=each.filter, reason=each.reason)
        for each in removed
    ]
