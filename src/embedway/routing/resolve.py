"""From a name to who serves it: model, then deployments, then those that the request allows."""

import difflib
from collections.abc import Callable

import msgspec

from embedway.catalog.catalog import AUTO, Catalog
from embedway.catalog.model import UNQUANTISED, Deployment, Model
from embedway.core.errors import InvalidRequest, UnknownModel, shown
from embedway.core.request import EmbedRequest


class Candidate(msgspec.Struct, frozen=True):
    """A deployment that may serve a request, with its model."""

    model: Model
    deployment: Deployment


def resolve(request: EmbedRequest, catalog: Catalog) -> list[Candidate]:
    """The deployments that may serve `request`, best first; at least one.

    Raises:
        UnknownModel: Nothing has this name.
        InvalidRequest: A filter leaves nobody, a fallback is of another vector space, or the
            model cannot do what a field asks for.
    """
    model, provider = find(request.model, catalog, param="model")
    _check_fallbacks(request, model, catalog)
    if request.dimensions is not None and request.dimensions not in model.trained_dimensions:
        raise InvalidRequest(
            "This model does not support specifying dimensions. Leave 'dimensions' out: "
            f"{model.id} answers with {model.dimensions}.",
            param="dimensions",
        )
    deployments = [each for each in model.deployments if provider in (None, each.provider)]
    return [Candidate(model, each) for each in _allowed(deployments, request, model)]


def find(name: str, catalog: Catalog, *, param: str) -> tuple[Model, str | None]:
    """The model of this name and, in `provider:model`, the provider.

    Raises:
        UnknownModel: Nothing has this name; says which names are near.
    """
    if name == AUTO:
        return catalog.auto, None
    provider, separator, bare = name.rpartition(":")
    model = catalog.models.get(bare)
    providers = {each.provider for each in model.deployments} if model else set[str]()
    if model is None or (separator and provider not in providers):
        raise UnknownModel(
            f"The model {name!r} does not exist. {_near(name, catalog)}", param=param
        )
    return model, provider if separator else None


def _near(name: str, catalog: Catalog) -> str:
    near = difflib.get_close_matches(name.lower(), catalog.names(), n=3, cutoff=0.5)
    if not near:
        return "GET /v1/models lists those there are."
    return f"Did you mean {' or '.join(repr(each) for each in near)}?"


def _check_fallbacks(request: EmbedRequest, model: Model, catalog: Catalog) -> None:
    for name in request.fallbacks:
        try:
            fallback, _ = find(name, catalog, param="fallbacks")
        except UnknownModel as error:
            raise InvalidRequest(error.message, param=error.param) from None
        if fallback.space != model.space:
            raise InvalidRequest(
                f"The fallback {name!r} gives vectors of another space ({fallback.space}) than "
                f"{request.model!r} ({model.space}); they cannot be compared. Take it out.",
                param="fallbacks",
            )


def _allowed(
    deployments: list[Deployment], request: EmbedRequest, model: Model
) -> list[Deployment]:
    """Those that pass every filter; says which filter emptied the list."""
    providers = sorted({each.provider for each in deployments})
    for param, asked, passes in _filters(request):
        left = [each for each in deployments if passes(each)]
        if not left:
            raise InvalidRequest(
                f"'{param}' is {asked}, which leaves no provider of {model.id}: it is served by "
                f"{', '.join(providers)}. Widen it or leave it out.",
                param=param,
            )
        deployments = left
    return deployments


def _filters(
    request: EmbedRequest,
) -> list[tuple[str, str, Callable[[Deployment], bool]]]:
    """The filters in force: field, value as asked, and the test."""
    filters: list[tuple[str, str, Callable[[Deployment], bool]]] = []
    allowed = request.allowed_providers
    if allowed is not None:
        filters.append(("allowed_providers", shown(allowed), lambda each: each.provider in allowed))
    if request.eu_native:
        filters.append(("eu_native", "true", lambda each: each.eu_native))
    if not request.allow_quantization:
        filters.append(
            ("allow_quantization", "false", lambda each: each.quantisation in UNQUANTISED)
        )
    if request.zdr or request.allow_zero_data_retention:
        filters.append(("zdr", "true", lambda each: each.zero_data_retention))
    return filters
