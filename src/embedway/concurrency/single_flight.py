"""Runs one call at a time and shares it with everyone who asks meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

FlightResult = TypeVar("FlightResult")


class SingleFlight(Generic[FlightResult]):
    """Runs `work` at most once at a time."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, FlightResult]]) -> None:
        self._work = work
        self._task: asyncio.Task[FlightResult] | None = None

    @property
    def running(self) -> bool:
        """Whether a call is under way."""
        return self._task is not None and not self._task.done()

    def start(self) -> "asyncio.Task[FlightResult]":
        """Start a call, unless one is under way; return the one that is."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return self._task

    async def wait(self) -> FlightResult:
        """Wait for the call under way, or for a new one."""
        # Shielded, because whoever stops waiting must not end the call of the others.
        return await asyncio.shield(self.start())

    async def aclose(self) -> None:
        """Cancel the call under way."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
