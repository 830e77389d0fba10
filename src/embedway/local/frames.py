"""The bytes in which workers ask the process of the local models for vectors, and its answers.

Token ids and vectors are the numbers themselves, 32 bits each. A frame is a head (the length of the
rest, the kind, and the request's number) and the rest.
"""

import asyncio
from array import array
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, chain, pairwise
from struct import Struct

import msgspec
import numpy as np
from numpy.typing import NDArray

HEAD = Struct("=IBI")
_EMBED = Struct("=HHI")
_VECTORS = Struct("=II")
BUFFER_BYTES = 2**22


class Kind(IntEnum):
    """What a frame holds. The first two are a worker's, the others the answer."""

    EMBED = 1
    CANCEL = 2
    READY = 3
    VECTORS = 4
    OVERLOADED = 5
    FAILED = 6


class EmbedFrame(msgspec.Struct, frozen=True):
    """A request for the vectors of token ids."""

    model: str
    tenant: str
    """Who sent the request, for fair shares."""
    items: list[list[int]]


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Return the kind, the request's number and the rest of the next frame.

    Raises:
        EOFError: The connection has ended.
        OSError: The connection broke.
    """
    length, kind, number = HEAD.unpack(await reader.readexactly(HEAD.size))
    return kind, number, await reader.readexactly(length) if length else b""


def frame(kind: Kind, number: int, *parts: bytes) -> bytes:
    """Return a frame."""
    return b"".join((HEAD.pack(sum(map(len, parts)), kind, number), *parts))


def encode_request(
    number: int, *, model: str, tenant: str, items: Sequence[Sequence[int]]
) -> bytes:
    """Return the frame of a request."""
    names = model.encode(), tenant.encode("utf-8", "surrogatepass")
    lengths = array("I", map(len, items))
    ids = array("i", chain.from_iterable(items))
    sizes = _EMBED.pack(*map(len, names), len(items))
    return frame(Kind.EMBED, number, sizes, *names, lengths.tobytes(), ids.tobytes())


def decode_request(rest: bytes) -> EmbedFrame:
    """Return what `encode_request` was given."""
    model_size, tenant_size, count = _EMBED.unpack_from(rest)
    at = _EMBED.size
    model = rest[at : at + model_size].decode()
    at += model_size
    tenant = rest[at : at + tenant_size].decode("utf-8", "surrogatepass")
    at += tenant_size
    lengths = array("I", rest[at : at + 4 * count])
    ids = array("i", rest[at + 4 * count :]).tolist()
    bounds = pairwise(accumulate(lengths, initial=0))
    return EmbedFrame(model, tenant, [ids[start:end] for start, end in bounds])


def encode_vectors(number: int, vectors: NDArray[np.float32]) -> bytes:
    """Return the frame of an answer."""
    return frame(Kind.VECTORS, number, _VECTORS.pack(*vectors.shape), vectors.tobytes())


def decode_vectors(rest: bytes) -> NDArray[np.float32]:
    """Return the vectors of an answer, float32 [items, dimensions]; they cannot be written to."""
    shape = _VECTORS.unpack_from(rest)
    return np.frombuffer(rest, np.float32, offset=_VECTORS.size).reshape(shape)
