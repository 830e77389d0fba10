"""Whether the database can be used, as the last attempts to read it and to commit show.

Owns the two log events of an outage, one when the database goes and one when it is back, so that
none of the requests that fail meanwhile logs a line of its own.
"""

import threading
from typing import Literal

import structlog

Use = Literal["read", "commit"]

_log = structlog.get_logger("embedway.storage")


class DatabaseAvailability:
    """The state of one database, reported to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[Use] = set()

    @property
    def commits_fail(self) -> bool:
        """Whether the last commit failed."""
        return "commit" in self._failing

    def record_failure(self, use: Use, reason: str) -> None:
        """Record that the database failed; `reason` must hold no user's data."""
        with self._lock:
            is_first = not self._failing
            self._failing.add(use)
        if is_first:
            _log.error("database unavailable", use=use, reason=reason)

    def record_success(self, use: Use) -> None:
        """Record that the database did what it was asked for."""
        if use not in self._failing:
            return
        with self._lock:
            self._failing.discard(use)
            is_back = not self._failing
        if is_back:
            _log.info("database available again")
