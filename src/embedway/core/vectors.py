"""The check every answer passes before anything else sees it."""

import numpy as np
from numpy.typing import NDArray

from embedway.core.errors import UpstreamFailed

Vectors = NDArray[np.float32]
"""Shape (items, dimensions), dtype float32, C-contiguous."""


def check(vectors: Vectors, *, items: int, dimensions: int) -> Vectors:
    """Returns `vectors` if they are what was asked for.

    Raises:
        UpstreamFailed: Wrong count or width, a value that is not finite, or an all-zero vector.
    """
    if vectors.shape != (items, dimensions):
        raise UpstreamFailed(
            f"The model answered with vectors of shape {vectors.shape}, not {(items, dimensions)}."
        )
    # One pass: a NaN or an infinity anywhere makes its row's square sum non-finite.
    norms = np.einsum("ij,ij->i", vectors, vectors)
    if not np.isfinite(norms).all():
        raise UpstreamFailed("The model answered with a value that is not a finite number.")
    if not norms.all():
        raise UpstreamFailed("The model answered with a vector of zeros.")
    return vectors
