"""Canaries: a few fixed texts whose vectors tell whether two deployments serve one vector space."""

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedway.core.vectors import Vectors

# About 200 tokens. Never change them: every stored reference would have to be made anew, and what
# drifted meanwhile would go unnoticed.
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
"""Several languages, code, numbers, one word, a paragraph: what pooling, prompts and quantisation
treat differently."""

NORM_TOLERANCE = 0.01
"""Vectors whose lengths differ by more are of another space: a scale leaves cosines as they are,
but not dot products."""


MARGIN = 0.5
"""The least share of the distance between texts by which the vectors of one text stand out, in the
common space of two models. Equal vectors have a share of 1, unrelated ones of about 0 or less."""
SMALLEST_DISTANCE = 1e-6


class CanaryComparison(msgspec.Struct, frozen=True, kw_only=True):
    """How vectors compare with those of a reference."""

    cosine: float | None
    """The lowest; None if they cannot be compared."""
    norm_deviation: float | None
    """The greatest relative difference of two lengths."""
    against: str
    """Why they are not of one space, for people; empty if they are."""


def digest_texts(texts: Sequence[str]) -> str:
    """12 hex digits that stand for `texts`."""
    return hashlib.sha256(msgspec.json.encode(texts)).hexdigest()[:12]


def compare(vectors: Vectors, reference: Vectors, *, min_cosine: float) -> CanaryComparison:
    """How the vectors of the canaries compare with the reference's, text by text.

    Args:
        vectors: Shape (texts, width), float32; checked: finite, none of zeros.
        reference: Likewise.
        min_cosine: Of two vectors of one text, the lowest at which they are of one space.
    """
    if vectors.shape != reference.shape:
        against = f"{vectors.shape[1]} dimensions, not {reference.shape[1]}"
        return CanaryComparison(cosine=None, norm_deviation=None, against=against)
    one, other = vectors.astype(np.float64), reference.astype(np.float64)
    norms, wanted = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    cosine = float((np.einsum("ij,ij->i", one, other) / (norms * wanted)).min())
    deviation = float(np.abs(norms / wanted - 1).max())
    against = ""
    # Asked this way round, a NaN agrees with nothing.
    if not cosine >= min_cosine:
        against = f"cosine {cosine:.5f} < {min_cosine:g}"
    elif not deviation <= NORM_TOLERANCE:
        against = f"norms differ by {deviation:.2%}"
    return CanaryComparison(cosine=cosine, norm_deviation=deviation, against=against)


def against_sharing(vectors: Vectors, reference: Vectors) -> str:
    """Why the vectors of two models are not of one space, for people; empty if they are.

    Two models give one text different vectors, so a high cosine of each pair cannot be asked for.
    Instead, each text's two vectors must stand out: they are nearer to each other than to any other
    text's vectors by at least `MARGIN` of the distance between texts within either model.

    Args:
        vectors: The canaries' vectors by one model; shape (texts, width), float32, none of zeros.
        reference: Those by the other model.
    """
    if vectors.shape != reference.shape:
        return f"{vectors.shape[1]} dimensions, not {reference.shape[1]}"
    one, other = vectors.astype(np.float64), reference.astype(np.float64)
    norms, wanted = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    deviation = float(np.abs(norms / wanted - 1).max())
    if not deviation <= NORM_TOLERANCE:
        return f"norms differ by {deviation:.2%}"
    one, other = one / norms[:, None], other / wanted[:, None]
    same = np.eye(len(one), dtype=bool)

    def nearest_other_text(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        others = np.where(same, -1, cosines)
        return np.maximum(others.max(axis=0), others.max(axis=1))

    within = np.maximum(nearest_other_text(one @ one.T), nearest_other_text(other @ other.T))
    between = one @ other.T
    cosines = between.diagonal()
    # A model that gives all texts one vector stands out nowhere, whatever the share.
    margins = (cosines - nearest_other_text(between)) / np.maximum(1 - within, SMALLEST_DISTANCE)
    worst = int(margins.argmin())
    if margins[worst] >= MARGIN:
        return ""
    return (
        f"canary {worst + 1} is not the nearest to itself: cosine {cosines[worst]:.5f} between the "
        f"models, margin {margins[worst]:.2f} < {MARGIN:g}"
    )


def are_unit_length(vectors: Vectors) -> bool:
    """Whether all of them are."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return bool((np.abs(norms - 1) <= NORM_TOLERANCE).all())
