"""What is spent of budgets, to be looked at; what may still be spent is `storage.standing`'s."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from embedway.core.budgets import Budget, BudgetState, window
from embedway.core.subjects import Subject
from embedway.storage.standing import usage_of


def states(
    connection: Connection, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
) -> tuple[BudgetState, ...]:
    """The state of each of `budgets`, in the window that `at_ms` is in."""
    table, whose = usage_of(subject)
    cost = func.coalesce(func.sum(table.c.cost_nano_usd), 0)
    found: list[BudgetState] = []
    for each in budgets:
        start_ms, end_ms = window(each.per, at_ms)
        spent = connection.execute(select(cost).where(*whose, table.c.at_ms >= start_ms))
        found.append(
            BudgetState(budget=each, spent_nano_usd=int(spent.scalar_one()), ends_ms=end_ms)
        )
    return tuple(found)
