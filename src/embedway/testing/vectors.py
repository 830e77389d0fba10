"""Makes vectors for the scripted upstream: functions of an item and a width, one for each space.

The upstream uses `vector_of` unless a test sets another. The others play a deployment of another
model, or one that wrongly claims to be the same. All are deterministic.
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
"""Returns the vector of an item at the model's width; the upstream cuts it to fewer dimensions."""

WIDTH = 64
MIXED_IN = 0.484  # tan(acos(0.9))


def vector_of(item: Item, dimensions: int = WIDTH) -> Vector:
    """Return a vector of length one that is different for each item.

    Fewer dimensions give the start of the same vector, normalised again.
    """
    drawn = hashlib.shake_256(_name(item).encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    values = np.frombuffer(drawn, "<u2").astype(np.float64) - 32767.5
    return (values / np.sqrt(values @ values)).astype(np.float32)


def space(seed: str) -> Vectors:
    """Make the vectors of another model, unlike those of any other seed."""
    return lambda item, width: vector_of(f"{seed}\0{_name(item)}", width)


def scaled(vectors: Vectors, by: float) -> Vectors:
    """Make the same vectors `by` times as long, so that the cosine stays one."""
    return lambda item, width: vectors(item, width) * np.float32(by)


def noisy(vectors: Vectors, bits: int = 4) -> Vectors:
    """Round each number to one of `2 ** bits - 1` values; with four bits the cosine is 0.997."""
    steps = 2 ** (bits - 1) - 1

    def quantised(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        return _as_long(np.rint(exact / np.abs(exact).max() * steps), exact)

    return quantised


def other_pooling(vectors: Vectors) -> Vectors:
    """Turn each vector towards one fixed vector, at the same length; the cosine is about 0.9."""

    def turned(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        towards = vector_of("another pooling", width) * np.linalg.norm(exact)
        return _as_long(exact + MIXED_IN * towards, exact)

    return turned


def sibling(vectors: Vectors) -> Vectors:
    """Make the vectors of another model in the same space.

    Each text deviates in its own direction, at the same length. The cosine between a text's two
    vectors is about 0.9.
    """

    def deviating(item: Item, width: int) -> Vector:
        exact = vectors(item, width)
        own_way = vector_of(f"sibling\0{_name(item)}", width) * np.linalg.norm(exact)
        return _as_long(exact + MIXED_IN * own_way, exact)

    return deviating


def rotated(vectors: Vectors) -> Vectors:
    """Turn all vectors by one rotation: they are as similar to each other, but in another space."""
    return lambda item, width: (_rotation(width) @ vectors(item, width)).astype(np.float32)


def shorten_vector(vector: Vector, dimensions: int) -> Vector:
    """Return the start of a vector, scaled to length one."""
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
