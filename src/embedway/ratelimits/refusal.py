"""Decides whether limits have room for a request, and explains a refusal."""

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from embedway.core.errors import (
    RateLimitExceeded,
    ServiceOverloaded,
    TokenRateLimitExceeded,
    quote_value,
)
from embedway.core.limit import Limit, LimitPeriod, LimitUnit
from embedway.core.subject import Subject
from embedway.ratelimits.headers import rate_limit_headers
from embedway.ratelimits.limiter import LimitKey, LimitReservation, LimitStatus
from embedway.ratelimits.window import SlidingWindow

Windows = Sequence[SlidingWindow | None]
"""One window for each limit of a request; None where nothing was counted."""
RETRY_MS = 1000
"""The wait to announce for a request that exceeds this process's share of a limit."""

_EMPTY = SlidingWindow("second")


class LimitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to count for a request."""

    limit_keys: Sequence[LimitKey]
    tokens: int
    """The fewest tokens the request can have."""
    max_tokens: int | None = None
    """The most tokens it can have, if known. Once there is room for this many, it is let in."""


def check_possible(limit_keys: Sequence[LimitKey], tokens: int) -> None:
    """Refuse a request that is larger than a whole limit.

    Raises:
        RateLimitExceeded: The request can never be let in.
    """
    for key in limit_keys:
        if key.limit.units(tokens) > key.limit.amount:
            raise TokenRateLimitExceeded(
                f"{_subject_name(key.subject)} may send {key.limit}, and this request "
                "alone has more. Send fewer items.",
                never=True,
            )


def check_room(request: LimitRequest, windows: Windows, *, now_ms: int, replicas: int = 1) -> None:
    """Refuse a request for which one of its limits has no room.

    Args:
        request: A request that passed `check_possible`.
        windows: The window of each of its limits.
        now_ms: The time on the clock of the windows.
        replicas: How many processes split each limit into shares; 1 if it is not split.

    Raises:
        RateLimitExceeded: A limit has no room.
    """
    for key, window in zip(request.limit_keys, windows, strict=True):
        limit = key.limit
        units = limit.units(request.tokens)
        if not units:
            continue
        amount = _process_share(limit, replicas)
        if units > amount or (
            window is not None and window.wait_ms(units, amount=amount, now_ms=now_ms)
        ):
            raise limit_error(request, windows, now_ms=now_ms, replicas=replicas)


class HasRoom(Protocol):
    """Keeps windows, of which there are only so many."""

    def has_room(self, key: LimitKey, now_ms: int) -> bool:
        """Whether the limit has a window or can get one."""
        ...


def check_countable(limit_keys: Sequence[LimitKey], windows: HasRoom, now_ms: int) -> None:
    """Refuse a request for which there are too many windows already.

    Raises:
        ServiceOverloaded: The request cannot be counted.
    """
    for key in limit_keys:
        if not windows.has_room(key, now_ms):
            raise ServiceOverloaded(
                f"The project {key.subject.project_id} has sent so many different end users "
                "that this gateway cannot count the limits of another one. Send ids of real end "
                "users, and limit these per minute or hour instead of per day, so that they are "
                "counted for a shorter time."
            )


def _process_share(limit: Limit, replicas: int) -> int:
    return limit.amount if replicas == 1 else max(limit.amount // replicas, 1)


def _limit_statuses(
    limit_keys: Sequence[LimitKey], windows: Windows, *, now_ms: int, replicas: int = 1
) -> list[LimitStatus]:
    statuses: list[LimitStatus] = []
    for key, window in zip(limit_keys, windows, strict=True):
        limit = key.limit
        counted = _EMPTY if window is None else window
        counted.forget(now_ms)
        statuses.append(
            LimitStatus(
                limit=limit,
                remaining=max(_process_share(limit, replicas) - counted.total, 0),
                reset_s=counted.reset_ms(now_ms) / 1000,
            )
        )
    return statuses


def make_reservation(
    request: LimitRequest, windows: Windows, *, now_ms: int, replicas: int = 1
) -> LimitReservation:
    """Return the reservation of a request that is counted in `windows`."""
    return LimitReservation(
        limit_keys=request.limit_keys,
        tokens=request.tokens,
        at_ms=now_ms,
        statuses=_limit_statuses(request.limit_keys, windows, now_ms=now_ms, replicas=replicas),
    )


def keep_strictest(limit_keys: Sequence[LimitKey]) -> Sequence[LimitKey]:
    """Keep the strictest of limits that differ only in their amount, because they share a count."""
    strictest: dict[tuple[Subject, LimitUnit, LimitPeriod], LimitKey] = {}
    for key in limit_keys:
        name = (key.subject, key.limit.of, key.limit.per)
        known = strictest.get(name)
        if known is None or key.limit.amount < known.limit.amount:
            strictest[name] = key
    return list(strictest.values())


def limit_error(
    request: LimitRequest, windows: Windows, *, now_ms: int, replicas: int = 1
) -> RateLimitExceeded:
    """Return the error that `check_room` raises, with the wait and the headers."""
    statuses = _limit_statuses(request.limit_keys, windows, now_ms=now_ms, replicas=replicas)
    waits_ms = [
        _wait_ms(request, key, window, now_ms=now_ms, replicas=replicas)
        for key, window in zip(request.limit_keys, windows, strict=True)
    ]
    wait_ms = max(waits_ms)
    longest = waits_ms.index(wait_ms)
    key, left = request.limit_keys[longest], statuses[longest].remaining
    shortage = f"has {left} left, too few for this request" if left else "has used them all"
    kind = TokenRateLimitExceeded if key.limit.of == "tokens" else RateLimitExceeded
    return kind(
        f"{_subject_name(key.subject)} may send {key.limit}, and {shortage}. "
        f"Try again in {math.ceil(wait_ms / 100) / 10:g} s.",
        retry_after_s=wait_ms / 1000,
        headers=dict(rate_limit_headers(statuses)),
    )


def _wait_ms(
    request: LimitRequest,
    key: LimitKey,
    window: SlidingWindow | None,
    *,
    now_ms: int,
    replicas: int,
) -> int:
    limit = key.limit
    amount = _process_share(limit, replicas)
    if limit.units(request.tokens) > amount:
        # It fits the whole limit but not this process's share, and when that ends is unknown.
        return RETRY_MS
    if window is None:
        return 0
    most_tokens = max(request.max_tokens or 0, request.tokens)
    units = min(limit.units(most_tokens), amount)
    return window.wait_ms(units, amount=amount, now_ms=now_ms)


def _subject_name(subject: Subject) -> str:
    name = quote_value(subject.id) if subject.kind == "end user" else subject.id
    return f"The {subject.kind} {name}"
