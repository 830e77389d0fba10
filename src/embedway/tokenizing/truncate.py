"""Checks the token counts of a request, and cuts items that are too long."""

from collections.abc import Sequence

from embedway.catalog.model import Model
from embedway.core.errors import ContextLengthExceeded, TooManyTokens
from embedway.core.request import Truncate

DEFAULT_ITEM_TOKENS = 8192
"""The limit for an item where the model's is unknown: that of OpenAI's models."""


def fit_to_limits(ids: Sequence[list[int]], *, model: Model, truncate: Truncate) -> list[list[int]]:
    """Return the token ids of each item within the model's limits, cut as `truncate` says.

    Raises:
        ContextLengthExceeded: An item is too long and `truncate` is `none`.
        TooManyTokens: The items together have too many tokens.
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
        fitting[index] = truncate_ids(
            item, limit=limit, drop=truncate, has_special_tokens=model.tokenizer == "own"
        )
    total = sum(len(item) for item in fitting)
    if total > model.max_request_tokens:
        raise TooManyTokens(
            f"Requested {total} tokens, max {model.max_request_tokens} tokens per request. Send "
            "fewer items at a time.",
            param="input",
        )
    return fitting


def truncate_ids(
    ids: list[int], *, limit: int, drop: Truncate, has_special_tokens: bool
) -> list[int]:
    """Cut the token ids of one item to `limit`, at its `end` or `start`.

    With `has_special_tokens`, the first and the last id are the model's special tokens ([CLS],
    [SEP]). They are kept, because the model was never trained without them.
    """
    if not has_special_tokens:
        return ids[:limit] if drop == "end" else ids[len(ids) - limit :]
    kept = ids[1 : limit - 1] if drop == "end" else ids[len(ids) - limit + 1 : -1]
    return [ids[0], *kept, ids[-1]]
