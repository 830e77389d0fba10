"""An event loop on which hours pass in seconds: where nobody is ready, the clock jumps ahead.

What runs on it may wait for timers and for other tasks, but for no thread and no socket: nothing
would tell the loop that these are ready.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Told = TypeVar("Told")

START_S = 1_000_000.0
"""On the loop's clock; not 0, which might be taken for never."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is its own."""

    def __init__(self) -> None:
        self._now_s = START_S
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds, most of which never passed."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Sets the clock ahead."""
        self._now_s += seconds


class _Jump(selectors.SelectSelector):
    """Does not wait for anything to be ready, but jumps over the wait."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("Everything waits for something that is not on this loop.")
        self._loop.jump(max(timeout, 0.0))
        return []


def run(main: Coroutine[Any, Any, Told]) -> Told:
    """What `main` returns, run to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
