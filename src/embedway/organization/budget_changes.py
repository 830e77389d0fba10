"""Changes to budgets: what a change leaves out stays as it is."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.budget import Budget, BudgetPer, Percent
from embedway.core.errors import InvalidRequest
from embedway.core.money import NanoUsd

FIELDS = ("budgets", "user_budgets")
"""The fields of records that are budgets."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it is to be; there is at most one for each window."""

    per: BudgetPer
    amount_nano_usd: NanoUsd | None = None
    """None keeps the amount."""
    alerts: tuple[Percent, ...] | None = None
    """None keeps the alerts, and a new budget has none."""


def completed(changes: Mapping[str, Any], before: msgspec.Struct | None) -> dict[str, Any]:
    """The changes with whole budgets: what each leaves out is taken from `before`.

    Args:
        changes: Fields with their new values. Budgets are `BudgetChange`, or `Budget` if whole.
        before: The record that is to be changed; None if it is to be made.

    Raises:
        InvalidRequest: A new budget has no amount.
    """
    whole = dict(changes)
    for name in FIELDS:
        kept = {each.per: each for each in getattr(before, name, None) or ()}
        if budgets := changes.get(name):
            whole[name] = tuple(_budget(name, each, kept.get(each.per)) for each in budgets)
    return whole


def _budget(field: str, change: Budget | BudgetChange, before: Budget | None) -> Budget:
    amount, alerts = change.amount_nano_usd, change.alerts
    if amount is None:
        if before is None:
            raise InvalidRequest(
                f"'{field}' has a new budget per {change.per} without 'amount_usd'. Send how much "
                "it is.",
                param=field,
            )
        amount = before.amount_nano_usd
    if alerts is None:
        alerts = before.alerts if before else ()
    return Budget(amount_nano_usd=amount, per=change.per, alerts=alerts)
