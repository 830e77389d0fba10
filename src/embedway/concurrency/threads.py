"""Starts threads, and tells and passes the time in them.

Code that runs in threads of its own takes these as a value, so that a simulation can run it without
threads, on its own clock.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Thread(Protocol):
    """A thread that was started."""

    def is_alive(self) -> bool:
        """Return whether it runs."""
        ...

    def join(self) -> None:
        """Wait for its end."""
        ...


class Condition(Protocol):
    """A lock on which threads can wait for a change; like `threading.Condition`."""

    def __enter__(self) -> bool:
        """Take the lock."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Return the lock."""
        ...

    def wait(self) -> bool:
        """Return the lock, wait for `notify`, and take the lock again."""
        ...

    def notify(self) -> None:
        """Wake one thread that waits."""
        ...


class Threads:
    """The threads of the operating system."""

    def start(self, run: Callable[[], None], *, name: str) -> Thread:
        """Call `run` in a new thread, which does not keep the process alive."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def condition(self) -> Condition:
        """Return a new condition."""
        return threading.Condition()

    def now_s(self) -> float:
        """Return the time of a monotonic clock, in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)


THREADS = Threads()
