"""Describes the fields of projects, keys and end users once, as options of commands.

A command takes all of them in one parameter, `changes`, which `with_fields` replaces by one option
for each field.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any

import msgspec
import typer

from embedway.catalog.catalog import LOCAL
from embedway.cli import options
from embedway.cli.limits_and_budgets import (
    NONE,
    format_option,
    parse_alerts,
    parse_budgets,
    parse_limits,
)
from embedway.cli.setup import Setup
from embedway.cli.terminal import explain, fail, reject
from embedway.core.budget import Budget
from embedway.core.errors import UnknownModel
from embedway.core.keys import SCOPES
from embedway.organization.budget_changes import BudgetChange
from embedway.organization.rules import MAX_NAME_CHARACTERS, is_visible
from embedway.routing.resolve import resolve

ANY = "any"
"""The value that allows all models or providers."""
AS_PROJECT = "project"
"""The value that gives an end user the limits or budgets that its project sets for each."""
ALERTS = {"budgets": "alerts", "user_budgets": "user_alerts"}
"""The field of alerts that belongs to each field of budgets."""
MIN_DAYS, MAX_DAYS = 0.00001, 36_500

Changes = dict[str, Any]
"""New values by field name."""


class OptionField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that an option sets."""

    option: str
    info: Any
    """The `typer.Option`."""
    type: Any = list[str]
    parse: Callable[[str, Any], Any] = lambda _, typed: typed
    """Takes the option's name and the typed value, and returns the field's value."""


def _parse_name(option: str, name: str) -> str:
    if not is_visible(name):
        reject(
            f"{option} {name!r} is not possible: use 1 to {MAX_NAME_CHARACTERS} visible characters."
        )
    return name


def _parse_names(option: str, typed: Sequence[str]) -> tuple[str, ...] | None:
    if ANY in typed and len(typed) > 1:
        others = ", ".join(repr(name) for name in typed if name != ANY)
        reject(f"{option} {ANY!r} allows all, so it excludes {others}. Leave one of them out.")
    return None if list(typed) == [ANY] else tuple(dict.fromkeys(typed))


def _parse_scopes(option: str, typed: Sequence[str]) -> tuple[str, ...]:
    for each in typed:
        if each not in SCOPES[:-1]:
            reject(f"{option} {each!r} is not possible. Choose from: {', '.join(SCOPES[:-1])}.")
    return tuple(dict.fromkeys(typed))


def _or_as_project(field: OptionField) -> OptionField:
    def parse(option: str, typed: Sequence[str]) -> Any:
        return None if list(typed) == [AS_PROJECT] else field.parse(option, typed)

    return msgspec.structs.replace(field, parse=parse)


def _name_option(help: str) -> OptionField:
    return OptionField(option="--name", info=typer.Option(help=help), type=str, parse=_parse_name)


def _list_option(
    option: str, parse: Callable[[str, Any], Any], help: str, form: str | None = None
) -> OptionField:
    info = typer.Option(option, metavar=form, help=f"{help} Repeatable.")
    return OptionField(option=option, info=info, parse=parse)


def _flag_option(declaration: str, help: str) -> OptionField:
    info = typer.Option(declaration, help=help)
    return OptionField(option=declaration.partition("/")[0], info=info, type=bool)


_ACCESS = {
    "models": _list_option(
        "--model", _parse_names, "A model it may use, by any name; 'any' for all."
    ),
    "providers": _list_option(
        "--provider", _parse_names, "A provider that may serve it; 'any' for all."
    ),
}
_AMOUNTS = {
    "limits": _list_option(
        "--limit",
        parse_limits,
        "A rate limit, such as requests=600/minute; 'none' for no limits.",
        "OF=N/PER",
    ),
    "budgets": _list_option(
        "--budget",
        parse_budgets,
        "A budget, such as 25/month or 0.5/day; 'none' for no budgets.",
        "USD/PER",
    ),
    "alerts": _list_option(
        "--alert",
        parse_alerts,
        "Log an alert once PERCENT of each --budget is spent; in an update without --budget, of "
        "each existing budget. 'none' for no alerts.",
        "PERCENT",
    ),
}
PROJECT_FIELDS = {
    "name": _name_option("The name to show in lists and reports."),
    **_ACCESS,
    **_AMOUNTS,
    "user_limits": _list_option(
        "--user-limit", parse_limits, "Like --limit, but for each end user.", "OF=N/PER"
    ),
    "user_budgets": _list_option(
        "--user-budget", parse_budgets, "Like --budget, but for each end user.", "USD/PER"
    ),
    "user_alerts": _list_option(
        "--user-alert", parse_alerts, "Like --alert, but for each --user-budget.", "PERCENT"
    ),
    "eu_native": _flag_option(
        "--eu-native/--no-eu-native", "Only use deployments that are based and regulated in the EU."
    ),
    "zero_data_retention": _flag_option(
        "--zero-data-retention/--no-zero-data-retention", "Only use deployments that keep no data."
    ),
    "allow_quantization": _flag_option(
        "--allow-quantization/--no-allow-quantization",
        "Whether deployments with quantised weights may serve its requests.",
    ),
}
KEY_FIELDS = {
    "name": _name_option("What the key is for, to find it again."),
    "scopes": _list_option("--scope", _parse_scopes, f"What it may do: {', '.join(SCOPES[:-1])}."),
    "expires_days": OptionField(
        option="--expires-days",
        info=options.days(
            "--expires-days",
            least=MIN_DAYS,
            most=MAX_DAYS,
            example=30,
            help="Days from now until the key stops working. A new key without it never expires.",
        ),
        type=float,
    ),
    **_ACCESS,
    **_AMOUNTS,
}
KEY_UPDATE_FIELDS = {
    **KEY_FIELDS,
    "never_expires": _flag_option("--never-expires", "Let the key work for good."),
}
END_USER_FIELDS = {
    "limits": _or_as_project(_AMOUNTS["limits"]),
    "budgets": _or_as_project(_AMOUNTS["budgets"]),
    "alerts": _AMOUNTS["alerts"],
}


def with_fields(
    fields: Mapping[str, OptionField], *, update: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field, in place of its parameter `changes`.

    A wrong value exits with status 2 before the command begins. A command that changes an existing
    record is typed as `update`, and needs at least one option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:
            changes = {
                name: field.parse(field.option, typed)
                for name, field in fields.items()
                if (typed := arguments.pop(name)) is not None
            }
            if update and not changes:
                reject(f"Nothing to change. Give an option, as this shows: {update} --help")
            for budgets in filter(fields.__contains__, ALERTS):
                _add_alerts(changes, fields, budgets, new=not update)
            if changes.get("models") or changes.get("providers"):
                _check_names(changes.get("models") or (), changes.get("providers") or ())
            command(**arguments, changes=changes)

        field_parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if name == "name" and not update else None,
                annotation=Annotated[field.type | None, field.info],
            )
            for name, field in fields.items()
        ]
        parameters = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for each in inspect.signature(command).parameters.values()
            for parameter in (field_parameters if each.name == "changes" else [each])
        ]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def _add_alerts(
    changes: Changes, fields: Mapping[str, OptionField], field: str, *, new: bool
) -> None:
    """Move typed alerts into the typed budgets, and reject alerts without a budget."""
    alerts = ALERTS[field]
    percents: tuple[int, ...] | None = changes.get(alerts)
    if field not in changes:
        if new and percents is not None:
            reject(_no_budget_message(fields, field, percents))
        return
    budgets: tuple[Budget, ...] | None = changes[field]
    if budgets is None and percents is not None:
        reject(
            f"{fields[field].option} {AS_PROJECT!r} has the alerts of the project. Leave out "
            f"{_format_alerts(fields[alerts], percents)}."
        )
    if percents and not budgets:
        reject(
            f"{fields[field].option} {NONE!r} removes all budgets, so "
            f"{_format_alerts(fields[alerts], percents)} has none. Leave one of them out."
        )
    changes.pop(alerts, None)
    if budgets:
        changes[field] = tuple(
            BudgetChange(per=each.per, amount_nano_usd=each.amount_nano_usd, alerts=percents)
            for each in budgets
        )


def with_alerts(
    changes: Changes, fields: Mapping[str, OptionField], record: msgspec.Struct
) -> Changes:
    """Give alerts that were typed without budgets to each budget of `record`.

    Exits with status 1 if `record` has no budget.
    """
    for field, alerts in ALERTS.items():
        percents: tuple[int, ...] | None = changes.pop(alerts, None)
        if percents is None:
            continue
        budgets: Sequence[Budget] | None = getattr(record, field)
        if not budgets:
            fail(_no_budget_message(fields, field, percents))
        changes[field] = tuple(BudgetChange(per=each.per, alerts=percents) for each in budgets)
    return changes


def _no_budget_message(
    fields: Mapping[str, OptionField], field: str, percents: Sequence[int]
) -> str:
    alerts = _format_alerts(fields[ALERTS[field]], percents)
    return f"There is no budget for {alerts}. Add one, such as {fields[field].option} 25/month"


def _format_alerts(field: OptionField, percents: Sequence[int]) -> str:
    return format_option(field.option, percents or [NONE])


def _check_names(models: Sequence[str], providers: Sequence[str]) -> None:
    """Exit with status 1 for a name that no request can use, because it would allow nothing."""
    catalog = Setup().catalog
    enabled = [LOCAL, *catalog.offers]
    for name in providers:
        if name not in enabled:
            fail(
                f"--provider {name!r} is not enabled here. Enabled: {', '.join(enabled)}. To see "
                "how to enable one: embedway providers list --all"
            )
    for name in models:
        try:
            resolve(name, catalog, param="model")
        except UnknownModel as error:
            fail(f"--model {name!r} is not possible. {explain(error)}")
