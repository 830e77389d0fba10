"""Defines the count that replicas share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from embedway.ratelimits.limiter import LimitKey

Count = tuple[int, int]
"""How much was used in a slot, and when it was last used, in ms."""


class CountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a process reports about one limit, and what it wants counted against it."""

    limit_key: LimitKey
    amount: int = 0
    """How much to count now; 0 only reports."""
    own_counts: Mapping[int, Count] = {}
    """What this process counted, by slot. The shared count is raised to at least this."""
    other_counts: Sequence[tuple[int, str, Count]] = ()
    """What other processes counted, as (slot, process, count). The shared count is raised to at
    least this too, because processes that have stopped cannot report it themselves."""
    corrections: Mapping[int, int] = {}
    """How much to add to this process's counts, by slot. Expired slots are ignored."""


class CountReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of the shared count."""

    now_ms: int
    """The time on the shared clock, which never goes back."""
    epoch: str
    """Identifies the shared count. It changes when the count is lost."""
    replicas: int
    """How many processes reported recently."""
    is_counted: bool
    """Whether everything was counted; if not, nothing was."""
    totals: Sequence[bytes] = ()
    """For each limit, what each process counted: `SLOT:PROCESS=COUNT@LAST`, joined by commas.

    LAST is when the process last used the slot, in ms. If the epoch is not the requested one,
    nothing was done and this is empty.
    """


class SharedCountsUnavailable(Exception):
    """The shared count did not answer, or not in time."""


class SharedCounts(Protocol):
    """Counts the use of all processes together. It may be unreachable and may lose its data."""

    async def count(
        self, requests: Sequence[CountRequest], *, epoch: str, now_ms: int
    ) -> CountReply:
        """Store what each request reports, then count all their amounts or none.

        Args:
            requests: One for each limit, at most.
            epoch: The epoch that this process knows.
            now_ms: What this process believes to be the time on the shared clock. A new count
                starts no earlier.

        Raises:
            SharedCountsUnavailable: It cannot be reached. It may or may not have counted.
        """
        ...

    async def aclose(self) -> None:
        """Sign off this process and close the connections."""
        ...
