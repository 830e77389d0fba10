"""Suggests known names close to a mistyped one."""

import difflib
import heapq
from collections.abc import Collection, Iterable
from itertools import pairwise

CLOSELY_READ = 12
"""The most names to compare letter by letter, which is slow, since clients choose the input."""


class NameSuggester:
    """Suggests names in bounded time, for input of hundreds of letters among hundreds of names."""

    def __init__(self, spellings: Iterable[tuple[str, str]]) -> None:
        """Know `spellings`, pairs of a spelling and the name to suggest for it."""
        self._names: dict[str, str] = {}
        for spelling, name in spellings:
            self._names.setdefault(spelling.casefold(), name)
        self._pairs = {spelling: _pairs(spelling) for spelling in self._names}

    def suggest(self, name: str, *, without: Collection[str] = ()) -> list[str]:
        """Return up to three names close to `name`, the closest first, none in `without`."""
        folded = name.casefold()
        pairs = _pairs(folded)

        def similarity(spelling: str) -> float:
            others = self._pairs[spelling]
            return len(pairs & others) / (len(pairs) + len(others))

        likely = heapq.nlargest(CLOSELY_READ, self._names, key=similarity)
        near = difflib.get_close_matches(folded, likely, n=CLOSELY_READ, cutoff=0.5)
        names = dict.fromkeys(self._names[each] for each in near)
        return [each for each in names if each not in without][:3]


def _pairs(text: str) -> frozenset[str]:
    """Return the pairs of neighbouring letters, with a mark at each end."""
    ends = f"\n{text}\n"
    return frozenset(map("".join, pairwise(ends)))
