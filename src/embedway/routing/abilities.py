"""What a deployment cannot be asked for, whatever state it is in."""

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.core.batch import EngineAbilities
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest, normalise_name


def ability_error(
    request: EmbedRequest, served: Deployment, abilities: EngineAbilities
) -> InvalidRequest | None:
    """Why `served` cannot be asked for what `request` asks for; None if it can.

    Args:
        request: What is asked for.
        served: Who would be asked.
        abilities: Of the engine that embeds there.
    """
    model, provider = served.model, served.provider
    if request.dimensions is not None and (
        error := _of_dimensions(request.dimensions, served, abilities)
    ):
        return error
    if request.extra_body and provider == LOCAL:
        name = next(iter(request.extra_body))
        return InvalidRequest(
            f"The field {name!r} is not known, and the model runs here: there is no provider to "
            "hand it to. Take it out.",
            param=name,
        )
    if error := _of_parameters(request, served) or _of_prompt(request, served):
        return error
    can_truncate = (
        abilities.token_ids
        if model.tokenizer == "cl100k_base"
        else request.truncate in abilities.truncations
    )
    if request.truncate != "none" and model.tokenizer != "own" and not can_truncate:
        return InvalidRequest(
            f"'truncate' is {request.truncate!r}, which {provider} cannot be asked for. Leave it "
            "out and shorten what is too long.",
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


def _of_parameters(request: EmbedRequest, served: Deployment) -> InvalidRequest | None:
    """Refuse a field of the client's that would change what the deployment's own field says."""
    if not request.extra_body or not served.spec.parameters:
        return None
    own = {normalise_name(name): name for name in served.spec.parameters}
    for name in request.extra_body:
        if field := own.get(normalise_name(name)):
            return InvalidRequest(
                f"{name!r} is fixed for {served.id}: {field} is "
                f"{served.spec.parameters[field]!r}, or its vectors are of another space. "
                "Take it out.",
                param=name,
            )
    return None


def _of_prompt(request: EmbedRequest, served: Deployment) -> InvalidRequest | None:
    """Refuse what would leave no prompt before a text."""
    if not served.prompt(request.input_type):
        return None
    if request.truncate == "start":
        return InvalidRequest(
            "'truncate' is 'start', which would cut off what the gateway puts before each text "
            f"for 'input_type' {request.input_type!r}. Use 'end'.",
            param="truncate",
        )
    if served.model.token_ids == "native" and not isinstance(request.items[0], str):
        return InvalidRequest(
            f"'input' is token ids of {served.model.id} itself, before which no text can be put "
            f"for 'input_type' {request.input_type!r}. Send texts, or leave 'input_type' out.",
            param="input",
        )
    return None


def _of_dimensions(
    dimensions: int, served: Deployment, abilities: EngineAbilities
) -> InvalidRequest | None:
    model = served.model
    if model.can_shorten(dimensions):
        return None
    if model.trained_for(dimensions) or model.trained_dimensions == "unknown":
        if abilities.dimensions:
            return None
        can = (
            f"{served.provider} cannot be asked for it, and {model.id!r} is not known to be "
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
