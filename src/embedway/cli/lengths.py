"""Says which of many texts has more tokens than a model takes."""

from embedway.catalog.model import Model
from embedway.tokenizing.truncate import DEFAULT_ITEM_TOKENS


def too_long(tokens: int, model: Model, *, number: int) -> str | None:
    """Why a text of so many tokens, the `number`th from 1, cannot be embedded; None if it can."""
    most = model.max_item_tokens or DEFAULT_ITEM_TOKENS
    if tokens <= most:
        return None
    return (
        f"Text {number} has {tokens} tokens, more than the {most} that {model.id} takes. Shorten "
        "or split it, or have it cut: --truncate end."
    )
