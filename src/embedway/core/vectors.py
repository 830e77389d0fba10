"""Checks the vectors of every answer, and shortens vectors."""

import numpy as np
from numpy.typing import NDArray

from embedway.core.provider_error import ProviderError

Vectors = NDArray[np.float32]
"""An array of shape (items, dimensions), dtype float32, C-contiguous."""

UNIT_TOLERANCE = 1e-3
"""How far the squared length of a vector may be from one before the vector is normalised again.

Vectors normalised at half precision stay within it.
"""


def check_vectors(
    vectors: Vectors, *, items: int, dimensions: int | None, normalised: bool = False
) -> Vectors:
    """Return `vectors` if they are as requested, normalised if they must be.

    Args:
        vectors: The answer.
        items: How many vectors were requested.
        dimensions: The requested width; None for any.
        normalised: Whether to scale vectors to length one.

    Raises:
        ProviderError: The count or width is wrong, a value is not finite, or a vector is all zeros.
    """
    if vectors.shape != (items, dimensions or vectors.shape[-1]):
        wanted = (items, dimensions or "any width")
        raise _malformed(f"vectors of shape {vectors.shape}, not {wanted}")
    # One pass: a NaN or an infinity anywhere makes its row's square sum non-finite.
    least, most = (1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE) if normalised else (0, np.inf)
    if items == 1:  # a fifth of the time that einsum takes to start
        squares = [float(vectors[0] @ vectors[0])]
    else:
        squares = np.einsum("ij,ij->i", vectors, vectors).tolist()
    if all(least < square < most for square in squares):
        return vectors
    # The squares of float32 numbers may overflow or vanish, so check the numbers themselves.
    if not np.isfinite(vectors).all():
        raise _malformed("a value that is not a finite number")
    if not vectors.any(axis=1).all():
        raise _malformed("a vector of zeros")
    return normalise(vectors) if normalised else vectors


def shorten(vectors: Vectors, *, dimensions: int) -> Vectors:
    """Return the first `dimensions` of each vector, normalised, as Matryoshka models are trained.

    Raises:
        ProviderError: What is left of a vector is all zeros.
    """
    return normalise(vectors[:, :dimensions])


def normalise(vectors: Vectors) -> Vectors:
    """Return `vectors` scaled to length one.

    Raises:
        ProviderError: A vector is all zeros.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not norms.all():
        raise _malformed("a vector of zeros")
    return (vectors / norms[:, None]).astype(np.float32)


def _malformed(reason: str) -> ProviderError:
    return ProviderError("malformed", reason, billed="yes")
