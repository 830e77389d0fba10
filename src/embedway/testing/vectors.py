"""What the scripted upstream answers with: functions of an item and a width, each its own space.

`vector_of` is the one that is answered unless a test gives another. The rest make others, to play a
deployment of another model, or one that claims to be the same and is not. All are deterministic.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Item = str | list[int]
"""A text, or token ids."""
Vector = NDArray[np.float32]
Vectors = Callable[[Item, int], Vector]
"""The vector of an item, of a model as wide as this. The upstream cuts it where less is asked."""

WIDTH = 64
MIXED_IN = 0.484  # tan(acos(0.9))


def vector_of(item: Item, dimensions: int = WIDTH) -> Vector:
    """The vector of a text or of token ids: length one, another for each item.

    Fewer dimensions give the start of the same vector, normalised anew.
    """
    drawn = hashlib.shake_256(_name(item).encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    values = np.frombuffer(drawn, "<u2").astype(np.float64) - 32767.5
    return (values / np.sqrt(values @ values)).astype(np.float32)


def space(seed: str) -> Vectors:
    """Vectors of another model: as `vector_of`, and unlike those of every other seed."""
    return lambda item, width: vector_of(f"{seed}\0{_name(item)}", width)


def scaled(vectors: Vectors, by: float) -> Vectors:
    """The same vectors in another normalisation: `by` times as long, so the cosine stays one."""
    return lambda item, width: vectors(item, width) * np.float32(by)


def noisy(vectors: Vectors, bits: int = 4) -> Vectors:
    """As long, but each number is one of `2 ** bits - 1`: with four bits the cosine is 0.997."""
    steps = 2 ** (bits - 1) - 1

    def quantised(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        return _as_long(np.rint(exact / np.abs(exact).max() * steps), exact)

    return quantised


def other_pooling(vectors: Vectors) -> Vectors:
    """As long, but turned towards one fixed vector: the cosine is about 0.9."""

    def turned(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        towards = vector_of("another pooling", width) * np.linalg.norm(exact)
        return _as_long(exact + MIXED_IN * towards, exact)

    return turned


def sibling(vectors: Vectors) -> Vectors:
    """Another model of the same space: as long, but each text deviates its own way.

    The cosine of the two vectors of a text is about 0.9.
    """

    def deviating(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        own_way = vector_of(f"sibling\0{_name(item)}", width) * np.linalg.norm(exact)
        return _as_long(exact + MIXED_IN * own_way, exact)

    return deviating


def rotated(vectors: Vectors) -> Vectors:
    """As alike to each other as before, but in a space of their own: all turned by one rotation."""
    return lambda item, width: (_rotation(width) @ vectors(item, width)).astype(np.float32)


def shorten_vector(vector: Vector, dimensions: int) -> Vector:
    """The start of a vector, brought to length one."""
    cut = vector[:dimensions].astype(np.float64)
    return (cut / np.linalg.norm(cut)).astype(np.float32)


def _name(item: Item) -> str:
    return item if isinstance(item, str) else json.dumps(item)


@cache
def _rotation(width: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(0).standard_normal((width, width))
    return np.linalg.qr(drawn).Q


def _as_long(changed: Vector | NDArray[np.float64], exact: Vector) -> Vector:
    length = np.linalg.norm(exact) / np.linalg.norm(changed)
    return (changed * length).astype(np.float32)
