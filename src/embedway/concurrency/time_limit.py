"""A limit on how long work may take, the same for all work.

It is `asyncio.timeout` for what begins thousands of times a second: one timer serves all, where
`asyncio.timeout` starts and stops one each time.
"""

import asyncio
from typing import cast


class TimeLimit:
    """Limits each piece of work to the same number of seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[_Limited, None] = {}
        """What is under way, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> "_Limited":
        """Return a context that cancels the work inside it when its time is over.

        The context then raises `TimeoutError`. Enter it at once, in the task that does the work.
        """
        return _Limited(self)

    def begin(self, work: "_Limited") -> None:
        """Watch a piece of work from now on."""
        loop = asyncio.get_running_loop()
        work.due_s = loop.time() + self.seconds
        self._running[work] = None
        if self._timer is None:
            self._timer = loop.call_at(work.due_s, self._check, loop)

    def end(self, work: "_Limited") -> None:
        """Stop watching a piece of work."""
        self._running.pop(work, None)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is due, and come back when the next is."""
        self._timer = None
        now_s = loop.time()
        for work in list(self._running):
            if work.due_s > now_s:
                self._timer = loop.call_at(work.due_s, self._check, loop)
                return
            self.end(work)
            work.expire()


class _Limited:
    """One piece of work with a limit."""

    __slots__ = ("_cancellations", "_has_expired", "_limit", "_task", "due_s")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._has_expired = False
        self.due_s = 0.0
        """When its time is over, on the loop's clock."""

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancellations = self._task.cancelling()
        self._limit.begin(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._limit.end(self)
        if self._has_expired:
            # If somebody else cancelled the task as well, that goes on.
            left = self._task.uncancel()
            if left <= self._cancellations and kind is asyncio.CancelledError:
                raise TimeoutError

    def expire(self) -> None:
        """Cancel the work."""
        self._has_expired = True
        self._task.cancel()
