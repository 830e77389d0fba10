"""Runs an event loop on which hours pass in seconds: when it has nothing to do, its clock jumps.

Code on this loop may wait for timers and other tasks, but not for threads or sockets, because
nothing would wake the loop for them.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

START_S = 1_000_000.0
"""The loop's time at its start; not 0, which code might take for "never"."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock."""

    def __init__(self) -> None:
        self._now_s = START_S
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Set the clock ahead."""
        self._now_s += seconds


class _Jump(selectors.SelectSelector):
    """Jumps over every wait."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("Everything waits for something that is not on this loop.")
        self._loop.jump(max(timeout, 0.0))
        return []


def run(
    main: Coroutine[Any, Any, Result],
    *,
    loop_factory: Callable[[], VirtualTimeLoop] = VirtualTimeLoop,
) -> Result:
    """Run `main` to its end in virtual time and return its result."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
