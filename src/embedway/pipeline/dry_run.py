"""Describes what would happen to a request: which deployments, in which order, at what price."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from embedway.core import money
from embedway.core.errors import InvalidRequest
from embedway.routing.plan import Plan
from embedway.routing.router import Exclusion
from embedway.sending.attempt import Attempt


class DryRunCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that may serve the request."""

    id: str
    provider: str
    model: str
    upstream_model: str
    """The model's name at the provider."""
    tokens: int
    calls: int
    """How many calls to the provider the request takes."""
    price_per_mtok_usd: float | None
    cost_usd: str | None
    latency_s: float
    """The estimated seconds of a call with all items of the request."""
    quantisation: str
    region: str
    eu_native: bool
    zero_data_retention: bool
    health: str
    reason: str
    """Why it is ranked here."""


class DryRunExclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that may not serve the request."""

    id: str
    filter: str
    """The field of the request, or the rule, that excludes it."""
    reason: str


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a dry run."""

    object: Literal["embedding.dry_run"] = "embedding.dry_run"
    model: str
    space: str
    items: int
    tokens: int | None
    """How the first candidate counts them; None if there is no candidate."""
    tokens_estimated: bool
    preference: str
    candidates: Sequence[DryRunCandidate]
    """The candidates in the order in which they would be tried."""
    unproven: Sequence[DryRunExclusion]
    """Deployments whose vectors are not yet proven to be from this space."""
    removed: Sequence[DryRunExclusion]
    """Deployments that the request's filters or its input exclude."""


async def describe(plan: Plan, attempts: Sequence[Attempt]) -> DryRun:
    """Count and cut a request, and send nothing.

    Args:
        plan: The request, the candidates and the excluded deployments.
        attempts: One for each candidate, in the order of the plan.

    Raises:
        InvalidRequest: No deployment accepts the request.
        ServiceOverloaded: Too much is waiting.
    """
    candidates: list[DryRunCandidate] = []
    removed = _exclusions(plan.excluded)
    is_exact = False
    refusals: list[InvalidRequest] = []
    for candidate, attempt in zip(plan.candidates, attempts, strict=True):
        try:
            batch = await attempt.prepare()
        except InvalidRequest as error:
            refusals.append(error)
            removed.append(
                DryRunExclusion(id=candidate.deployment.id, filter="input", reason=error.message)
            )
            continue
        is_exact = is_exact if candidates else batch.exact
        deployment, tokens = candidate.deployment, sum(batch.tokens)
        spec = deployment.spec
        price = spec.price_per_mtok_usd
        cost = None if price is None else money.cost(tokens, price_per_mtok=price)
        candidates.append(
            DryRunCandidate(
                id=deployment.id,
                provider=deployment.provider,
                model=deployment.model.id,
                upstream_model=deployment.clients_name,
                tokens=tokens,
                calls=len(attempt.cut(batch)),
                price_per_mtok_usd=None if price is None else float(price),
                cost_usd=None if cost is None else money.format_usd(cost),
                latency_s=round(candidate.latency_s, 4),
                quantisation=spec.quantisation,
                region=spec.region,
                eu_native=spec.eu_native,
                zero_data_retention=spec.zero_data_retention,
                health=candidate.health,
                reason=candidate.reason,
            )
        )
    if refusals and not candidates:
        raise refusals[0]
    request = plan.request
    return DryRun(
        model=request.model,
        space=str(plan.space),
        items=len(request.items),
        tokens=candidates[0].tokens if candidates else None,
        tokens_estimated=not is_exact,
        preference=request.preference,
        candidates=candidates,
        unproven=_exclusions(plan.unproven),
        removed=removed,
    )


def _exclusions(excluded: Sequence[Exclusion]) -> list[DryRunExclusion]:
    return [
        DryRunExclusion(id=each.deployment.id, filter=each.filter, reason=each.reason)
        for each in excluded
    ]
