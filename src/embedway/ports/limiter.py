"""What the pipeline needs of whoever counts requests and tokens, and what that needs of a store."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from embedway.core.limits import Meter, Standing


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted for one request."""

    meters: Sequence[Meter]
    tokens: int
    at_ms: int
    """When, on the limiter's own clock; for whoever settles it."""
    standings: Sequence[Standing]
    """Of each meter, this request counted."""


class Limiter(Protocol):
    """Counts what each meter's subject asks for; shared by all requests."""

    def check(self, meters: Sequence[Meter], *, tokens: int, at_most: int | None = None) -> None:
        """Refuses, without any I/O, what `reserve` is known to refuse; counts nothing.

        Args:
            meters: All that the request is subject to.
            tokens: That it has at least.
            at_most: That it has at most, if that is known: a client that is refused is told to wait
                until there is room for so many.

        Raises:
            RateLimited: A limit has no room for it.
        """
        ...

    async def reserve(self, meters: Sequence[Meter], *, tokens: int) -> Reservation:
        """Counts one request of `tokens` with all meters, or, if one has no room, with none.

        Raises:
            RateLimited: A limit has no room for it; it says when there will be.
        """
        ...

    def settle(self, reservation: Reservation, *, tokens: int) -> None:
        """Counts `tokens`, more or fewer, in place of those that were reserved."""
        ...


Count = tuple[int, int]
"""What was used in a slot, and when last, in ms."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a process asks of the count that it shares with others, and tells it."""

    meter: Meter
    amount: int = 0
    """To count now; 0 to count nothing and only tell."""
    own: Mapping[int, Count] = {}
    """What this process itself counted, by slot: at least that is to be known there."""
    others: Sequence[tuple[int, str, Count]] = ()
    """Likewise what it heard that other processes counted: slot, process and count. Of those that
    are no more nobody else can tell."""
    changes: Mapping[int, int] = {}
    """By how much to correct this process's counts, by slot; slots that have left are ignored."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
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


class SharedCountsAway(Exception):
    """The shared count cannot be reached, or not in time."""


class SharedCounts(Protocol):
    """Counts of all processes together. It may be away, and may forget."""

    async def count(self, asks: Sequence[Ask], *, epoch: str, now_ms: int) -> Told:
        """Notes what each of `asks` tells, then counts all their amounts or none.

        Args:
            asks: Each with a meter of its own.
            epoch: That this process knows of.
            now_ms: What this process takes the time to be there: a count that starts anew does not
                start earlier.

        Raises:
            SharedCountsAway: It cannot be reached. Whether it was counted is not known.
        """
        ...

    async def aclose(self) -> None:
        """Says farewell and closes the connections."""
        ...
