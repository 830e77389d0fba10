"""Reports, once per window, that a budget has reached one of its alert percentages."""

from collections.abc import Callable, Mapping, Sequence

from embedway.budgets.hold_store import HoldStore
from embedway.concurrency.background import BackgroundTasks
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

OnAlert = Callable[[Subject, Budget, int, NanoUsd], None]
"""Receives the subject, its budget, the percentage reached and the amount spent."""

MAX_REMEMBERED = 10_000
"""The most recorded alerts to remember. The database knows the rest."""

_Alert = tuple[Subject, Budget, int, int]
"""The subject, its budget, the start of the window in ms since the epoch, and the percentage."""


class BudgetAlerts:
    """The alerts of all budgets. The process that records an alert first reports it."""

    def __init__(self, holds: HoldStore, on_alert: OnAlert) -> None:
        self._holds = holds
        self._on_alert = on_alert
        # The alerts that are recorded already, oldest first, to spare the database.
        self._recorded: dict[_Alert, None] = {}
        self._background = BackgroundTasks()

    def check(self, subject: Subject, spending: Mapping[Budget, NanoUsd], *, at_ms: int) -> None:
        """Report in the background the alerts that are due in the windows that contain `at_ms`."""
        for budget, spent_nano_usd in spending.items():
            for percent in budget.alerts_due(spent_nano_usd):
                alert = (subject, budget, budget_window(budget.per, at_ms)[0], percent)
                if alert not in self._recorded:
                    if len(self._recorded) >= MAX_REMEMBERED:
                        del self._recorded[next(iter(self._recorded))]
                    self._recorded[alert] = None
                    self._background.schedule(self._report(alert, spent_nano_usd, at_ms))

    def check_later(self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int) -> None:
        """Read the spending in the background, then check it."""
        if any(each.alerts for each in budgets):
            self._background.schedule(self._read_and_check(subject, budgets, at_ms))

    async def aclose(self) -> None:
        """Wait for the background tasks."""
        await self._background.close()

    async def _read_and_check(
        self, subject: Subject, budgets: Sequence[Budget], at_ms: int
    ) -> None:
        try:
            spending = await self._holds.read_spending(subject, budgets, at_ms=at_ms)
        except StorageUnavailable:
            return  # the next lease checks again
        self.check(subject, spending, at_ms=at_ms)

    async def _report(self, alert: _Alert, spent_nano_usd: NanoUsd, at_ms: int) -> None:
        subject, budget, _, percent = alert
        try:
            is_new = await self._holds.record_alert(subject, budget, percent=percent, at_ms=at_ms)
        except StorageUnavailable:
            self._recorded.pop(alert, None)
            return
        if is_new:
            self._on_alert(subject, budget, percent, spent_nano_usd)
