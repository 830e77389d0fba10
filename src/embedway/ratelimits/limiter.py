"""Defines what a rate limiter counts and does, in one process or across several."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from embedway.core.limit import Limit
from embedway.core.subject import Subject


class LimitKey(msgspec.Struct, frozen=True, kw_only=True):
    """A subject and one of its limits.

    Keys that differ only in the limit's amount share one count.
    """

    subject: Subject
    limit: Limit


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a limit after a request was counted or refused."""

    limit: Limit
    remaining: int
    """How many requests or tokens are left now."""
    reset_s: float
    """Seconds until the whole limit is available again, if nothing else is sent."""


class LimitReservation(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted for one request."""

    limit_keys: Sequence[LimitKey]
    tokens: int
    at_ms: int
    """When the request was counted, in ms on the limiter's own clock."""
    statuses: Sequence[LimitStatus]
    """The state of each limit after counting this request, in the order of `limit_keys`."""


class RateLimiter(Protocol):
    """Counts requests and tokens against limits. All requests share one limiter."""

    def check(
        self, limit_keys: Sequence[LimitKey], *, tokens: int, max_tokens: int | None = None
    ) -> None:
        """Refuse a request that `reserve` is known to refuse, without I/O or counting it.

        Args:
            limit_keys: All limits that apply to the request.
            tokens: The fewest tokens the request can have.
            max_tokens: The most tokens it can have, if known. A refused client is told to wait
                until there is room for this many.

        Raises:
            RateLimitExceeded: A limit has no room for it.
        """
        ...

    async def reserve(self, limit_keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Count one request of `tokens` against all limits or, if one has no room, against none.

        Raises:
            RateLimitExceeded: A limit has no room; the error says when it will have.
        """
        ...

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Replace the reserved tokens with `tokens`, which may be more or fewer."""
        ...
