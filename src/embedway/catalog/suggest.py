"""Which names are near to one that names nothing."""

import difflib
import heapq
from collections.abc import Collection, Iterable
from itertools import pairwise

CLOSELY_READ = 12
"""Names that are compared letter by letter, which is slow, and clients choose what with."""


class NameSuggester:
    """What could have been meant, for names up to hundreds of letters among as many others."""

    def __init__(self, meant: Iterable[tuple[str, str]]) -> None:
        """Args: what one may write, and the name to be told to whoever writes nearly that."""
        self._meant: dict[str, str] = {}
        for written, name in meant:
            self._meant.setdefault(written.casefold(), name)
        self._pairs = {written: _pairs(written) for written in self._meant}

    def suggest(self, name: str, *, without: Collection[str] = ()) -> list[str]:
        """Up to three names that are near to `name`, the nearest first; none is in `without`."""
        folded = name.casefold()
        pairs = _pairs(folded)

        def alike(written: str) -> float:
            others = self._pairs[written]
            return len(pairs & others) / (len(pairs) + len(others))

        likely = heapq.nlargest(CLOSELY_READ, self._meant, key=alike)
        near = difflib.get_close_matches(folded, likely, n=CLOSELY_READ, cutoff=0.5)
        names = dict.fromkeys(self._meant[each] for each in near)
        return [each for each in names if each not in without][:3]


def _pairs(text: str) -> frozenset[str]:
    """Of its neighbouring letters, with its ends."""
    ends = f"\n{text}\n"
    return frozenset(map("".join, pairwise(ends)))
