"""Runs long work on the event loop in short turns, so that other requests need not wait for it.

A thread would not help: one call into a decoder holds the interpreter's lock for all of its time.
The steps should not release that lock either, as numpy does for arrays of more than 500 numbers: a
thread that waits for it then begins to wait anew, and requests that need a thread are held up.
"""

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

TURN_S = 0.0005
"""How long all work in turns together may hold the event loop before the others get it."""

T = TypeVar("T")

_running = 0
"""How many pieces of work take turns now. They share `TURN_S`."""


async def run_in_turns(steps: Generator[None, None, T]) -> T:
    """Run `steps`, which yields often, and return what it returns.

    No step should take longer than `TURN_S`. What `steps` raises is passed on.
    """
    global _running  # noqa: PLW0603  # one event loop a process
    _running += 1
    try:
        while True:
            ends_s = time.perf_counter() + TURN_S / _running
            while time.perf_counter() < ends_s:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
            await asyncio.sleep(0)
    finally:
        _running -= 1
        steps.close()
