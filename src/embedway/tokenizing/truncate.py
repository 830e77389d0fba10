"""How many tokens an item and a request may have, and how a longer item is cut."""

from collections.abc import Sequence

from embedway.catalog.model import Model
from embedway.core.errors import ContextLengthExceeded, TooManyTokens
from embedway.core.request import Truncate

DEFAULT_ITEM_TOKENS = 8192
"""Of a model that is counted exactly but whose limit nobody declared: that of OpenAI's."""


def fit_to_limits(ids: Sequence[list[int]], *, model: Model, truncate: Truncate) -> list[list[int]]:
    """The token ids of each item, cut where `truncate` says so, within the model's limits.

    Args:
        ids: Token ids of each item.
        model: Whose limits.
        truncate: What to do with an item that is too long.

    Raises:
        ContextLengthExceeded: An item is too long and `truncate` is `none`.
        TooManyTokens: All items together are too long.
    """
    limit = model.max_item_tokens or DEFAULT_ITEM_TOKENS
    fitting = list(ids)
    for index, item in enumerate(ids):
        if len(item) <= limit:
            continue
        if truncate == "none":
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens, however you requested "
                f"{len(item)} tokens in item {index} of your input. Shorten or split it, "
                "or set 'truncate' to 'end' or 'start'.",
                param="input",
            )
        marked = model.tokenizer == "own"
        fitting[index] = truncate_ids(item, limit=limit, drop=truncate, marked=marked)
    total = sum(len(item) for item in fitting)
    if total > model.max_request_tokens:
        raise TooManyTokens(
            f"Requested {total} tokens, max {model.max_request_tokens} tokens per request. Send "
            "fewer items at a time.",
            param="input",
        )
    return fitting


def truncate_ids(ids: list[int], *, limit: int, drop: Truncate, marked: bool) -> list[int]:
    """`ids` cut to `limit`, dropping from its `end` or `start`.

    Args:
        ids: Of one item.
        limit: How many stay.
        drop: Where to drop.
        marked: Whether the outermost two are the model's own marks ([CLS], [SEP]), without which
            it was never trained; they stay.
    """
    if not marked:
        return ids[:limit] if drop == "end" else ids[len(ids) - limit :]
    kept = ids[1 : limit - 1] if drop == "end" else ids[len(ids) - limit + 1 : -1]
    return [ids[0], *kept, ids[-1]]
