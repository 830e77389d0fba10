"""What a deployment cannot be asked for, whatever state it is in."""

from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Model, Served
from embedway.core.batch import Abilities
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest


def refusal(request: EmbedRequest, served: Served, abilities: Abilities) -> InvalidRequest | None:
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


def can_shorten(model: Model, to: int) -> bool:
    """Whether vectors of the model can be cut to `to` numbers here and still mean something.

    Its own width is cut from nothing.
    """
    width = model.dimensions or 0
    return to == width or (model.trained_for(to) and to <= width)


def _of_dimensions(dimensions: int, served: Served, abilities: Abilities) -> InvalidRequest | None:
    model = served.model
    if can_shorten(model, dimensions):
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
