"""Cuts items into calls within a deployment's limits."""

from collections.abc import Iterator, Sequence

from embedway.core.batch import Batch, BatchLimits

ESTIMATE_SHARE = 0.7
"""Fill a call to this share of the token limit when counts are estimates, which may be low."""


def cut_batch(batch: Batch, limits: BatchLimits) -> Sequence[Batch]:
    """Cut a batch into calls within the limits. Each item is in exactly one of them."""
    if len(batch.items) == 1:
        return (batch,)
    most = limits.max_tokens
    if most is not None and not batch.exact:
        most = int(most * ESTIMATE_SHARE)
    ranges = list(cut(batch.tokens, max_items=limits.max_items, max_tokens=most))
    if len(ranges) == 1:
        return (batch,)
    return [batch.slice(start, end) for start, end in ranges]


def cut(
    tokens: Sequence[int], *, max_items: int, max_tokens: int | None
) -> Iterator[tuple[int, int]]:
    """Yield the parts of a list as (start, end), in order, none of them empty.

    An item that exceeds `max_tokens` by itself is a part of its own, for the provider to refuse.

    Args:
        tokens: The tokens of each item.
        max_items: The most items in a part.
        max_tokens: The most tokens in a part; None for any number.
    """
    start = total = 0
    for at, size in enumerate(tokens):
        is_over = max_tokens is not None and total + size > max_tokens
        if at > start and (at - start >= max_items or is_over):
            yield start, at
            start, total = at, 0
        total += size
    if tokens:
        yield start, len(tokens)
