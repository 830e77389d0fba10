"""The check every answer passes before anything else sees it, and the shortening of vectors."""

import numpy as np
from numpy.typing import NDArray

from embedway.core.provider_error import ProviderError

Vectors = NDArray[np.float32]
"""Shape (items, dimensions), dtype float32, C-contiguous."""

UNIT_TOLERANCE = 1e-3
"""How far from one the squared length of a vector may be before the vector is normalised anew.

Vectors that were normalised at half precision stay within it.
"""


def check_vectors(
    vectors: Vectors, *, items: int, dimensions: int | None, normalised: bool = False
) -> Vectors:
    """Return `vectors` if they are what was asked for, at length one if they must have it.

    Args:
        vectors: What was answered.
        items: How many were asked for.
        dimensions: Of each; None if it is not known.
        normalised: Whether vectors of another length than one are normalised.

    Raises:
        ProviderError: Wrong count or width, a value that is not finite, or an all-zero vector.
    """
    if vectors.shape != (items, dimensions or vectors.shape[-1]):
        wanted = (items, dimensions or "any width")
        raise _malformed(f"vectors of shape {vectors.shape}, not {wanted}")
    # One pass: a NaN or an infinity anywhere makes its row's square sum non-finite.
    least, most = (1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE) if normalised else (0, np.inf)
    if all(least < norm < most for norm in np.einsum("ij,ij->i", vectors, vectors).tolist()):
        return vectors
    # Squares of float32 may overflow or vanish where the numbers themselves do not.
    if not np.isfinite(vectors).all():
        raise _malformed("a value that is not a finite number")
    if not vectors.any(axis=1).all():
        raise _malformed("a vector of zeros")
    return unit(vectors) if normalised else vectors


def shorten(vectors: Vectors, *, dimensions: int) -> Vectors:
    """The first `dimensions` of each vector, normalised anew, as Matryoshka models are trained.

    Raises:
        ProviderError: Nothing is left of a vector.
    """
    return unit(vectors[:, :dimensions])


def unit(vectors: Vectors) -> Vectors:
    """`vectors` of length one.

    Raises:
        ProviderError: One is of zeros.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not norms.all():
        raise _malformed("a vector of zeros")
    return (vectors / norms[:, None]).astype(np.float32)


def _malformed(reason: str) -> ProviderError:
    return ProviderError("malformed", reason, billed="yes")
