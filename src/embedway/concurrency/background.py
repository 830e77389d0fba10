"""Runs tasks in the background that shutdown waits for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Done = TypeVar("Done")


class BackgroundTasks:
    """Tasks that nobody else needs to keep or wait for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def schedule(self, work: Coroutine[Any, Any, Done]) -> asyncio.Task[Done]:
        """Run `work` in the background, to its end."""
        task = asyncio.ensure_future(work)
        # The event loop alone would let a running task be garbage collected.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait for all tasks, and for those that they schedule meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
