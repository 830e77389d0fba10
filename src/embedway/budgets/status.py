"""How the budgets of somebody stand: what the ledger's roll-ups say is spent, and who holds what.

Knows nothing of requests, and writes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
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


class ClosedDays(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent of somebody's budgets before the days that are summed up each time."""

    until_ms: int
    """When these begin."""
    spent: Mapping[Budget, NanoUsd]


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is spent and held of a subject's budgets, all as of one instant."""

    spent: Mapping[Budget, NanoUsd]
    own: NanoUsd | None
    """What this process holds; None if it has no hold."""
    others: NanoUsd
    """What the others hold, expired or not."""
    expires_ms: int | None
    """When the first of theirs does."""

    def left(self, own: NanoUsd) -> NanoUsd:
        """Of the budget that has least left, if this process holds `own`."""
        least = min(budget.amount_nano_usd - spent for budget, spent in self.spent.items())
        return least - self.others - own


def read_status(
    connection: Connection,
    subject: Subject,
    past: ClosedDays,
    *,
    process: str,
    at_ms: int,
) -> BudgetStatus:
    """How budgets stand for `process`, in the windows that `at_ms` is in, of which `past` is over.

    What is spent after these windows counts too. So nothing can be had of a window that is over
    by taking what was granted in the next.
    """
    own = holds.c.process == process
    amount = holds.c.amount_nano_usd
    # Whoever used more than it held holds nothing; what it used is spent.
    held = func.coalesce(func.sum(case((amount > 0, amount), else_=0)), 0)
    of_holds = (
        select(each).where(holds.c.subject == str(subject), which)
        for each, which in ((amount, own), (held, ~own), (func.min(holds.c.expires_ms), ~own))
    )
    table, whose = usage_rows(subject)
    starts = [max(budget_window(budget.per, at_ms)[0], past.until_ms) for budget in past.spent]
    sums = (
        func.coalesce(func.sum(case((table.c.at_ms >= start, table.c.cost_nano_usd), else_=0)), 0)
        for start in starts
    )
    # In one statement, so of one instant: the ledger moves from held to spent at any time.
    query = select(*(each.scalar_subquery() for each in of_holds), *sums)
    row: tuple[Any, ...] = tuple(
        connection.execute(query.where(*whose, table.c.at_ms >= min(starts))).one()
    )
    return BudgetStatus(
        spent={
            budget: before + int(spent)
            for (budget, before), spent in zip(past.spent.items(), row[3:], strict=True)
        },
        own=None if row[0] is None else int(row[0]),
        others=int(row[1]),
        expires_ms=row[2],
    )


def cost_between(
    connection: Connection, subject: Subject, start_ms: int, end_ms: int | None = None
) -> NanoUsd:
    """What a subject spent on the days from `start_ms` up to but without `end_ms`."""
    table, whose = usage_rows(subject)
    query = select(func.coalesce(func.sum(table.c.cost_nano_usd), 0)).where(
        *whose, table.c.at_ms >= start_ms
    )
    if end_ms is not None:
        query = query.where(table.c.at_ms < end_ms)
    return int(connection.execute(query).scalar_one())


def usage_rows(subject: Subject) -> tuple[Table, Sequence[ColumnElement[bool]]]:
    """Where the usage of a subject is, and which it is."""
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


def read_states(
    connection: Connection, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
) -> tuple[BudgetSpending, ...]:
    """The state of each of `budgets`, in the window that `at_ms` is in."""
    windows = [(each, *budget_window(each.per, at_ms)) for each in budgets]
    return tuple(
        BudgetSpending(
            budget=budget,
            spent_nano_usd=cost_between(connection, subject, start_ms),
            ends_ms=end_ms,
        )
        for budget, start_ms, end_ms in windows
    )
