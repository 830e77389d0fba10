"""Defines how replicas share their counts."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from embedway.ratelimits.key import LimitKey

Count = tuple[int, int]
"""What was used in a slot, and when last, in ms."""


class CountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a process asks of the count that it shares with others, and tells it."""

    meter: LimitKey
    amount: int = 0
    """To count now; 0 to count nothing and only tell."""
    own: Mapping[int, Count] = {}
    """What this process itself counted, by slot: at least that is to be known there."""
    others: Sequence[tuple[int, str, Count]] = ()
    """Likewise what it heard that other processes counted: slot, process and count. Of those that
    are no more nobody else can tell."""
    changes: Mapping[int, int] = {}
    """By how much to correct this process's counts, by slot; slots that have left are ignored."""


class CountReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the shared count answered."""

    now_ms: int
    """On its clock, which never goes back."""
    epoch: str
    """Another one once it lost what it knew."""
    replicas: int
    """Processes that were heard of lately."""
    counted: bool
    """Whether all of it was counted; else none of it was."""
    totals: Sequence[bytes] = ()
    """Of each meter, what each process counted: `SLOT:PROCESS=COUNT@LAST`, joined by commas.

    LAST is when that process last used that slot. Empty if the epoch is not the one that was asked
    in: then nothing was done.
    """


class SharedCountsUnavailable(Exception):
    """The shared count cannot be reached, or not in time."""


class SharedCounts(Protocol):
    """Counts of all processes together. It may be away, and may forget."""

    async def count(self, asks: Sequence[CountRequest], *, epoch: str, now_ms: int) -> CountReply:
        """Notes what each of `asks` tells, then counts all their amounts or none.

        Args:
            asks: Each with a meter of its own.
            epoch: That this process knows of.
            now_ms: What this process takes the time to be there: a count that starts anew does not
                start earlier.

        Raises:
            SharedCountsUnavailable: It cannot be reached. Whether it was counted is not known.
        """
        ...

    async def aclose(self) -> None:
        """Says farewell and closes the connections."""
        ...
