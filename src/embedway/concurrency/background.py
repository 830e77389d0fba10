"""Runs background tasks that shutdown waits for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Done = TypeVar("Done")


def retrieve_error(future: asyncio.Future[Any]) -> None:
    """Mark the error of a future as seen; asyncio would report it if all who wait have left."""
    if not future.cancelled():
        future.exception()


class BackgroundTasks:
    """Tasks that run on after the code that scheduled them has returned."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def schedule(self, work: Coroutine[Any, Any, Done]) -> asyncio.Task[Done]:
        """Run `work` in the background; `close` waits for it."""
        task = asyncio.ensure_future(work)
        # The event loop keeps no strong reference: the task could be garbage collected.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait for all tasks, including those scheduled meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
