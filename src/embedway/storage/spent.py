"""What is spent of budgets, to be looked at; what may still be spent is `storage.standing`'s."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, select

from embedway.core.budgets import Budget, window
from embedway.core.money import NanoUsd
from embedway.core.subjects import Subject
from embedway.storage.standing import usage_of


def spent(
    connection: Connection, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
) -> Mapping[Budget, NanoUsd]:
    """Of each of `budgets`, in the window that `at_ms` is in."""
    table, whose = usage_of(subject)
    cost = func.coalesce(func.sum(table.c.cost_nano_usd), 0)
    return {
        each: int(
            connection.execute(
                select(cost).where(*whose, table.c.at_ms >= window(each.per, at_ms)[0])
            ).scalar_one()
        )
        for each in budgets
    }
