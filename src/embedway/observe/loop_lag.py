"""Measures how late the event loop runs timers, which is how long it blocks requests."""

import asyncio
import time
from collections.abc import Callable

EVERY_S = 0.5
"""The time between two measurements, in seconds. Each takes microseconds."""


class LoopLagMeter:
    """Sets one timer after another on the running event loop, until it is closed."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        """Begin. `observe` gets the lag of each timer in seconds."""
        self._observe = observe
        self._schedule()

    def close(self) -> None:
        """Stop measuring."""
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due_s = time.monotonic() + EVERY_S
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._measure)

    def _measure(self) -> None:
        # The loop counts whole milliseconds, so a timer may run a little early.
        self._observe(max(0.0, time.monotonic() - self._due_s))
        self._schedule()
