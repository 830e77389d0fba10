"""What is spent of budgets, to be looked at; what may still be spent is `storage.standing`'s."""

from collections.abc import Sequence

from sqlalchemy import Connection

from embedway.core.budget import Budget, BudgetState, window
from embedway.core.subject import Subject
from embedway.storage.standing import cost_between


def states(
    connection: Connection, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
) -> tuple[BudgetState, ...]:
    """The state of each of `budgets`, in the window that `at_ms` is in."""
    windows = [(each, *window(each.per, at_ms)) for each in budgets]
    return tuple(
        BudgetState(
            budget=budget,
            spent_nano_usd=cost_between(connection, subject, start_ms),
            ends_ms=end_ms,
        )
        for budget, start_ms, end_ms in windows
    )
