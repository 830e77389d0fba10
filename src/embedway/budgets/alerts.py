"""Tells an operator, once in a window, that a budget reached a percentage."""

from collections.abc import Callable, Mapping, Sequence

from embedway.budgets.hold_store import HoldStore
from embedway.concurrency.background import BackgroundTasks
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

OnAlert = Callable[[Subject, Budget, int, NanoUsd], None]
"""Told a subject, its budget, the percent that it reached, and what is spent of it."""

MAX_KNOWN = 10_000

_Name = tuple[Subject, Budget, int, int]


class BudgetAlerts:
    """Of all budgets; whoever notes one first, of all processes, tells it."""

    def __init__(self, holds: HoldStore, on_alert: OnAlert) -> None:
        self._holds = holds
        self._on_alert = on_alert
        # Those noted already, oldest first, so that the database is not asked each time.
        self._known: dict[_Name, None] = {}
        self._background = BackgroundTasks()

    def check(self, subject: Subject, spent: Mapping[Budget, NanoUsd], *, at_ms: int) -> None:
        """Notes in the background what is due, in the windows that `at_ms` is in."""
        for budget, spent_nano_usd in spent.items():
            for percent in budget.alerts_due(spent_nano_usd):
                name = (subject, budget, budget_window(budget.per, at_ms)[0], percent)
                if name not in self._known:
                    self._know(name)
                    self._background.schedule(self._note(name, spent_nano_usd, at_ms))

    def check_later(self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int) -> None:
        """Likewise, after looking up what is spent."""
        if any(each.alerts for each in budgets):
            self._background.schedule(self._look_up(subject, budgets, at_ms))

    async def aclose(self) -> None:
        """Wait for what goes on in the background."""
        await self._background.close()

    async def _look_up(self, subject: Subject, budgets: Sequence[Budget], at_ms: int) -> None:
        try:
            spent = await self._holds.read_spending(subject, budgets, at_ms=at_ms)
        except StorageUnavailable:
            return  # the next lease tells it
        self.check(subject, spent, at_ms=at_ms)

    async def _note(self, name: _Name, spent_nano_usd: NanoUsd, at_ms: int) -> None:
        subject, budget, _, percent = name
        try:
            first = await self._holds.record_alert(subject, budget, percent=percent, at_ms=at_ms)
        except StorageUnavailable:
            self._known.pop(name, None)
            return
        if first:
            self._on_alert(subject, budget, percent, spent_nano_usd)

    def _know(self, name: _Name) -> None:
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[name] = None
