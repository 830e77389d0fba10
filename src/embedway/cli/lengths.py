"""Names the text that has more tokens than a model takes."""

from embedway.catalog.model import Model
from embedway.tokenizing.truncate import DEFAULT_ITEM_TOKENS


def length_error(tokens: int, model: Model, *, number: int) -> str | None:
    """Return why text `number`, counted from 1, is too long for `model`, or None if it fits."""
    limit = model.max_item_tokens or DEFAULT_ITEM_TOKENS
    if tokens <= limit:
        return None
    return (
        f"Text {number} has {tokens} tokens, more than the {limit} that {model.id} takes. Shorten "
        "or split it, or have it cut: --truncate end."
    )
