"""Encodes a response body, in the one shape that fits every client."""

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
import pybase64

from embedway.core.request import EncodingFormat
from embedway.core.vectors import Vectors

SLICE_VALUES = 16_384
"""How many numbers to encode at a time; this takes half a millisecond, and makes 200 KB of JSON."""


class ResponseHead(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a response body besides the vectors."""

    id: str
    created: int
    model: str
    provider: str
    usage: dict[str, int]


def encode(
    head: ResponseHead, vectors: Vectors, *, encoding_format: EncodingFormat
) -> Iterator[bytes]:
    """Yield the body in pieces that are each quick to make.

    Args:
        head: The other fields.
        vectors: The vectors, float32 of shape (items, dimensions).
        encoding_format: How to write each vector.
    """
    yield b'{"object":"list","data":['
    step = max(1, SLICE_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        entries = [
            {"object": "embedding", "index": index, "embedding": _value(row, encoding_format)}
            for index, row in enumerate(vectors[start : start + step], start)
        ]
        piece = orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        yield b"," + piece if start else piece
    yield b"]," + orjson.dumps(msgspec.structs.asdict(head))[1:]


def _value(row: Any, encoding_format: EncodingFormat) -> Any:
    if encoding_format == "float":
        return row
    return pybase64.b64encode_as_string(row.astype("<f4", copy=False))
