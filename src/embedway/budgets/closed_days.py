"""Caches what was spent on days that no longer change, to sum up only the latest days each time."""

from collections.abc import Sequence

from sqlalchemy import Engine

from embedway.budgets.status import ClosedDays, cost_between
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

DAY_MS = 86_400_000
OPEN_DAYS = 2
"""The number of days before today that may still get usage records."""
TTL_MS = 60_000
"""How long a total is cached. It must be short, because an operator may rebuild the roll-ups."""
MAX_TOTALS = 10_000


class ClosedDayTotals:
    """A cache of the totals of closed days."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # By subject, start and end; each with the time it was read. Oldest first.
        self._totals: dict[tuple[Subject, int, int], tuple[int, NanoUsd]] = {}

    def read(
        self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int, now_ms: int
    ) -> ClosedDays:
        """Return what was spent on closed days of the windows that contain `at_ms`.

        Raises:
            SQLAlchemyError: The database cannot be read.
        """
        until_ms = (now_ms // DAY_MS - OPEN_DAYS) * DAY_MS
        starts = {budget: budget_window(budget.per, at_ms)[0] for budget in budgets}
        return ClosedDays(
            until_ms=until_ms,
            spending={
                budget: self._total(subject, start, until_ms, now_ms) if start < until_ms else 0
                for budget, start in starts.items()
            },
        )

    def _total(self, subject: Subject, start_ms: int, until_ms: int, now_ms: int) -> NanoUsd:
        name = (subject, start_ms, until_ms)
        read_ms, total = self._totals.get(name, (0, 0))
        if not 0 <= now_ms - read_ms < TTL_MS:
            with self._engine.connect() as connection:
                total = cost_between(connection, subject, start_ms, until_ms)
            self._totals.pop(name, None)
            while len(self._totals) >= MAX_TOTALS:
                self._totals.pop(next(iter(self._totals), name), None)
            self._totals[name] = (now_ms, total)
        return total
