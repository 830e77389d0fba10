"""Rate limits that all worker processes of one gateway count together, in shared memory."""

from collections.abc import Callable, Sequence

from embedway.core.errors import RateLimitExceeded
from embedway.ratelimits.limiter import LimitKey, LimitReservation
from embedway.ratelimits.memory import monotonic_ms
from embedway.ratelimits.refusal import (
    LimitRequest,
    check_countable,
    check_possible,
    check_room,
    keep_strictest,
    make_reservation,
)
from embedway.ratelimits.shared_windows import SharedWindows
from embedway.ratelimits.window import MAX_WINDOWS


class WorkersRateLimiter:
    """A `RateLimiter` for several processes of one machine, which together stay within limits."""

    def __init__(
        self,
        memory: int,
        *,
        now_ms: Callable[[], int] = monotonic_ms,
        max_windows: int = MAX_WINDOWS,
    ) -> None:
        """Count in the memory with this descriptor; `SharedWindows` explains the arguments."""
        self._windows = SharedWindows(memory, now_ms=now_ms, max_windows=max_windows)

    @property
    def window_count(self) -> int:
        """How many windows are kept."""
        return len(self._windows)

    def check(
        self, limit_keys: Sequence[LimitKey], *, tokens: int, max_tokens: int | None = None
    ) -> None:
        """Refuse a request that has no room; `RateLimiter.check` explains the arguments."""
        check_possible(limit_keys, tokens)
        request = LimitRequest(limit_keys=limit_keys, tokens=tokens, max_tokens=max_tokens)
        windows, now_ms = self._windows.peek(limit_keys)
        try:
            check_room(request, windows, now_ms=now_ms)
        except RateLimitExceeded:
            # Another process may have been changing what was read, so look again.
            with self._windows.locked() as now_ms:
                windows = [self._windows.get(key) for key in limit_keys]
            check_room(request, windows, now_ms=now_ms)

    async def reserve(self, limit_keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Count a request; `RateLimiter.reserve` explains the arguments."""
        request = LimitRequest(limit_keys=keep_strictest(limit_keys), tokens=tokens)
        keys, shared = request.limit_keys, self._windows
        with shared.locked() as now_ms:
            check_possible(keys, tokens)
            records = [shared.find(key) for key in keys]
            windows = [
                shared.load(record, key) if record else None
                for record, key in zip(records, keys, strict=True)
            ]
            check_room(request, windows, now_ms=now_ms)
            if not all(records):
                shared.drop_idle(now_ms)
                check_countable(keys, shared, now_ms)
                records = [shared.find(key) or shared.create(key, now_ms) for key in keys]
            changed = [
                (record, key, window or shared.load(record, key))
                for record, key, window in zip(records, keys, windows, strict=True)
            ]
            for _, key, window in changed:
                window.add(now_ms, key.limit.units(tokens))
            shared.save(changed, now_ms)
        return make_reservation(request, [window for *_, window in changed], now_ms=now_ms)

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Correct a reservation's tokens; `RateLimiter.settle` explains the arguments."""
        keys = [key for key in reservation.limit_keys if key.limit.of == "tokens"]
        if not keys or tokens == reservation.tokens:
            return
        shared = self._windows
        with shared.locked() as now_ms:
            changed = [
                (record, key, shared.load(record, key))
                for key in keys
                if (record := shared.find(key))
            ]
            for *_, window in changed:
                window.change(reservation.at_ms, tokens - reservation.tokens)
            shared.save(changed, now_ms)
