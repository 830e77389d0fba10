"""Defines what a sink of vectors can do, and what it says of those it holds."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from embedway.core.vectors import Vectors


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink says of the vectors it holds. It holds no others."""

    space: str
    """The vector space. Vectors of another one cannot be compared with these."""
    model: str
    dimensions: int
    vector_type: Literal["float32"] = "float32"
    chunking: str = "whole rows"
    """How rows were cut, such as `256 tokens, 32 of overlap`."""
    source: str
    """Where the rows came from."""

    def differs_from(self, other: "Collection") -> str | None:
        """Return the first reason why vectors of `other` do not belong here; None if they do."""
        for name in ("space", "dimensions", "vector_type", "chunking"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                return f"its {name.replace('_', ' ')} is {here!r}, not {there!r}"
        return None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A text with a vector: a row of the source, or a chunk of one."""

    id: str
    """The row's id; with chunks, that and the chunk's number, such as `doc-1#2`."""
    row_id: str
    chunk: int = 0
    """The number of the chunk in its row, from 0."""
    start: int = 0
    """Where the text begins in the row's text, in characters."""
    text: str


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A point that a search found."""

    point: Point
    score: float
    """The cosine of its vector and that of the question."""


class SinkError(Exception):
    """A sink cannot be used; the message says why and what to do."""


class Sink(Protocol):
    """Keeps points with their vectors. Methods block, and raise `SinkError`.

    What a method did survives `kill -9` once it returns. After a crash during `replace`, any part
    of it may be done: it is then called again with the same rows.
    """

    def read_collection(self) -> Collection | None:
        """Return what the sink holds; None if it holds nothing yet."""
        ...

    def create(self, collection: Collection) -> None:
        """Prepare an empty sink for these vectors, and store `collection` in its metadata."""
        ...

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Store the points of some rows, in place of those it may have of the same rows.

        Args:
            points: All points of each row.
            vectors: Their vectors, float32 of shape (points, dimensions).
            known_rows: The ids of those rows that may be in the sink already.
        """
        ...

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows. It is no error if there are none."""
        ...

    def count(self) -> int:
        """Return how many points it holds."""
        ...

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the points nearest to a vector of shape (dimensions,), nearest first."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...
