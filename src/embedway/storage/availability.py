"""Tracks whether the database can be read and committed to.

It logs the start and the end of an outage, so that the requests that fail in between need no log
line of their own.
"""

import threading
from collections.abc import Callable
from typing import Literal

import structlog

Use = Literal["read", "commit"]
OnOutage = Callable[[str | None], None]
"""Receives the reason when an outage begins, and None when it ends, in any thread."""

_log = structlog.get_logger("embedway.storage")


class DatabaseAvailability:
    """The state of one database. Any thread may report to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[Use] = set()
        self.on_outage: OnOutage = lambda _reason: None
        """Called when an outage begins or ends. Set it before the database is used."""

    @property
    def is_available(self) -> bool:
        """Whether no use of the database fails, as far as is known."""
        return not self._failing

    @property
    def commits_fail(self) -> bool:
        """Whether the last commit failed."""
        return "commit" in self._failing

    def record_failure(self, use: Use, reason: str) -> None:
        """Record that the database failed; `reason` must not contain user data."""
        with self._lock:
            was_working = not self._failing
            self._failing.add(use)
        if was_working:
            _log.error("database unavailable", use=use, reason=reason)
            self.on_outage(reason)

    def record_success(self, use: Use) -> None:
        """Record that the database worked."""
        if use not in self._failing:
            return
        with self._lock:
            self._failing.discard(use)
            is_back = not self._failing
        if is_back:
            _log.info("database available again")
            self.on_outage(None)
