"""Who may not be asked for a request, whatever is preferred: each filter with its reasons."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import UNQUANTISED
from embedway.core.batch import EngineAbilities
from embedway.core.errors import EmbedwayError, quote_value
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest, InputType
from embedway.routing import restrictions
from embedway.routing.abilities import ability_error
from embedway.routing.plan import Exclusion
from embedway.routing.resolve import retired_error

FilterRule = Callable[[Deployment], str | EmbedwayError | None]
"""Why a deployment is left out; None if it is not."""


class FilterContext(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and what its filters are told of it."""

    request: EmbedRequest
    caller: Caller
    asked: Deployment
    """Whose space the name means."""
    alone: str | None
    """The field for which nobody else can be asked; None if others can."""
    names: Mapping[str, str]
    """Of each candidate by its id: the name that it was asked for by."""
    only: Sequence[str]
    """The providers that the operator pins the model to, if any."""
    priced: bool
    """Whether only who has a known price can be asked, for a budget is to be held."""
    retired: Collection[str]
    """The ids of the deployments that their providers have retired."""
    told: Callable[[Deployment], InputType | None]
    """What a deployment is told that the vectors are for."""
    abilities: Callable[[Deployment], EngineAbilities]


def apply_filters(
    candidates: Sequence[Deployment], asking: FilterContext, removed: list[Exclusion]
) -> list[Deployment]:
    """The candidates that pass all filters; the others are added to `removed`."""
    left = list(candidates)
    for name, why in _filters(asking):
        tried = left
        left: list[Deployment] = []
        for each in tried:
            reason = why(each)
            if reason is None:
                left.append(each)
            elif isinstance(reason, str):
                removed.append(Exclusion(deployment=each, filter=name, reason=reason))
            else:
                said = reason.message.removesuffix(".")
                field = reason.param if name == "input" and reason.param else name
                removed.append(Exclusion(deployment=each, filter=field, reason=said, error=reason))
    return left


def _filters(asking: FilterContext) -> Iterator[tuple[str, FilterRule]]:
    """The filters in force, in order: the field or word for each, and its test."""
    request, caller, asked, told = asking.request, asking.caller, asking.asked, asking.told
    project = caller.project
    names = asking.names
    yield (
        "model",
        lambda each: restrictions.model_error(caller, asked=names[each.id], served=each),
    )
    yield "provider", lambda each: restrictions.provider_error(caller, served=each)
    if asking.retired:
        gone = asking.retired
        yield (
            "retired",
            lambda each: retired_error(names[each.id], each) if each.id in gone else None,
        )
    if asking.only:
        yield "only", _in(asking.only, "embedway.toml pins the model to others")
    if request.allowed_providers is not None:
        allowed = request.allowed_providers
        yield "allowed_providers", _in(allowed, f"not in {quote_value(allowed)}")
    if request.eu_native or (project and project.eu_native):
        yield "eu_native", lambda each: None if each.spec.eu_native else "not EU-native"
    if not request.allow_quantization or (project and not project.allow_quantization):
        yield "allow_quantization", _quantised
    zdr = request.zdr or request.allow_zero_data_retention
    if zdr or (project and project.zero_data_retention):
        yield "zdr", _retaining
    if asking.priced:
        why = "its price is not known, and a budget applies; declare price_per_mtok_usd, or 0"
        yield (
            "budget",
            lambda each: why if each.spec.price_per_mtok_usd is None else None,
        )
    if told(asked):
        blind = "cannot be told what vectors are for"
        yield "input_type", lambda each: None if told(each) else blind
    yield "input", lambda each: ability_error(request, each, asking.abilities(each))
    if asking.alone:
        # What a parameter of one provider does at another is nobody's promise.
        other = f"nothing proves that it does the same there as at {asked.provider}"
        yield asking.alone, lambda each: None if each.id == asked.id else other


def _in(providers: Sequence[str], otherwise: str) -> FilterRule:
    return lambda each: None if each.provider in providers else otherwise


def _quantised(served: Deployment) -> str | None:
    quantisation = served.spec.quantisation
    return None if quantisation in UNQUANTISED else f"quantisation is {quantisation}"


def _retaining(served: Deployment) -> str | None:
    return None if served.spec.zero_data_retention else "keeps data, or does not say"
