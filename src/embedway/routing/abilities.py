"""Refuses requests that a deployment cannot serve, whatever its state."""

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.core.batch import EngineAbilities
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest, normalise_name


def ability_error(
    request: EmbedRequest, deployment: Deployment, abilities: EngineAbilities
) -> InvalidRequest | None:
    """Return why `deployment` cannot serve `request`, given its engine's abilities, or None."""
    model, provider = deployment.model, deployment.provider
    if request.dimensions is not None and (
        error := _dimensions_error(request.dimensions, deployment, abilities)
    ):
        return error
    if request.extra_body and provider == LOCAL:
        name = next(iter(request.extra_body))
        return InvalidRequest(
            f"The field {name!r} is not known, and the model runs here: there is no provider to "
            "pass it to. Take it out.",
            param=name,
        )
    if error := _parameters_error(request, deployment) or _prompt_error(request, deployment):
        return error
    can_truncate = (
        abilities.token_ids
        if model.tokenizer == "cl100k_base"
        else request.truncate in abilities.truncations
    )
    if request.truncate != "none" and model.tokenizer != "own" and not can_truncate:
        return InvalidRequest(
            f"'truncate' is {request.truncate!r}, which {provider} does not support. Leave it "
            "out and shorten long texts yourself.",
            param="truncate",
        )
    if (
        model.token_ids == "native"
        and not abilities.token_ids
        and not isinstance(request.items[0], str)
    ):
        return InvalidRequest(
            f"{provider} takes texts, not token ids. Send 'input' as a string or a list of "
            "strings.",
            param="input",
        )
    return None


def _parameters_error(request: EmbedRequest, deployment: Deployment) -> InvalidRequest | None:
    """Refuse a client's field that would override one that the deployment fixes."""
    if not request.extra_body or not deployment.spec.parameters:
        return None
    own = {normalise_name(name): name for name in deployment.spec.parameters}
    for name in request.extra_body:
        if field := own.get(normalise_name(name)):
            return InvalidRequest(
                f"{name!r} is fixed for {deployment.id}: {field} is "
                f"{deployment.spec.parameters[field]!r}, or its vectors are of another space. "
                "Take it out.",
                param=name,
            )
    return None


def _prompt_error(request: EmbedRequest, deployment: Deployment) -> InvalidRequest | None:
    """Refuse a request whose texts would lose their prompt."""
    if not deployment.prompt(request.input_type):
        return None
    if request.truncate == "start":
        return InvalidRequest(
            "'truncate' is 'start', which would cut off what the gateway puts before each text "
            f"for 'input_type' {request.input_type!r}. Use 'end'.",
            param="truncate",
        )
    if deployment.model.token_ids == "native" and not isinstance(request.items[0], str):
        return InvalidRequest(
            f"'input' is token ids of {deployment.model.id}, and the prompt for 'input_type' "
            f"{request.input_type!r} can only precede texts. Send texts, or leave 'input_type' "
            "out.",
            param="input",
        )
    return None


def _dimensions_error(
    dimensions: int, deployment: Deployment, abilities: EngineAbilities
) -> InvalidRequest | None:
    model = deployment.model
    if model.can_shorten(dimensions):
        return None
    if model.trained_for(dimensions) or model.trained_dimensions == "unknown":
        if abilities.dimensions:
            return None
        can = (
            f"{deployment.provider} does not support it, and {model.id!r} is not known to be "
            "trained for vectors cut to that. Leave it out, or declare the model with its "
            "dimensions and trained_dimensions."
        )
    elif model.trained_dimensions == "any":
        can = f"{model.id} answers with at most {model.dimensions}; ask for no more."
    elif model.trained_dimensions:
        can = f"{model.id} was trained for {', '.join(map(str, model.trained_dimensions))}."
    else:
        can = (
            "This model does not support specifying dimensions. Leave 'dimensions' out: "
            f"{model.id} answers with {model.dimensions or 'its own'}."
        )
    return InvalidRequest(f"'dimensions' is {dimensions}. {can}", param="dimensions")
