"""What was spent in days long over, which does not change, and so is not summed up each time."""

from collections.abc import Sequence

from sqlalchemy import Engine

from embedway.budgets.status import ClosedDays, cost_between
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

DAY_MS = 86_400_000
OPEN_DAYS = 2
"""Before today, of which a line may still come in."""
KEPT_MS = 60_000
"""For so long a sum is kept, for an operator may have the roll-ups made anew."""
MAX_KEPT = 10_000


class ClosedDayTotals:
    """Sums, kept for a while."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # By subject, and from when until when; with the time of the sum. Oldest first.
        self._kept: dict[tuple[Subject, int, int], tuple[int, NanoUsd]] = {}

    def of(
        self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int, now_ms: int
    ) -> ClosedDays:
        """What was spent in the windows that `at_ms` is in.

        Raises:
            SQLAlchemyError: The database cannot be read.
        """
        until_ms = (now_ms // DAY_MS - OPEN_DAYS) * DAY_MS
        starts = {budget: budget_window(budget.per, at_ms)[0] for budget in budgets}
        return ClosedDays(
            until_ms=until_ms,
            spent={
                budget: self._sum(subject, start, until_ms, now_ms) if start < until_ms else 0
                for budget, start in starts.items()
            },
        )

    def _sum(self, subject: Subject, start_ms: int, until_ms: int, now_ms: int) -> NanoUsd:
        name = (subject, start_ms, until_ms)
        summed_ms, spent = self._kept.get(name, (0, 0))
        if not 0 <= now_ms - summed_ms < KEPT_MS:
            with self._engine.connect() as connection:
                spent = cost_between(connection, subject, start_ms, until_ms)
            self._keep(name, now_ms, spent)
        return spent

    def _keep(self, name: tuple[Subject, int, int], now_ms: int, spent: NanoUsd) -> None:
        self._kept.pop(name, None)
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept), name), None)
        self._kept[name] = (now_ms, spent)
