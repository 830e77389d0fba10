"""Vectors as they come in replies, to arrays; every odd one is a `ProviderError`."""

import re
from collections.abc import Sequence
from typing import NoReturn, TypeVar

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpReply

Shape = TypeVar("Shape")

_NAN = re.compile(rb"(?<=[:,\[\s])(?:NaN|-?Infinity)(?=[\s,}\]])")

Value = bytes | list[float]
"""A vector in base64, which msgspec decodes, or as numbers."""


def malformed_error(reason: str) -> NoReturn:
    """Refuses a reply that was paid for but is not what was asked.

    Raises:
        ProviderError: Always.
    """
    raise ProviderError("malformed", reason, billed="yes")


def parse_body(decoder: "msgspec.json.Decoder[Shape]", reply: HttpReply) -> Shape:
    """The body of `reply` in the shape that `decoder` knows.

    Raises:
        ProviderError: It is not JSON, or of another shape.
    """
    try:
        return decoder.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Python's writers put NaN where JSON has no word: it is no count and no part of a vector.
        body, found = _NAN.subn(b"null", reply.body)
    try:
        if found:
            return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # What it was is not told: it may be anything, and it is the client who would read it.
    malformed_error("not JSON of the shape its protocol promises")


def stack_vectors(values: Sequence[Value], *, items: int, dtype: DTypeLike = "<f4") -> Vectors:
    """Vectors of shape (items, width), float32.

    Args:
        values: One for each item, all base64 or all numbers.
        items: How many there must be.
        dtype: Of the numbers in base64.

    Raises:
        ProviderError: Another count, widths that differ, or base64 that is none.
    """
    if len(values) != items:
        malformed_error(f"{len(values)} vectors for {items} items")
    raws = [value for value in values if isinstance(value, bytes)]
    try:
        if not raws:
            with np.errstate(over="ignore"):  # an infinity is found by `core.vectors.check`
                return np.array(values, np.float64).reshape(items, -1).astype(np.float32)
        if len(raws) == items and len(set(map(len, raws))) == 1:
            # Joined as bytes: numpy gives up the interpreter's lock to copy, and waits to get it
            # back; that took a tenth of all the time of a small request.
            array = np.frombuffer(b"".join(raws), dtype).reshape(items, -1)
            return array.astype(np.float32, copy=False)
    except ValueError:
        pass
    malformed_error("vectors of different widths, or of no whole number of floats")


def order_by_index(indices: Sequence[int | None], values: Sequence[Value]) -> list[Value]:
    """`values` by their index; as they came if none has one.

    A single value without an index has the one that is left over: Gemini's OpenAI endpoint leaves
    out a 0 (https://github.com/spring-projects/spring-ai/issues/7019, 2026-09-21).

    Raises:
        ProviderError: Several indices are missing, or one is repeated or out of range.
    """
    if all(index is None for index in indices):
        return list(values)
    if list(indices) == list(range(len(values))):
        return list(values)
    left = set(range(len(values))).difference(indices)
    if indices.count(None) == 1 and len(left) == 1:
        indices = [left.pop() if index is None else index for index in indices]
    placed = dict(zip(indices, values, strict=True))
    if placed.keys() != set(range(len(values))):
        malformed_error("indices are missing or repeated")
    return [placed[index] for index in range(len(values))]
