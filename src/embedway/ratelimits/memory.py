"""Limits as one process counts them, for itself."""

import time
from collections.abc import Callable, Sequence

from embedway.ratelimits.key import Meter
from embedway.ratelimits.limiter import Reservation
from embedway.ratelimits.refusal import (
    Counted,
    Request,
    refuse_full,
    refuse_never,
    refuse_uncountable,
    reservation,
    strictest,
)
from embedway.ratelimits.window import MAX_METERS, Steady, Window, Windows


def monotonic_ms() -> int:
    """Milliseconds on a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


class MemoryLimiter:
    """The limiter of `embedway.ratelimits.limiter.Limiter` for one process."""

    def __init__(
        self, *, now_ms: Callable[[], int] = monotonic_ms, max_meters: int = MAX_METERS
    ) -> None:
        """Takes a clock, in milliseconds since whenever, and how many meters are kept."""
        self._now_ms = Steady(now_ms)
        self._windows = Windows(Window, most=max_meters)

    @property
    def meters(self) -> int:
        """That are kept."""
        return len(self._windows)

    def check(self, meters: Sequence[Meter], *, tokens: int, at_most: int | None = None) -> None:
        """See `embedway.ratelimits.limiter.Limiter.check`."""
        request = Request(meters=meters, tokens=tokens, at_most=max(at_most or 0, tokens))
        self._refuse(request, self._now_ms())

    async def reserve(self, meters: Sequence[Meter], *, tokens: int) -> Reservation:
        """See `embedway.ratelimits.limiter.Limiter.reserve`."""
        now_ms = self._now_ms()
        request = Request(meters=strictest(meters), tokens=tokens, at_most=tokens)
        if None in self._refuse(request, now_ms):
            refuse_uncountable(request.meters, self._windows, now_ms)
        windows = [self._windows.used(meter, now_ms) for meter in request.meters]
        for meter, window in zip(request.meters, windows, strict=True):
            window.add(now_ms, meter.limit.asked(tokens))
        return reservation(request, windows, now_ms=now_ms)

    def settle(self, reservation: Reservation, *, tokens: int) -> None:
        """See `embedway.ratelimits.limiter.Limiter.settle`."""
        windows: list[Window] = []
        for meter in reservation.meters:
            window = self._windows.get(meter) if meter.limit.of == "tokens" else None
            if window is not None and window not in windows:
                window.change(reservation.at_ms, tokens - reservation.tokens)
                windows.append(window)

    def _refuse(self, request: Request, now_ms: int) -> Counted:
        """Refuses a request without room, else returns the windows of its meters."""
        refuse_never(request.meters, request.tokens)
        kept = [self._windows.get(each) for each in request.meters]
        refuse_full(request, kept, now_ms=now_ms)
        return kept
