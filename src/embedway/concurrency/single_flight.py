"""Runs one call at a time and shares its result among all callers that wait meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

FlightResult = TypeVar("FlightResult")


class SingleFlight(Generic[FlightResult]):
    """Runs `work` at most once at a time and shares the result."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, FlightResult]]) -> None:
        self._work = work
        self._task: asyncio.Task[FlightResult] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a call is running."""
        return self._task is not None and not self._task.done()

    def start(self) -> "asyncio.Task[FlightResult]":
        """Return the running call, or start one."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return self._task

    async def wait(self) -> FlightResult:
        """Wait for the running call, or start one and wait for it."""
        # Shielded, because cancelling one waiter must not cancel the call for the others.
        return await asyncio.shield(self.start())

    async def aclose(self) -> None:
        """Cancel the running call."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
