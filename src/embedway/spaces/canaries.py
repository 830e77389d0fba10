"""Canaries: fixed texts whose vectors show whether two deployments share a vector space."""

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedway.core.vectors import Vectors

# About 200 tokens. Never change them: every stored reference would have to be made again, and drift
# would go unnoticed meanwhile.
CANARIES = (
    "bridge",
    "How do I reset the password of my account?",
    "Der Vertrag endet, wenn keine der beiden Seiten ihn bis zum 31. März verlängert.",
    "明日の東京は晴れ、夕方から雨が降るでしょう。",
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2",
    "2024-02-29 14:05, 1,234.56 EUR, -40 °C, 0.000125 mol/l, 7 of 12",
    "Thanks a lot, see you on Friday! 🎉🚲",
    "The old lighthouse stood at the end of a narrow road, far from the harbour. Every evening the "
    "keeper climbed its ninety steps, lit the lamp and wrote the weather into a book: wind, "
    "clouds, the height of the sea. When he retired, the books went to a museum, where students "
    "of the climate still read them with great care today.",
)
"""Texts that pooling, prompts and quantisation treat differently: several languages, code, numbers,
one word, a paragraph."""

NORM_TOLERANCE = 0.01
"""The largest relative difference in length between vectors of one space. Scaling a vector leaves
its cosines unchanged but not its dot products."""
MARGIN = 0.5
"""How much nearer two models' vectors of one text must be than vectors of different texts, as a
share of the distance between texts. Equal vectors have 1, unrelated ones about 0 or less."""
SMALLEST_DISTANCE = 1e-6
"""Keeps that share finite for a model that gives all texts one vector."""


class CanaryComparison(msgspec.Struct, frozen=True, kw_only=True):
    """How the canaries' vectors compare with those of a reference."""

    cosine: float | None
    """The lowest of any text; None if the widths differ."""
    norm_deviation: float | None
    """The greatest relative difference in length; None if the widths differ."""
    difference: str
    """Why they are not from one space, for people; empty if they are."""


def digest_texts(texts: Sequence[str]) -> str:
    """Return 12 hex digits that identify `texts`."""
    return hashlib.sha256(msgspec.json.encode(texts)).hexdigest()[:12]


def compare(vectors: Vectors, reference: Vectors, *, min_cosine: float) -> CanaryComparison:
    """Compare the canaries' vectors with a reference's, text by text.

    Args:
        vectors: Shape (texts, width), float32; finite, no row all zeros.
        reference: The same for the reference.
        min_cosine: The lowest cosine between two vectors of one text in one space.
    """
    if vectors.shape != reference.shape:
        difference = f"{vectors.shape[1]} dimensions, not {reference.shape[1]}"
        return CanaryComparison(cosine=None, norm_deviation=None, difference=difference)
    one, other = vectors.astype(np.float64), reference.astype(np.float64)
    norms, expected = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    cosine = float((np.einsum("ij,ij->i", one, other) / (norms * expected)).min())
    deviation = float(np.abs(norms / expected - 1).max())
    difference = ""
    # Written with "not", so that a NaN counts as different.
    if not cosine >= min_cosine:
        difference = f"cosine {cosine:.5f} < {min_cosine:g}"
    elif not deviation <= NORM_TOLERANCE:
        difference = f"norms differ by {deviation:.2%}"
    return CanaryComparison(cosine=cosine, norm_deviation=deviation, difference=difference)


def describe_difference(vectors: Vectors, reference: Vectors) -> str:
    """Return why the vectors of two models are not from one space; empty if they are.

    Two models in one space still give a text slightly different vectors, so a high cosine is no
    test. Instead, a text's two vectors must be nearer to each other than to any other text's
    vectors, by at least `MARGIN` of the distance between texts within either model.

    Args:
        vectors: One model's vectors of the canaries, shape (texts, width), float32, none all zeros.
        reference: The other model's.
    """
    if vectors.shape != reference.shape:
        return f"{vectors.shape[1]} dimensions, not {reference.shape[1]}"
    one, other = vectors.astype(np.float64), reference.astype(np.float64)
    norms, expected = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    deviation = float(np.abs(norms / expected - 1).max())
    if not deviation <= NORM_TOLERANCE:
        return f"norms differ by {deviation:.2%}"
    one, other = one / norms[:, None], other / expected[:, None]
    same = np.eye(len(one), dtype=bool)

    def nearest_other_text(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        others = np.where(same, -1, cosines)
        return np.maximum(others.max(axis=0), others.max(axis=1))

    within = np.maximum(nearest_other_text(one @ one.T), nearest_other_text(other @ other.T))
    between = one @ other.T
    cosines = between.diagonal()
    margins = (cosines - nearest_other_text(between)) / np.maximum(1 - within, SMALLEST_DISTANCE)
    worst = int(margins.argmin())
    if margins[worst] >= MARGIN:
        return ""
    return (
        f"canary {worst + 1} is not the nearest to itself: cosine {cosines[worst]:.5f} between the "
        f"models, margin {margins[worst]:.2f} < {MARGIN:g}"
    )


def are_unit_length(vectors: Vectors) -> bool:
    """Return whether every vector has length 1, within `NORM_TOLERANCE`."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return bool((np.abs(norms - 1) <= NORM_TOLERANCE).all())
