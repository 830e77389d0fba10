"""Limits and budgets as they are typed: `requests=600/minute` and `25/month`.

Owns the one form of each, both ways. Knows nothing of whose they are.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, cast, get_args

import typer

from embedway.admin.budget_changes import BudgetChange
from embedway.admin.rules import MAX_ALERTS
from embedway.cli.terminal import fail, reject
from embedway.core.budgets import MAX_NANO_USD, Budget, BudgetPer
from embedway.core.limits import MAX_AMOUNT, Limit, Of, Per
from embedway.core.money import as_usd

NONE = "none"
"""Takes away what there is."""
PROJECT = "project"
"""Gives an end user the limits or budgets that its project has for each; only `users` takes it."""

_NANO_DIGITS = 9
_OF = "|".join(get_args(Of))
_PER = "|".join(get_args(Per))
_BUDGET_PER = "|".join(get_args(BudgetPer))
_LIMIT = re.compile(rf"({_OF})=([0-9]{{1,16}})/({_PER})")
_BUDGET = re.compile(rf"([0-9]{{1,10}}(?:\.[0-9]{{1,{_NANO_DIGITS}}})?)/({_BUDGET_PER})")
_PERCENT = re.compile(r"[0-9]{1,3}")
_MAX_PERCENT = 100


def limit(text: str) -> Limit:
    """The limit that is typed so.

    Raises:
        ValueError: None is; the message says how they are.
    """
    found = _LIMIT.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= MAX_AMOUNT:
        raise ValueError(
            f"{text!r} is no limit. Type one as requests=600/minute or tokens=1000000/day: "
            f"{_OF.replace('|', ' or ')}, a whole number from 1 on, per "
            f"{_PER.replace('|', ', ')}."
        )
    of, per = cast("Of", found[1]), cast("Per", found[3])
    return Limit(of=of, amount=int(found[2]), per=per)


def budget(text: str) -> Budget:
    """The budget that is typed so, without alerts.

    Raises:
        ValueError: None is; the message says how they are.
    """
    found = _BUDGET.fullmatch(text)
    amount = int(Decimal(found[1]).scaleb(_NANO_DIGITS)) if found else -1
    if not found or amount > MAX_NANO_USD:
        raise ValueError(
            f"{text!r} is no budget. Type one as 25/month or 0.5/day: USD, at most "
            f"{MAX_NANO_USD // 10**_NANO_DIGITS}, with at most {_NANO_DIGITS} decimals, per "
            f"{_BUDGET_PER.replace('|', ', ')}."
        )
    per = cast("BudgetPer", found[2])
    return Budget(amount_nano_usd=amount, per=per)


def shown_limit(limit: Limit) -> str:
    """The limit as it is typed."""
    return f"{limit.of}={limit.amount}/{limit.per}"


def shown_budget(budget: Budget) -> str:
    """The budget as it is typed, without its alerts."""
    return f"{as_usd(budget.amount_nano_usd)}/{budget.per}"


def shown_alerts(budget: Budget) -> str:
    """The alerts of the budget, to be read after it; empty if it has none."""
    percents = ", ".join(f"{each}%" for each in budget.alerts)
    return f", alerts at {percents}" if percents else ""


def limits(typed: Sequence[str] | None, *, option: str = "--limit") -> tuple[Limit, ...] | None:
    """What is typed for an option that is repeated; None if it is not there, () for `none`.

    Exits with status 2 for what is no limit, and for two limits of the same.
    """
    if typed is None:
        return None
    try:
        found = () if list(typed) == [NONE] else tuple(map(limit, typed))
    except ValueError as error:
        reject(f"{option} {error}")
    _check_once(option, typed, [f"limits of {each.of} per {each.per}" for each in found])
    return found


def budgets(
    typed: Sequence[str] | None,
    *,
    alerts: Sequence[str] | None,
    of_new: bool = True,
    option: str = "--budget",
    alert_option: str = "--alert",
) -> tuple[BudgetChange, ...] | None:
    """The typed budgets with the typed alerts; None if no budget is typed, () for `none`.

    Exits with status 2 for what is no budget or no percentage, for two budgets of the same window,
    and for alerts without a budget where the record is new, so that it has no other.
    """
    percents = None if alerts is None else _percents(alerts, option=alert_option)
    if typed is None:
        if alerts is not None and of_new:
            reject(
                f"There is no budget for {_repeated(alert_option, alerts)}. Add one, such as "
                f"{option} 25/month"
            )
        return None
    try:
        whole = () if list(typed) == [NONE] else tuple(map(budget, typed))
    except ValueError as error:
        reject(f"{option} {error}")
    _check_once(option, typed, [f"budgets per {each.per}" for each in whole])
    if percents and not whole:
        reject(
            f"{option} {NONE!r} takes all budgets away, so {_repeated(alert_option, percents)} has "
            "none. Leave one of them out."
        )
    return tuple(
        BudgetChange(per=each.per, amount_nano_usd=each.amount_nano_usd, alerts=percents)
        for each in whole
    )


def realerted(
    before: Sequence[Budget],
    alerts: Sequence[str],
    *,
    option: str = "--budget",
    alert_option: str = "--alert",
) -> tuple[BudgetChange, ...]:
    """The changes that give the typed alerts to each budget there is.

    Exits with status 1 if there is none.
    """
    if not before:
        fail(
            f"There is no budget for {_repeated(alert_option, alerts)}. Add one, such as "
            f"{option} 25/month"
        )
    percents = _percents(alerts, option=alert_option)
    return tuple(BudgetChange(per=each.per, alerts=percents) for each in before)


def _check_once(option: str, typed: Sequence[str], windows: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for text, window in zip(typed, windows, strict=False):  # `none` has no window
        if window in first:
            reject(
                f"{option} {first[window]!r} and {option} {text!r} are both {window}. Leave one of "
                "them out."
            )
        first[window] = text


def _repeated(option: str, values: Sequence[object]) -> str:
    return " ".join(f"{option} {str(each)!r}" for each in values)


def _percents(typed: Sequence[str], *, option: str) -> tuple[int, ...]:
    if list(typed) == [NONE]:
        return ()
    for each in typed:
        if not (_PERCENT.fullmatch(each) and 1 <= int(each) <= _MAX_PERCENT):
            reject(
                f"{option} {each!r} is no percentage. Type a whole number from 1 to "
                f"{_MAX_PERCENT}, such as 80, or 'none' for no alerts."
            )
    percents = tuple(sorted({int(each) for each in typed}))
    if len(percents) > MAX_ALERTS:
        reject(
            f"{_repeated(option, percents)} are {len(percents)} alerts; a budget has at most "
            f"{MAX_ALERTS}. Leave some out."
        )
    return percents


def check_limits(param: typer.CallbackParam, typed: list[str] | None) -> list[str] | None:
    """Check an option before the command opens the database: what it says is wrong anywhere."""
    if typed != [PROJECT]:
        limits(typed, option=param.opts[0])
    return typed


def check_budgets(param: typer.CallbackParam, typed: list[str] | None) -> list[str] | None:
    """Check an option, as `check_limits` does."""
    if typed != [PROJECT]:
        budgets(typed, alerts=None, option=param.opts[0])
    return typed


def check_alerts(param: typer.CallbackParam, typed: list[str] | None) -> list[str] | None:
    """Check an option, as `check_limits` does."""
    if typed:
        _percents(typed, option=param.opts[0])
    return typed


def repeated(name: str, *, metavar: str, check: Callable[..., Any], help: str) -> Any:
    """An option of limits, budgets or alerts, which may be typed several times."""
    return typer.Option(name, metavar=metavar, callback=check, help=f"{help} Repeatable.")


LimitOption = Annotated[
    list[str] | None,
    repeated(
        "--limit",
        metavar="OF=N/PER",
        check=check_limits,
        help="Such as requests=600/minute; 'none' for no limits.",
    ),
]
BudgetOption = Annotated[
    list[str] | None,
    repeated(
        "--budget",
        metavar="USD/PER",
        check=check_budgets,
        help="Such as 25/month or 0.5/day; 'none' for no budgets.",
    ),
]
AlertOption = Annotated[
    list[str] | None,
    repeated(
        "--alert",
        metavar="PERCENT",
        check=check_alerts,
        help="Tell an operator when PERCENT of each --budget is spent; in an update without "
        "--budget, of each budget there is. 'none' for never.",
    ),
]
