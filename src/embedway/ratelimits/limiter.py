"""Defines what a rate limiter does, in one process or across several."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.status import LimitStatus


class LimitReservation(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted for one request."""

    meters: Sequence[LimitKey]
    tokens: int
    at_ms: int
    """When, on the limiter's own clock; for whoever settles it."""
    statuses: Sequence[LimitStatus]
    """Of each meter, this request counted."""


class RateLimiter(Protocol):
    """Counts what each meter's subject asks for; shared by all requests."""

    def check(self, meters: Sequence[LimitKey], *, tokens: int, at_most: int | None = None) -> None:
        """Refuses, without any I/O, what `reserve` is known to refuse; counts nothing.

        Args:
            meters: All that the request is subject to.
            tokens: That it has at least.
            at_most: That it has at most, if that is known: a client that is refused is told to wait
                until there is room for so many.

        Raises:
            RateLimitExceeded: A limit has no room for it.
        """
        ...

    async def reserve(self, meters: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Counts one request of `tokens` with all meters, or, if one has no room, with none.

        Raises:
            RateLimitExceeded: A limit has no room for it; it says when there will be.
        """
        ...

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Counts `tokens`, more or fewer, in place of those that were reserved."""
        ...
