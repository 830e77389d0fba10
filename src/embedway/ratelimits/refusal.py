"""How limits stand, and what a request is told for which one has no room."""

import math
from collections.abc import Sequence
from typing import Any

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
from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.limiter import LimitReservation
from embedway.ratelimits.status import LimitStatus
from embedway.ratelimits.window import SlidingWindow, WindowTable

Counted = Sequence[SlidingWindow | None]
"""The windows of meters; None of those that counted nothing."""
EMPTY = SlidingWindow("second")
RETRY_MS = 1000
"""After which a process that has only its share of a limit may have all of it again."""


class LimitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be counted."""

    meters: Sequence[LimitKey]
    tokens: int
    """That it has at least."""
    at_most: int
    """That it has at most: when there is room for so many, it is let in."""


def check_possible(meters: Sequence[LimitKey], tokens: int) -> None:
    """Refuses a request that alone is more than a limit allows.

    Raises:
        RateLimitExceeded: So it is.
    """
    for meter in meters:
        if meter.limit.units(tokens) > meter.limit.amount:
            raise TokenRateLimitExceeded(
                f"{_whose(meter.subject)} may send {meter.limit}, and this request alone has more. "
                "Send fewer items.",
                never=True,
            )


def check_room(request: LimitRequest, windows: Counted, *, now_ms: int, replicas: int = 1) -> None:
    """Refuses a request for which there is no room in all of `windows`, those of its meters.

    Args:
        request: With no more tokens than the least of its limits.
        windows: What was counted.
        now_ms: On the clock of the windows.
        replicas: By how many processes each limit is shared, each for itself.

    Raises:
        RateLimitExceeded: So it is.
    """
    for meter, window in zip(request.meters, windows, strict=True):
        limit = meter.limit
        asked = limit.units(request.tokens)
        if not asked:
            continue
        amount = process_share(limit, replicas)
        if asked > amount or (
            window is not None and window.wait_ms(asked, amount=amount, now_ms=now_ms)
        ):
            raise limit_error(request, windows, now_ms=now_ms, replicas=replicas)


def check_countable(meters: Sequence[LimitKey], windows: WindowTable[Any], now_ms: int) -> None:
    """Refuses a request for which `windows` has no room: what is not counted is not limited.

    Raises:
        ServiceOverloaded: So it is.
    """
    for meter in meters:
        if not windows.has_room(meter, now_ms):
            raise ServiceOverloaded(
                f"The project {meter.subject.project_id} has sent so many different end users that "
                "this gateway cannot count the limits of another one. Send ids of real end users, "
                "and limit these per minute or hour instead of per day, so that they are counted "
                "for a shorter time."
            )


def process_share(limit: Limit, replicas: int) -> int:
    """What one of so many processes may let in for itself."""
    return limit.amount if replicas == 1 else max(limit.amount // replicas, 1)


def limit_statuses(
    meters: Sequence[LimitKey], windows: Counted, *, now_ms: int, replicas: int = 1
) -> list[LimitStatus]:
    """How the limit of each of `meters` stands."""
    standings: list[LimitStatus] = []
    for meter, window in zip(meters, windows, strict=True):
        limit = meter.limit
        counted = EMPTY if window is None else window
        counted.forget(now_ms)
        standings.append(
            LimitStatus(
                limit=limit,
                remaining=max(process_share(limit, replicas) - counted.total, 0),
                reset_s=counted.reset_ms(now_ms) / 1000,
            )
        )
    return standings


def reservation(
    request: LimitRequest, windows: Counted, *, now_ms: int, replicas: int = 1
) -> LimitReservation:
    """What is told of a request that is counted in `windows`."""
    return LimitReservation(
        meters=request.meters,
        tokens=request.tokens,
        at_ms=now_ms,
        statuses=limit_statuses(request.meters, windows, now_ms=now_ms, replicas=replicas),
    )


def strictest(meters: Sequence[LimitKey]) -> Sequence[LimitKey]:
    """Keep the least of limits that differ only in their amount, for they share one count."""
    least: dict[tuple[Subject, LimitUnit, LimitPeriod], LimitKey] = {}
    for meter in meters:
        name = (meter.subject, meter.limit.of, meter.limit.per)
        known = least.get(name)
        if known is None or meter.limit.amount < known.limit.amount:
            least[name] = meter
    return list(least.values())


def limit_error(
    request: LimitRequest, windows: Counted, *, now_ms: int, replicas: int = 1
) -> RateLimitExceeded:
    """What a request is told for which there is no room; see `refuse_full`."""
    standings = limit_statuses(request.meters, windows, now_ms=now_ms, replicas=replicas)
    waits_ms = [
        _wait_ms(request, meter, window, now_ms=now_ms, replicas=replicas)
        for meter, window in zip(request.meters, windows, strict=True)
    ]
    wait_ms = max(waits_ms)
    longest = waits_ms.index(wait_ms)
    meter, left = request.meters[longest], standings[longest].remaining
    some = f"has {left} left, too few for this request" if left else "has used them all"
    kind = TokenRateLimitExceeded if meter.limit.of == "tokens" else RateLimitExceeded
    return kind(
        f"{_whose(meter.subject)} may send {meter.limit}, and {some}. "
        f"Try again in {math.ceil(wait_ms / 100) / 10:g} s.",
        retry_after_s=wait_ms / 1000,
        headers=dict(rate_limit_headers(standings)),
    )


def _wait_ms(
    request: LimitRequest,
    meter: LimitKey,
    window: SlidingWindow | None,
    *,
    now_ms: int,
    replicas: int,
) -> int:
    limit = meter.limit
    amount = process_share(limit, replicas)
    if limit.units(request.tokens) > amount:
        # More than this process has of it: nobody knows when it has all of it again.
        return RETRY_MS
    asked = min(limit.units(request.at_most), amount)
    if window is None:
        return 0
    return window.wait_ms(asked, amount=amount, now_ms=now_ms)


def _whose(subject: Subject) -> str:
    name = quote_value(subject.id) if subject.kind == "end user" else subject.id
    return f"The {subject.kind} {name}"
