"""Limits as one process counts them, for itself."""

import time
from collections.abc import Callable, Sequence

from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.limiter import LimitReservation
from embedway.ratelimits.refusal import (
    Counted,
    LimitRequest,
    check_countable,
    check_possible,
    check_room,
    reservation,
    strictest,
)
from embedway.ratelimits.window import MAX_METERS, SlidingWindow, SteadyClock, WindowTable


def monotonic_ms() -> int:
    """Milliseconds on a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


class MemoryRateLimiter:
    """The limiter of `embedway.ratelimits.limiter.RateLimiter` for one process."""

    def __init__(
        self, *, now_ms: Callable[[], int] = monotonic_ms, max_meters: int = MAX_METERS
    ) -> None:
        """Takes a clock, in milliseconds since whenever, and how many meters are kept."""
        self._now_ms = SteadyClock(now_ms)
        self._windows = WindowTable(SlidingWindow, most=max_meters)

    @property
    def key_count(self) -> int:
        """That are kept."""
        return len(self._windows)

    def check(self, meters: Sequence[LimitKey], *, tokens: int, at_most: int | None = None) -> None:
        """See `embedway.ratelimits.limiter.RateLimiter.check`."""
        request = LimitRequest(meters=meters, tokens=tokens, at_most=max(at_most or 0, tokens))
        self._refuse(request, self._now_ms())

    async def reserve(self, meters: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """See `embedway.ratelimits.limiter.RateLimiter.reserve`."""
        now_ms = self._now_ms()
        request = LimitRequest(meters=strictest(meters), tokens=tokens, at_most=tokens)
        if None in self._refuse(request, now_ms):
            check_countable(request.meters, self._windows, now_ms)
        windows = [self._windows.used(meter, now_ms) for meter in request.meters]
        for meter, window in zip(request.meters, windows, strict=True):
            window.add(now_ms, meter.limit.units(tokens))
        return reservation(request, windows, now_ms=now_ms)

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """See `embedway.ratelimits.limiter.RateLimiter.settle`."""
        windows: list[SlidingWindow] = []
        for meter in reservation.meters:
            window = self._windows.get(meter) if meter.limit.of == "tokens" else None
            if window is not None and window not in windows:
                window.change(reservation.at_ms, tokens - reservation.tokens)
                windows.append(window)

    def _refuse(self, request: LimitRequest, now_ms: int) -> Counted:
        """Refuses a request without room, else returns the windows of its meters."""
        check_possible(request.meters, request.tokens)
        kept = [self._windows.get(each) for each in request.meters]
        check_room(request, kept, now_ms=now_ms)
        return kept
