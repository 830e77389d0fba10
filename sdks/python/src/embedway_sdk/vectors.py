"""Reads the answers of the embeddings endpoint.

Vectors arrive as base64 of little-endian float32 and stay bytes until they are read: decoding costs
nothing per number. NumPy is imported when `numpy()` is called, not before.
"""

from __future__ import annotations

import binascii
import json
import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from embedway_sdk.errors import InvalidResponseError
from embedway_sdk.loading import reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedway_sdk.http import httpx

FLOAT_BYTES = 4
SHOWN_FLOATS = 4
"""The most numbers of a vector that `repr` shows."""


class _Vectors:
    """The vectors of one answer: one buffer of float32, or the lists of numbers that were sent."""

    def __init__(self, sent: list[Any]) -> None:
        self._lists: list[list[float]] = []
        self._buffer = bytearray()
        if all(isinstance(each, str) for each in sent):
            self._buffer, self.dimensions = _decode(sent)
        elif all(isinstance(each, list) for each in sent):
            self._lists = sent
            self.dimensions = len(sent[0])
            if any(len(each) != self.dimensions for each in sent):
                raise InvalidResponseError("The answer has vectors of different widths.")
            if not all(math.isfinite(number) for each in sent for number in each):
                raise InvalidResponseError("The answer has vectors with infinity or NaN.")
        else:
            raise InvalidResponseError("The answer has vectors that are neither lists nor base64.")
        self.items = len(sent)

    def row(self, index: int) -> list[float]:
        if self._lists:
            return list(self._lists[index])
        size = FLOAT_BYTES * self.dimensions
        floats = array("f")
        floats.frombytes(memoryview(self._buffer)[index * size : (index + 1) * size])
        return floats.tolist()

    def numpy(self, index: int | None = None) -> NDArray[np.float32]:
        """Return all vectors, or the one at `index` without a look at the others."""
        try:
            import numpy as np  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("numpy() needs NumPy: pip install 'embedway-sdk[numpy]'") from error
        if self._lists:
            return np.array(self._lists if index is None else self._lists[index], np.float32)
        array = np.ndarray((self.items, self.dimensions), np.float32, self._buffer)
        return array if index is None else array[index]


def _decode(texts: list[str]) -> tuple[bytearray, int]:
    """Return equally wide base64 vectors as one buffer of this machine's floats, and their width.

    Raises:
        InvalidResponseError: A text is no base64, or its width is not that of the first.
    """
    try:
        decoded = [binascii.a2b_base64(text) for text in texts]
    except ValueError as error:
        raise InvalidResponseError(f"The answer has a vector that is no base64: {error}") from None
    size = len(decoded[0])
    width, rest = divmod(size, FLOAT_BYTES)
    if rest or not width or any(len(each) != size for each in decoded):
        raise InvalidResponseError("The answer has vectors of different widths.")
    # The decoder skips characters that are not base64: the length shows whether there were any.
    length = (size + 2) // 3 * 4
    if any(len(text) != length for text in texts):
        raise InvalidResponseError("The answer has a vector that is no base64.")
    joined = bytearray().join(decoded)
    if sys.byteorder == "big":
        swapped = array("f", bytes(joined))
        swapped.byteswap()
        joined = bytearray(swapped.tobytes())
    return joined, width


class Embedding:
    """The vector of one input."""

    object = "embedding"
    __slots__ = ("_row", "_vectors", "index")

    def __init__(self, vectors: _Vectors, row: int, index: int) -> None:
        self._vectors = vectors
        self._row = row
        self.index = index
        """The position of the input in the request, or among all inputs of `embed_many`."""

    @property
    def embedding(self) -> list[float]:
        """The vector as a list of floats, of length `dimensions`. Each access makes a new list."""
        return self._vectors.row(self._row)

    def numpy(self) -> NDArray[np.float32]:
        """Return the vector as an array of shape [dimensions], float32.

        Raises:
            ImportError: NumPy is not installed.
        """
        return self._vectors.numpy(self._row)

    def __repr__(self) -> str:
        shown = ", ".join(f"{number:.4g}" for number in self.embedding[:SHOWN_FLOATS])
        more = f", ... {self._vectors.dimensions} in all" * (
            self._vectors.dimensions > SHOWN_FLOATS
        )
        return f"Embedding(index={self.index}, embedding=[{shown}{more}])"


@dataclass(frozen=True)
class Usage:
    """The tokens that were counted."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class EmbeddingsResponse:
    """The vectors of one request, in the order of its inputs."""

    data: Sequence[Embedding]
    model: str
    """The model as it was asked for, such as `auto`. The header `x-embedway-model` names the one
    that answered."""
    usage: Usage
    id: str
    created: int
    """When it was answered, in Unix seconds."""
    provider: str
    """Who answered; if several providers shared the inputs, commas separate them."""
    object: str
    headers: httpx.Headers
    """The headers of the answer; names are not case-sensitive."""
    _vectors: _Vectors

    @property
    def request_id(self) -> str | None:
        """The id under which the gateway logged the request."""
        return self.headers.get("x-request-id")

    @property
    def space(self) -> str | None:
        """The vector space. Compare vectors only if their spaces are the same."""
        return self.headers.get("x-embedway-space")

    @property
    def cost_usd(self) -> Decimal | None:
        """What the request cost, exactly."""
        cost = self.headers.get("x-embedway-cost-usd")
        return None if cost is None else Decimal(cost)

    @property
    def cache(self) -> str | None:
        """Whether the vectors came from a cache: `hit`, `miss`, `partial`, or None without one."""
        return self.headers.get("x-embedway-cache")

    @property
    def dimensions(self) -> int:
        """The width of each vector."""
        return self._vectors.dimensions

    def numpy(self) -> NDArray[np.float32]:
        """Return all vectors as one array of shape [items, dimensions], float32.

        What you write into it is also seen in `data`: nothing is copied.

        Raises:
            ImportError: NumPy is not installed.
        """
        return self._vectors.numpy()

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.data[:2])) + f", ... {len(self.data)} in all" * (
            len(self.data) > 2  # noqa: PLR2004
        )
        return (
            f"EmbeddingsResponse(data=[{shown}], model={self.model!r}, usage={self.usage!r}, "
            f"provider={self.provider!r}, space={self.space!r}, cost_usd={self.cost_usd})"
        )


def read_embeddings(
    response: httpx.Response, *, items: int | None, dimensions: int | None = None
) -> EmbeddingsResponse:
    """Read the answer to a request.

    Args:
        response: The answer.
        items: How many inputs were sent; None if that is not known.
        dimensions: The width that was asked for, if any.

    Raises:
        InvalidResponseError: It is not one vector for each input, in order and as wide as asked.
    """
    with reading(response):
        body = json.loads(response.content)
        sent = body["data"]
        order = [each["index"] for each in sent]
        if not sent or order != list(range(len(sent) if items is None else items)):
            raise InvalidResponseError(
                f"The answer does not have one vector for each of {items} inputs, in order."
            )
        vectors = _Vectors([each["embedding"] for each in sent])
        if dimensions not in {None, vectors.dimensions}:
            raise InvalidResponseError(
                f"The answer has vectors of {vectors.dimensions} dimensions, not of {dimensions}."
            )
        return EmbeddingsResponse(
            data=[Embedding(vectors, index, index) for index in order],
            model=body["model"],
            usage=Usage(int(body["usage"]["prompt_tokens"]), int(body["usage"]["total_tokens"])),
            id=body.get("id", ""),
            created=body.get("created", 0),
            provider=body.get("provider", ""),
            object=body["object"],
            headers=response.headers,
            _vectors=vectors,
        )
