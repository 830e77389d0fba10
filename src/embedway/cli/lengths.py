"""Refuses texts that have more tokens than a model takes."""

from collections.abc import Iterable, Sequence

from embedway.catalog.model import Model
from embedway.cli.terminal import fail
from embedway.tokenizing.truncate import DEFAULT_ITEM_TOKENS


def check_lengths(texts: Iterable[Sequence[int]], model: Model, *, first: int) -> None:
    """Exit with status 1 for a text, given as token ids, that is too long; count from `first`."""
    limit = model.max_item_tokens or DEFAULT_ITEM_TOKENS
    for number, ids in enumerate(texts, first):
        if len(ids) > limit:
            fail(
                f"Text {number} has {len(ids)} tokens, more than the {limit} that {model.id} "
                "takes. Shorten or split it, or have it cut: --truncate end."
            )
