"""Where a list of items is cut so that each part is within what one call may hold."""

from collections.abc import Iterator, Sequence


def cut(
    tokens: Sequence[int], *, max_items: int, max_tokens: int | None
) -> Iterator[tuple[int, int]]:
    """The parts of a list as (start, end), in order: each item in exactly one, none empty.

    An item that alone has more than `max_tokens` is a part of its own: whoever is called refuses
    it, and says so.

    Args:
        tokens: Of each item.
        max_items: In a part.
        max_tokens: In a part, summed; None for any number.
    """
    start = held = 0
    for at, size in enumerate(tokens):
        over = max_tokens is not None and held + size > max_tokens
        if at > start and (at - start >= max_items or over):
            yield start, at
            start, held = at, 0
        held += size
    if tokens:
        yield start, len(tokens)
