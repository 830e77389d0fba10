"""An answer to the bytes of the response body, in the shape of every client at once."""

from binascii import b2a_base64
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from embedway.core.request import EncodingFormat
from embedway.core.vectors import Vectors

SLICE_VALUES = 32_768
"""Numbers rendered between two chances for the event loop to do something else; some 1 ms."""


class ResponseHead(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a response body but the vectors."""

    id: str
    created: int
    model: str
    provider: str
    usage: dict[str, int]


def encode(
    head: ResponseHead, vectors: Vectors, *, encoding_format: EncodingFormat
) -> Iterator[bytes]:
    """The body in pieces, each quick to make; vectors have shape (items, dimensions), float32."""
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
    return b2a_base64(row.astype("<f4", copy=False), newline=False).decode("ascii")
