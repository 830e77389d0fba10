"""Who may not be asked for a request, whatever is preferred: each filter with its reasons."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Served
from embedway.catalog.model import UNQUANTISED
from embedway.core.batch import Abilities
from embedway.core.errors import EmbedwayError, shown
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest, InputType
from embedway.routing import restrictions
from embedway.routing.abilities import refusal
from embedway.routing.plan import Removed
from embedway.routing.resolve import retired

Why = Callable[[Served], str | EmbedwayError | None]
"""Why a deployment is left out; None if it is not."""


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and what its filters are told of it."""

    request: EmbedRequest
    caller: Caller
    asked: Served
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
    told: Callable[[Served], InputType | None]
    """What a deployment is told that the vectors are for."""
    abilities: Callable[[Served], Abilities]


def passing(candidates: Sequence[Served], asking: Asking, removed: list[Removed]) -> list[Served]:
    """The candidates that pass all filters; the others are added to `removed`."""
    left = list(candidates)
    for name, why in _filters(asking):
        tried = left
        left: list[Served] = []
        for each in tried:
            reason = why(each)
            if reason is None:
                left.append(each)
            elif isinstance(reason, str):
                removed.append(Removed(served=each, filter=name, reason=reason))
            else:
                said = reason.message.removesuffix(".")
                field = reason.param if name == "input" and reason.param else name
                removed.append(Removed(served=each, filter=field, reason=said, error=reason))
    return left


def _filters(asking: Asking) -> Iterator[tuple[str, Why]]:
    """The filters in force, in order: the field or word for each, and its test."""
    request, caller, asked, told = asking.request, asking.caller, asking.asked, asking.told
    project = caller.project
    names = asking.names
    yield (
        "model",
        lambda each: restrictions.refused_model(caller, asked=names[each.id], served=each),
    )
    yield "provider", lambda each: restrictions.refused_provider(caller, served=each)
    if asking.retired:
        gone = asking.retired
        yield (
            "retired",
            lambda each: retired(names[each.id], each) if each.id in gone else None,
        )
    if asking.only:
        yield "only", _in(asking.only, "embedway.toml pins the model to others")
    if request.allowed_providers is not None:
        allowed = request.allowed_providers
        yield "allowed_providers", _in(allowed, f"not in {shown(allowed)}")
    if request.eu_native or (project and project.eu_native):
        yield "eu_native", lambda each: None if each.deployment.eu_native else "not EU-native"
    if not request.allow_quantization or (project and not project.allow_quantization):
        yield "allow_quantization", _quantised
    zdr = request.zdr or request.allow_zero_data_retention
    if zdr or (project and project.zero_data_retention):
        yield "zdr", _retaining
    if asking.priced:
        why = "its price is not known, and a budget applies; declare price_per_mtok_usd, or 0"
        yield (
            "budget",
            lambda each: why if each.deployment.price_per_mtok_usd is None else None,
        )
    if told(asked):
        blind = "cannot be told what vectors are for"
        yield "input_type", lambda each: None if told(each) else blind
    yield "input", lambda each: refusal(request, each, asking.abilities(each))
    if asking.alone:
        # What a parameter of one provider does at another is nobody's promise.
        other = f"nothing proves that it does the same there as at {asked.provider}"
        yield asking.alone, lambda each: None if each.id == asked.id else other


def _in(providers: Sequence[str], otherwise: str) -> Why:
    return lambda each: None if each.provider in providers else otherwise


def _quantised(served: Served) -> str | None:
    quantisation = served.deployment.quantisation
    return None if quantisation in UNQUANTISED else f"quantisation is {quantisation}"


def _retaining(served: Served) -> str | None:
    return None if served.deployment.zero_data_retention else "keeps data, or does not say"
