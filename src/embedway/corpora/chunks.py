"""Cuts the text of a row into chunks of so many tokens, which overlap."""

from collections.abc import Callable, Sequence

import msgspec

from embedway.corpora.sinks.sink import Point
from embedway.corpora.source import Row

TokenOffsets = Callable[[str], Sequence[tuple[int, int]]]
"""Returns where each token of a text begins and ends, in characters."""


class Chunking(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are cut."""

    tokens: int
    """The most tokens of a chunk."""
    overlap: int = 0
    """How many of the last tokens of a chunk the next one begins with."""

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.overlap} of overlap"


def whole_row(row: Row) -> list[Point]:
    """Return a row as one point."""
    return [Point(id=row.id, row_id=row.id, text=row.text)]


def cut_row(row: Row, chunking: Chunking, token_offsets: TokenOffsets) -> list[Point]:
    """Return the chunks of a row. Each is a part of its text, from a token to a token."""
    offsets = [each for each in token_offsets(row.text) if each[0] < each[1]]
    if not offsets:
        return whole_row(row)
    points: list[Point] = []
    step = chunking.tokens - chunking.overlap
    for first in range(0, len(offsets), step):
        last = min(first + chunking.tokens, len(offsets)) - 1
        start, end = offsets[first][0], offsets[last][1]
        number = len(points)
        points.append(
            Point(
                id=f"{row.id}#{number}",
                row_id=row.id,
                chunk=number,
                start=start,
                text=row.text[start:end],
            )
        )
        if last == len(offsets) - 1:
            break
    return points
