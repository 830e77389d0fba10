"""Parses and formats limits and budgets as they are typed: `requests=600/minute`, `25/month`."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeVar, cast, get_args

from embedway.cli.terminal import reject
from embedway.core.budget import MAX_NANO_USD, Budget, BudgetPer
from embedway.core.limit import MAX_AMOUNT, Limit, LimitPeriod, LimitUnit
from embedway.core.money import format_usd
from embedway.organization.rules import MAX_ALERTS

NONE = "none"
"""The value that removes all limits, budgets or alerts."""

T = TypeVar("T")

_NANO_DIGITS = 9
_UNITS = "|".join(get_args(LimitUnit))
_LIMIT_PERIODS = "|".join(get_args(LimitPeriod))
_BUDGET_PERIODS = "|".join(get_args(BudgetPer))
_LIMIT = re.compile(rf"({_UNITS})=([0-9]{{1,16}})/({_LIMIT_PERIODS})")
_BUDGET = re.compile(rf"([0-9]{{1,10}}(?:\.[0-9]{{1,{_NANO_DIGITS}}})?)/({_BUDGET_PERIODS})")
_PERCENT = re.compile(r"[0-9]{1,3}")
_MAX_PERCENT = 100


def parse_limit(text: str) -> Limit:
    """Parse a limit.

    Raises:
        ValueError: `text` is not a limit; the message shows how to type one.
    """
    match = _LIMIT.fullmatch(text)
    if not match or not 1 <= int(match[2]) <= MAX_AMOUNT:
        raise ValueError(
            f"{text!r} is no limit. Type one as requests=600/minute or tokens=1000000/day: "
            f"{_UNITS.replace('|', ' or ')}, a whole number from 1 on, per "
            f"{_LIMIT_PERIODS.replace('|', ', ')}."
        )
    of, per = cast("LimitUnit", match[1]), cast("LimitPeriod", match[3])
    return Limit(of=of, amount=int(match[2]), per=per)


def parse_budget(text: str) -> Budget:
    """Parse a budget without alerts.

    Raises:
        ValueError: `text` is not a budget; the message shows how to type one.
    """
    match = _BUDGET.fullmatch(text)
    amount = int(Decimal(match[1]).scaleb(_NANO_DIGITS)) if match else -1
    if not match or amount > MAX_NANO_USD:
        raise ValueError(
            f"{text!r} is no budget. Type one as 25/month or 0.5/day: USD, at most "
            f"{MAX_NANO_USD // 10**_NANO_DIGITS}, with at most {_NANO_DIGITS} decimals, per "
            f"{_BUDGET_PERIODS.replace('|', ', ')}."
        )
    return Budget(amount_nano_usd=amount, per=cast("BudgetPer", match[2]))


def format_limit(limit: Limit) -> str:
    """Return the limit as it is typed."""
    return f"{limit.of}={limit.amount}/{limit.per}"


def format_budget(budget: Budget) -> str:
    """Return the budget as it is typed, without its alerts."""
    return f"{format_usd(budget.amount_nano_usd)}/{budget.per}"


def format_alerts(budget: Budget) -> str:
    """Return the alerts of the budget to print after it, or an empty string if it has none."""
    percents = ", ".join(f"{each}%" for each in budget.alerts)
    return f", alerts at {percents}" if percents else ""


def format_amounts(amounts: Sequence[Limit | Budget] | None, *, empty: str = "none") -> str:
    """Return limits or budgets as they are typed; None means what the project sets for each."""
    if amounts is None:
        return "as the project says"
    texts = (
        format_limit(each) if isinstance(each, Limit) else format_budget(each) for each in amounts
    )
    return ", ".join(texts) or empty


def parse_limits(option: str, typed: Sequence[str]) -> tuple[Limit, ...]:
    """Parse the limits that were typed for an option; `none` gives ().

    Exits with status 2 for a wrong limit, and for two limits of one unit and period.
    """
    return _parse_all(
        parse_limit, option, typed, lambda each: f"limits of {each.of} per {each.per}"
    )


def parse_budgets(option: str, typed: Sequence[str]) -> tuple[Budget, ...]:
    """Parse the budgets that were typed for an option, without alerts; `none` gives ().

    Exits with status 2 for a wrong budget, and for two budgets of one period.
    """
    return _parse_all(parse_budget, option, typed, lambda each: f"budgets per {each.per}")


def parse_alerts(option: str, typed: Sequence[str]) -> tuple[int, ...]:
    """Parse the percentages that were typed for an option; `none` gives ().

    Exits with status 2 for a wrong percentage, and for too many.
    """
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
            f"{format_option(option, percents)} are {len(percents)} alerts; a budget has at most "
            f"{MAX_ALERTS}. Leave some out."
        )
    return percents


def format_option(option: str, values: Sequence[object]) -> str:
    """Return an option with each of its values, as it is typed."""
    return " ".join(f"{option} {str(each)!r}" for each in values)


def _parse_all(
    parse: Callable[[str], T], option: str, typed: Sequence[str], kind_of: Callable[[T], str]
) -> tuple[T, ...]:
    texts: dict[str, str] = {}
    values: list[T] = []
    for text in typed if list(typed) != [NONE] else ():
        try:
            values.append(parse(text))
        except ValueError as error:
            reject(f"{option} {error}")
        kind = kind_of(values[-1])
        if kind in texts:
            reject(
                f"{option} {texts[kind]!r} and {option} {text!r} are both {kind}. Leave one of "
                "them out."
            )
        texts[kind] = text
    return tuple(values)
