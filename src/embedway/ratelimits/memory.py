"""Rate limits of a single process."""

import time
from collections.abc import Callable, Sequence

from embedway.ratelimits.limiter import LimitKey, LimitReservation
from embedway.ratelimits.refusal import (
    LimitRequest,
    Windows,
    check_countable,
    check_possible,
    check_room,
    keep_strictest,
    make_reservation,
)
from embedway.ratelimits.window import MAX_WINDOWS, SlidingWindow, SteadyClock, WindowTable


def monotonic_ms() -> int:
    """Return the time of a monotonic clock, in ms. All processes of a machine read it alike."""
    return time.monotonic_ns() // 1_000_000


class MemoryRateLimiter:
    """A `RateLimiter` for a single process."""

    def __init__(
        self, *, now_ms: Callable[[], int] = monotonic_ms, max_windows: int = MAX_WINDOWS
    ) -> None:
        """Start with nothing counted, and keep at most `max_windows` windows of end users.

        `now_ms` is a clock in ms, from any starting point.
        """
        self._now_ms = SteadyClock(now_ms)
        self._windows = WindowTable(SlidingWindow, max_windows=max_windows)

    @property
    def window_count(self) -> int:
        """How many windows are kept."""
        return len(self._windows)

    def check(
        self, limit_keys: Sequence[LimitKey], *, tokens: int, max_tokens: int | None = None
    ) -> None:
        """Refuse a request that has no room; `RateLimiter.check` explains the arguments."""
        request = LimitRequest(limit_keys=limit_keys, tokens=tokens, max_tokens=max_tokens)
        self._check(request, self._now_ms())

    async def reserve(self, limit_keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Count a request; `RateLimiter.reserve` explains the arguments."""
        now_ms = self._now_ms()
        request = LimitRequest(limit_keys=keep_strictest(limit_keys), tokens=tokens)
        if None in self._check(request, now_ms):
            check_countable(request.limit_keys, self._windows, now_ms)
        windows = [self._windows.get_or_create(each, now_ms) for each in request.limit_keys]
        for key, window in zip(request.limit_keys, windows, strict=True):
            window.add(now_ms, key.limit.units(tokens))
        return make_reservation(request, windows, now_ms=now_ms)

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Correct a reservation's tokens; `RateLimiter.settle` explains the arguments."""
        windows: list[SlidingWindow] = []
        for key in reservation.limit_keys:
            window = self._windows.get(key) if key.limit.of == "tokens" else None
            if window is not None and window not in windows:
                window.change(reservation.at_ms, tokens - reservation.tokens)
                windows.append(window)

    def _check(self, request: LimitRequest, now_ms: int) -> Windows:
        """Refuse a request that has no room, or return the windows of its limits."""
        check_possible(request.limit_keys, request.tokens)
        windows = [self._windows.get(each) for each in request.limit_keys]
        check_room(request, windows, now_ms=now_ms)
        return windows
