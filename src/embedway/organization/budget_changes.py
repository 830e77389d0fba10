"""Fills in what a change to a budget leaves out from the budget it changes."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.budget import Budget, BudgetPer, Percent
from embedway.core.errors import InvalidRequest
from embedway.core.money import NanoUsd

BUDGET_FIELDS = ("budgets", "user_budgets")
"""The fields of projects, keys and end users that hold budgets."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change to the budget of one window; a record has at most one budget for each window."""

    per: BudgetPer
    amount_nano_usd: NanoUsd | None = None
    """The new amount; None keeps the old one."""
    alerts: tuple[Percent, ...] | None = None
    """The new alerts; None keeps the old ones. A new budget then has none."""


def complete_budgets(changes: Mapping[str, Any], before: msgspec.Struct | None) -> dict[str, Any]:
    """Return changes to the record `before`, or to a new one, with each budget complete.

    Raises:
        InvalidRequest: A new budget has no amount.
    """
    completed = dict(changes)
    for name in BUDGET_FIELDS:
        old_budgets = {each.per: each for each in getattr(before, name, None) or ()}
        if budgets := changes.get(name):
            completed[name] = tuple(
                _complete_budget(name, each, old_budgets.get(each.per)) for each in budgets
            )
    return completed


def _complete_budget(field: str, change: Budget | BudgetChange, before: Budget | None) -> Budget:
    if change.amount_nano_usd is None and before is None:
        raise InvalidRequest(
            f"'{field}' has a new budget per {change.per} without 'amount_usd'. Send the amount.",
            param=field,
        )
    old = msgspec.structs.asdict(before) if before else {}
    new = msgspec.structs.asdict(change)
    return Budget(**old | {name: value for name, value in new.items() if value is not None})
