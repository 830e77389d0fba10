"""Excludes deployments that may not serve a request, each with the reason."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import UNQUANTISED
from embedway.core.batch import EngineAbilities
from embedway.core.errors import EmbedwayError, quote_value
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest
from embedway.routing import restrictions
from embedway.routing.abilities import ability_error
from embedway.routing.plan import Exclusion
from embedway.routing.resolve import retired_error

FilterRule = Callable[[Deployment], str | EmbedwayError | None]
"""Returns why a deployment is excluded, or None."""


class FilterContext(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and what its filters need to know."""

    request: EmbedRequest
    """The request, without an `input_type` that `target` ignores."""
    caller: Caller
    target: Deployment
    """The deployment whose space the requested name means."""
    sole_field: str | None
    """The field that only `target` can serve; None if others may serve the request too."""
    names: Mapping[str, str]
    """The requested name of each candidate, by deployment id."""
    policy_providers: Sequence[str]
    """The providers that the operator pins the model to; empty for any."""
    needs_price: bool
    """Whether a budget applies, which excludes deployments of unknown price."""
    retired_ids: Collection[str]
    """Ids of the deployments that their providers have retired."""
    abilities: Callable[[Deployment], EngineAbilities]


def apply_filters(
    candidates: Sequence[Deployment], context: FilterContext, removed: list[Exclusion]
) -> list[Deployment]:
    """Return the candidates that pass all filters, and add the others to `removed`."""
    left = list(candidates)
    for name, rule in _filters(context):
        for each in tuple(left):
            reason = rule(each)
            if reason is None:
                continue
            left.remove(each)
            if isinstance(reason, str):
                removed.append(Exclusion(deployment=each, filter=name, reason=reason))
            else:
                text = reason.message.removesuffix(".")
                field = reason.param if name == "input" and reason.param else name
                removed.append(Exclusion(deployment=each, filter=field, reason=text, error=reason))
    return left


def _filters(context: FilterContext) -> Iterator[tuple[str, FilterRule]]:
    """Yield the filters in force, in order: the field or word for each, and its rule."""
    request, caller, project = context.request, context.caller, context.caller.project
    names, target, retired_ids = context.names, context.target, context.retired_ids
    yield from _caller_filters(caller, names)
    if retired_ids:
        yield (
            "retired",
            lambda each: retired_error(names[each.id], each) if each.id in retired_ids else None,
        )
    if context.policy_providers:
        yield "only", _in(context.policy_providers, "embedway.toml pins the model to others")
    if request.allowed_providers is not None:
        allowed = request.allowed_providers
        yield "allowed_providers", _in(allowed, f"not in {quote_value(allowed)}")
    if request.eu_native or (project and project.eu_native):
        yield "eu_native", lambda each: None if each.spec.eu_native else "not EU-native"
    if not request.allow_quantization or (project and not project.allow_quantization):
        yield "allow_quantization", _check_quantisation
    zdr = request.zdr or request.allow_zero_data_retention
    if zdr or (project and project.zero_data_retention):
        yield "zdr", _check_retention
    if context.needs_price:
        unpriced = "its price is not known, and a budget applies; declare price_per_mtok_usd, or 0"
        yield "budget", lambda each: unpriced if each.spec.price_per_mtok_usd is None else None
    if input_type := request.input_type:
        blind = "cannot be told what vectors are for"
        yield (
            "input_type",
            lambda each: (
                None if each.effective_input_type(input_type, context.abilities(each)) else blind
            ),
        )
    yield "input", lambda each: ability_error(request, each, context.abilities(each))
    if context.sole_field:
        # A parameter of one provider may do something else at another.
        other = f"nothing proves that it does the same there as at {target.provider}"
        yield context.sole_field, lambda each: None if each.id == target.id else other


def _caller_filters(caller: Caller, names: Mapping[str, str]) -> Iterator[tuple[str, FilterRule]]:
    if not restrictions.is_restricted(caller):
        return
    yield (
        "model",
        lambda each: restrictions.model_error(caller, name=names[each.id], deployment=each),
    )
    yield "provider", lambda each: restrictions.provider_error(caller, deployment=each)


def _in(providers: Sequence[str], otherwise: str) -> FilterRule:
    return lambda each: None if each.provider in providers else otherwise


def _check_quantisation(deployment: Deployment) -> str | None:
    quantisation = deployment.spec.quantisation
    return None if quantisation in UNQUANTISED else f"quantisation is {quantisation}"


def _check_retention(deployment: Deployment) -> str | None:
    return None if deployment.spec.zero_data_retention else "keeps data, or does not say"
