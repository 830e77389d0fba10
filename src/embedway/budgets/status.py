"""Reads what is spent of budgets, from the ledger's roll-ups, and what processes hold of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    case,
    func,
    literal,
    select,
    union_all,
)

from embedway.core.budget import Budget, BudgetSpending, budget_window
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject
from embedway.storage.tables import holds, keys, usage_days, usage_user_days

DAY_MS = 86_400_000
OPEN_DAYS = 2
"""The number of days before today that may still get usage records."""
TTL_MS = 60_000
"""How long a total is cached. It must be short, because an operator may rebuild the roll-ups."""
MAX_TOTALS = 10_000


class ClosedDays(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent of a subject's budgets on days that no longer change."""

    until_ms: int
    """The end of the last closed day, in ms since the epoch."""
    spending: Mapping[Budget, NanoUsd]


class ClosedDayTotals:
    """A cache of the totals of closed days, so that each sum reads only the latest days."""

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


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is spent and held of a subject's budgets at one instant."""

    spending: Mapping[Budget, NanoUsd]
    own_hold: NanoUsd | None
    """The hold of this process; None if it has none."""
    other_holds: NanoUsd
    """The sum of the other processes' holds, expired or not."""
    next_expiry_ms: int | None
    """When the first of the other holds expires, in ms since the epoch; None without any."""

    def remaining(self, own_hold: NanoUsd) -> NanoUsd:
        """Return what the tightest budget still allows if this process holds `own_hold`."""
        least = min(budget.amount_nano_usd - spent for budget, spent in self.spending.items())
        return least - self.other_holds - own_hold


def read_status(
    connection: Connection,
    subject: Subject,
    closed: ClosedDays,
    *,
    process: str,
    at_ms: int,
) -> BudgetStatus:
    """Return the status, for `process`, of the budgets in `closed`.

    Each budget counts what was spent since the start of the window that contains `at_ms`, even
    after that window's end. Otherwise a late request could spend what the next window granted.
    """
    own = holds.c.process == process
    amount = holds.c.amount_nano_usd
    # A process that spent more than it held holds nothing.
    total = func.coalesce(func.sum(case((amount > 0, amount), else_=0)), 0)
    held = (
        select(each).where(holds.c.subject == str(subject), which)
        for each, which in ((amount, own), (total, ~own), (func.min(holds.c.expires_ms), ~own))
    )
    table, is_subjects = usage_rows(subject)
    starts = [
        max(budget_window(budget.per, at_ms)[0], closed.until_ms) for budget in closed.spending
    ]
    sums = (
        func.coalesce(func.sum(case((table.c.at_ms >= start, table.c.cost_nano_usd), else_=0)), 0)
        for start in starts
    )
    # One statement reads one instant. With two, the ledger could turn a hold into spending between
    # them.
    query = select(*(each.scalar_subquery() for each in held), *sums)
    row: tuple[Any, ...] = tuple(
        connection.execute(query.where(*is_subjects, table.c.at_ms >= min(starts))).one()
    )
    return BudgetStatus(
        spending={
            budget: before + int(spent)
            for (budget, before), spent in zip(closed.spending.items(), row[3:], strict=True)
        },
        own_hold=None if row[0] is None else int(row[0]),
        other_holds=int(row[1]),
        next_expiry_ms=row[2],
    )


def cost_between(
    connection: Connection, subject: Subject, start_ms: int, end_ms: int | None = None
) -> NanoUsd:
    """Return what a subject spent on the days from `start_ms` up to, but without, `end_ms`."""
    table, is_subjects = usage_rows(subject)
    query = select(func.coalesce(func.sum(table.c.cost_nano_usd), 0)).where(
        *is_subjects, table.c.at_ms >= start_ms
    )
    if end_ms is not None:
        query = query.where(table.c.at_ms < end_ms)
    return int(connection.execute(query).scalar_one())


def usage_rows(subject: Subject) -> tuple[Table, Sequence[ColumnElement[bool]]]:
    """Return the roll-up with a subject's usage by day, and the conditions that select its rows."""
    match subject.kind:
        case "project":
            return usage_days, [usage_days.c.project_id == subject.id]
        case "key":
            issued = select(keys.c.id).where(keys.c.issued_by == subject.id)
            with_own = union_all(select(literal(subject.id)), issued)
            return usage_days, [usage_days.c.key_id.in_(with_own)]
        case "end user":
            days = usage_user_days.c
            return usage_user_days, [
                days.project_id == subject.project_id,
                days.end_user == subject.id,
            ]


def read_budget_spending(
    connection: Connection, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
) -> tuple[BudgetSpending, ...]:
    """Return what is spent of each of `budgets` in the window that contains `at_ms`."""
    windows = [(each, *budget_window(each.per, at_ms)) for each in budgets]
    return tuple(
        BudgetSpending(
            budget=budget,
            spent_nano_usd=cost_between(connection, subject, start_ms),
            ends_ms=end_ms,
        )
        for budget, start_ms, end_ms in windows
    )
