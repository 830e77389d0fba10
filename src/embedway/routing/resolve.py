"""From a name to who serves it: model, then deployments, then those that the request allows."""

import difflib
from collections.abc import Callable

from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.model import UNQUANTISED, Deployment, Model, Served
from embedway.core.errors import InvalidRequest, UnknownModel, shown
from embedway.core.request import EmbedRequest


def resolve(request: EmbedRequest, catalog: Catalog) -> list[Served]:
    """The deployments that may serve `request`, best first; at least one.

    Raises:
        UnknownModel: Nothing has this name.
        InvalidRequest: A filter leaves nobody, a fallback is of another vector space, or the
            model cannot do what a field asks for.
    """
    candidates = find(request.model, catalog, param="model")
    _check_fallbacks(request, candidates[0], catalog)
    candidates = _allowed(candidates, request)
    _check_dimensions(request, candidates[0].model)
    return candidates


def find(name: str, catalog: Catalog, *, param: str) -> list[Served]:
    """Who may be asked for the model of this name, the preferred first; at least one.

    Raises:
        UnknownModel: Nothing has this name; says which names are near, or who there is.
    """
    if found := catalog.find(name):
        return found
    provider, separator, _ = name.partition(":")
    if separator and provider.isidentifier() and provider not in {*catalog.offers, LOCAL}:
        enabled = ", ".join([LOCAL, *catalog.offers])
        hint = f" No provider {provider!r} is enabled here; there are {enabled}."
    else:
        hint = ""
    raise UnknownModel(
        f"The model {name!r} does not exist.{hint} {_near(name, catalog)}", param=param
    )


def _near(name: str, catalog: Catalog) -> str:
    near = difflib.get_close_matches(name.lower(), catalog.names(), n=3, cutoff=0.5)
    if not near:
        return "GET /v1/models lists those there are."
    return f"Did you mean {' or '.join(repr(each) for each in near)}?"


def _check_dimensions(request: EmbedRequest, model: Model) -> None:
    dimensions = request.dimensions
    if dimensions is None or model.trained_for(dimensions):
        return
    if model.trained_dimensions == "any":
        can = f"{model.id} answers with at most {model.dimensions}; ask for no more."
    elif model.trained_dimensions == "unknown":
        return  # its provider knows
    elif model.trained_dimensions:
        can = f"{model.id} was trained for {', '.join(map(str, model.trained_dimensions))}."
    else:
        can = (
            "This model does not support specifying dimensions. Leave 'dimensions' out: "
            f"{model.id} answers with {model.dimensions or 'its own'}."
        )
    raise InvalidRequest(f"'dimensions' is {dimensions}. {can}", param="dimensions")


def _check_fallbacks(request: EmbedRequest, first: Served, catalog: Catalog) -> None:
    space = first.space()
    for name in request.fallbacks:
        try:
            fallback = find(name, catalog, param="fallbacks")[0]
        except UnknownModel as error:
            raise InvalidRequest(error.message, param=error.param) from None
        other = fallback.space()
        if other != space:
            raise InvalidRequest(
                f"The fallback {name!r} gives vectors of another space ({other}) than "
                f"{request.model!r} ({space}); they cannot be compared. Take it out.",
                param="fallbacks",
            )


def _allowed(candidates: list[Served], request: EmbedRequest) -> list[Served]:
    """Those that pass every filter; says which filter emptied the list."""
    providers = sorted({each.deployment.provider for each in candidates})
    for param, asked, passes in _filters(request):
        left = [each for each in candidates if passes(each.deployment)]
        if not left:
            raise InvalidRequest(
                f"'{param}' is {asked}, which leaves no provider of {candidates[0].model.id}: it "
                f"is served by {', '.join(providers)}. Widen it or leave it out.",
                param=param,
            )
        candidates = left
    return candidates


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
