"""Reports, once per window, that a budget has reached an alert percentage or is exhausted."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from embedway.budgets.hold_store import HoldStore
from embedway.concurrency.background import BackgroundTasks
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

EXHAUSTED = 0
"""Stands in the table of alerts for a request that was refused for want of budget."""
MAX_REMEMBERED = 10_000
"""The most recorded alerts to remember. The database knows the rest."""


class BudgetAlert(msgspec.Struct, frozen=True, kw_only=True):
    """A budget reached one of its alert percentages, or is exhausted."""

    subject: Subject
    budget: Budget
    percent: int
    """The percentage, or `EXHAUSTED`."""
    spent_nano_usd: NanoUsd
    at_ms: int
    """A time in the budget's window, in ms since the epoch."""

    @property
    def is_exhausted(self) -> bool:
        """Whether a request was refused because too little is left."""
        return self.percent == EXHAUSTED


OnAlert = Callable[[BudgetAlert], None]
"""Receives each alert that this process recorded, once it is stored."""
WriteAlert = Callable[[Connection, BudgetAlert], None]
"""Writes more about an alert, in the transaction that records it."""

_Recorded = tuple[Subject, Budget, int, int]
"""The subject, its budget, the start of the window in ms since the epoch, and the percentage."""


class BudgetAlerts:
    """The alerts of all budgets. The process that records an alert first reports it."""

    def __init__(
        self,
        holds: HoldStore,
        on_alert: OnAlert,
        write_alert: WriteAlert = lambda _connection, _alert: None,
    ) -> None:
        self._holds = holds
        self._on_alert = on_alert
        self._write_alert = write_alert
        # The alerts that are recorded already, oldest first, to spare the database.
        self._recorded: dict[_Recorded, None] = {}
        self._background = BackgroundTasks()

    def check(self, subject: Subject, spending: Mapping[Budget, NanoUsd], *, at_ms: int) -> None:
        """Report in the background the alerts that are due in the windows that contain `at_ms`."""
        for budget, spent_nano_usd in spending.items():
            for percent in budget.alerts_due(spent_nano_usd):
                self._record(subject, budget, percent, spent_nano_usd, at_ms)

    def check_later(self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int) -> None:
        """Read the spending in the background, then check it."""
        if any(each.alerts for each in budgets):
            self._background.schedule(self._read_and_check(subject, budgets, at_ms))

    def report_exhausted(
        self,
        subject: Subject,
        spending: Mapping[Budget, NanoUsd],
        *,
        cost_nano_usd: NanoUsd,
        at_ms: int,
    ) -> None:
        """Report in the background the budgets that have too little left for a request.

        A budget of 0 never had anything, so that it is not reported.
        """
        for budget, spent_nano_usd in spending.items():
            if 0 < budget.amount_nano_usd < spent_nano_usd + cost_nano_usd:
                self._record(subject, budget, EXHAUSTED, spent_nano_usd, at_ms)

    async def aclose(self) -> None:
        """Wait for the background tasks."""
        await self._background.close()

    def _record(
        self, subject: Subject, budget: Budget, percent: int, spent_nano_usd: NanoUsd, at_ms: int
    ) -> None:
        key = (subject, budget, budget_window(budget.per, at_ms)[0], percent)
        if key in self._recorded:
            return
        if len(self._recorded) >= MAX_REMEMBERED:
            del self._recorded[next(iter(self._recorded))]
        self._recorded[key] = None
        alert = BudgetAlert(
            subject=subject,
            budget=budget,
            percent=percent,
            spent_nano_usd=spent_nano_usd,
            at_ms=at_ms,
        )
        self._background.schedule(self._report(key, alert))

    async def _read_and_check(
        self, subject: Subject, budgets: Sequence[Budget], at_ms: int
    ) -> None:
        try:
            spending = await self._holds.read_spending(subject, budgets, at_ms=at_ms)
        except StorageUnavailable:
            return  # the next lease checks again
        self.check(subject, spending, at_ms=at_ms)

    async def _report(self, key: _Recorded, alert: BudgetAlert) -> None:
        try:
            is_new = await self._holds.record_alert(
                alert.subject,
                alert.budget,
                percent=alert.percent,
                at_ms=alert.at_ms,
                also=lambda connection: self._write_alert(connection, alert),
            )
        except StorageUnavailable:
            self._recorded.pop(key, None)
            return
        if is_new:
            self._on_alert(alert)
