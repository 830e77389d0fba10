"""Turns the vectors of replies into arrays, or into a `ProviderError`."""

import re
from collections.abc import Sequence
from typing import NoReturn, TypeVar, cast

import msgspec
import numpy as np
import pybase64
from numpy.typing import DTypeLike

from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpReply
from embedway.providers.split import SplitReply

Shape = TypeVar("Shape")

_NAN = re.compile(rb"(?<=[:,\[\s])(?:NaN|-?Infinity)(?=[\s,}\]])")

Value = str | list[float]
"""A vector in base64 or as numbers."""


def malformed_error(reason: str) -> NoReturn:
    """Refuse a reply that was paid for but is not what the call asked for.

    Raises:
        ProviderError: Always.
    """
    raise ProviderError("malformed", reason, billed="yes")


def parse_body(decoder: "msgspec.json.Decoder[Shape]", reply: HttpReply) -> Shape:
    """Decode the body of `reply` with `decoder`.

    Raises:
        ProviderError: The body is not JSON, or has another shape.
    """
    try:
        return decoder.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Python writes NaN into JSON. It is never a count or part of a vector, so read it as null.
        body, found = _NAN.subn(b"null", reply.body)
    try:
        if found:
            return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # The message does not quote the body, because clients read it.
    malformed_error("not JSON of the shape its protocol promises")


def stack_vectors(
    values: Sequence[Value], reply: HttpReply, *, items: int, dtype: DTypeLike = "<f4"
) -> Vectors:
    """Return the vectors as an array of shape (items, width), float32.

    Args:
        values: One vector per item, all in base64 or all as numbers.
        reply: The reply that they are from.
        items: The expected number of vectors.
        dtype: The type of the numbers in base64.

    Raises:
        ProviderError: The number of vectors is wrong, they are not base64, or their widths differ
            or are no whole number of floats.
    """
    if len(values) != items:
        malformed_error(f"{len(values)} vectors for {items} items")
    try:
        if isinstance(reply, SplitReply):
            raws = [_find(value, reply) for value in values]
            kinds = set(map(type, values))
            if kinds == {list}:
                dtype = "<f4"
            elif kinds != {str}:
                raise ValueError
        else:
            raws = [
                pybase64.b64decode(value, validate=True)
                for value in values
                if isinstance(value, str)
            ]
        if not raws:
            with np.errstate(over="ignore"):  # `core.vectors.check_vectors` finds infinities
                return np.array(values, np.float64).reshape(items, -1).astype(np.float32)
        if len(raws) == items and len(set(map(len, raws))) == 1:
            # Join the bytes first. numpy releases the interpreter's lock for each copy and then
            # waits for it, which took a tenth of the time of a small request.
            array = np.frombuffer(b"".join(raws), dtype).reshape(items, -1)
            return array.astype(np.float32, copy=False)
    except ValueError:
        pass
    malformed_error(
        "vectors that are no base64, of different widths, or of no whole number of floats"
    )


def _find(value: Value, reply: SplitReply) -> bytes:
    vector = reply.find(value)
    return pybase64.b64decode(cast("str", value), validate=True) if vector is None else vector


def order_by_index(indices: Sequence[int | None], values: Sequence[Value]) -> list[Value]:
    """Return `values` in the order of their indices; unchanged if none has an index.

    A single missing index is the one that is left: Gemini's OpenAI endpoint leaves out a 0
    (https://github.com/spring-projects/spring-ai/issues/7019, 2026-09-21).

    Raises:
        ProviderError: Several indices are missing, or one is repeated or out of range.
    """
    if all(index is None for index in indices) or list(indices) == list(range(len(values))):
        return list(values)
    left = set(range(len(values))).difference(indices)
    if indices.count(None) == 1 and len(left) == 1:
        indices = [left.pop() if index is None else index for index in indices]
    placed = dict(zip(indices, values, strict=True))
    if placed.keys() != set(range(len(values))):
        malformed_error("indices are missing or repeated")
    return [placed[index] for index in range(len(values))]
