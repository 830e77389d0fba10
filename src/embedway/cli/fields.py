"""The fields of projects, keys and end users as options of commands, each described once.

A command takes them all in one parameter, `changes`; `with_fields` puts an option for each field
in its place.
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
    parse_alerts,
    parse_budgets,
    parse_limits,
    repeated,
)
from embedway.cli.terminal import explain, fail, load_catalog, reject
from embedway.config import settings as config
from embedway.core.budget import Budget
from embedway.core.errors import UnknownModel
from embedway.core.keys import SCOPES
from embedway.organization.budget_changes import BudgetChange
from embedway.organization.rules import MAX_NAME_CHARACTERS, is_visible
from embedway.routing.resolve import resolve

ANY = "any"
"""Allows all models or providers."""
PROJECT_SAYS = "project"
"""Gives an end user the limits or budgets that its project has for each."""
ALERTS = {"budgets": "alerts", "user_budgets": "user_alerts"}
"""The option of alerts that goes with each field of budgets."""
MIN_DAYS, MAX_DAYS = 0.00001, 36_500

Changes = dict[str, Any]
"""New values by the name of the field."""


class OptionField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that an option sets."""

    option: str
    info: Any
    """What `typer.Option` returns."""
    type: Any = list[str]
    parse: Callable[[str, Any], Any] = lambda _, typed: typed
    """Turns the option and what was typed into the value of the field."""


def _name(option: str, name: str) -> str:
    if not is_visible(name):
        reject(
            f"{option} {name!r} is not possible: use 1 to {MAX_NAME_CHARACTERS} visible characters."
        )
    return name


def _names(option: str, typed: Sequence[str]) -> tuple[str, ...] | None:
    if ANY in typed and len(typed) > 1:
        others = ", ".join(repr(name) for name in typed if name != ANY)
        reject(f"{option} {ANY!r} allows all, so it excludes {others}. Leave one of them out.")
    return None if list(typed) == [ANY] else tuple(dict.fromkeys(typed))


def _scopes(option: str, typed: Sequence[str]) -> tuple[str, ...]:
    for each in typed:
        if each not in SCOPES[:-1]:
            reject(f"{option} {each!r} is not possible. Choose from: {', '.join(SCOPES[:-1])}.")
    return tuple(dict.fromkeys(typed))


def _or_project(field: OptionField) -> OptionField:
    def parse(option: str, typed: Sequence[str]) -> Any:
        return None if list(typed) == [PROJECT_SAYS] else field.parse(option, typed)

    return msgspec.structs.replace(field, parse=parse)


def _text(help: str) -> OptionField:
    return OptionField(option="--name", info=typer.Option(help=help), type=str, parse=_name)


def _list(
    option: str, parse: Callable[[str, Any], Any], help: str, form: str | None = None
) -> OptionField:
    info = typer.Option(option, metavar=form, help=f"{help} Repeatable.")
    return OptionField(option=option, info=info, parse=parse)


def _flag(name: str, help: str) -> OptionField:
    return OptionField(
        option=f"--{name}", info=typer.Option(f"--{name}/--no-{name}", help=help), type=bool
    )


_ACCESS = {
    "models": _list("--model", _names, "A model it may use, by any name; 'any' for all."),
    "providers": _list("--provider", _names, "A provider that may serve it; 'any' for all."),
}
_AMOUNTS = {
    "limits": _list(
        "--limit",
        parse_limits,
        "Such as requests=600/minute; 'none' for no limits.",
        "OF=N/PER",
    ),
    "budgets": _list(
        "--budget", parse_budgets, "Such as 25/month or 0.5/day; 'none' for no budgets.", "USD/PER"
    ),
    "alerts": _list(
        "--alert",
        parse_alerts,
        "Tell an operator when PERCENT of each --budget is spent; in an update without --budget, "
        "of each budget there is. 'none' for never.",
        "PERCENT",
    ),
}
PROJECT = {
    "name": _text("What it is called in lists and reports."),
    **_ACCESS,
    **_AMOUNTS,
    "user_limits": _list(
        "--user-limit", parse_limits, "As --limit, but of each end user.", "OF=N/PER"
    ),
    "user_budgets": _list(
        "--user-budget", parse_budgets, "As --budget, but of each end user.", "USD/PER"
    ),
    "user_alerts": _list(
        "--user-alert", parse_alerts, "As --alert, but of each --user-budget.", "PERCENT"
    ),
    "eu_native": _flag(
        "eu-native", "Serve all requests by deployments based and regulated in the EU."
    ),
    "zero_data_retention": _flag(
        "zero-data-retention", "Serve all requests by deployments that keep no data."
    ),
    "allow_quantization": _flag(
        "allow-quantization",
        "Whether deployments with quantised weights may serve its requests.",
    ),
}
KEY = {
    "name": _text("What it is for, to find it again."),
    "scopes": _list("--scope", _scopes, f"What it may do: {', '.join(SCOPES[:-1])}."),
    "expires_days": OptionField(
        option="--expires-days",
        info=options.days(
            "--expires-days",
            least=MIN_DAYS,
            most=MAX_DAYS,
            example=30,
            help="Days from now until it stops working. A new key without it never does.",
        ),
        type=float,
    ),
    **_ACCESS,
    **_AMOUNTS,
}
KEY_UPDATE = {
    **KEY,
    "never_expires": OptionField(
        option="--never-expires",
        info=typer.Option("--never-expires", help="Let it work without an end."),
        type=bool,
    ),
}
END_USER = {
    "limits": _or_project(_AMOUNTS["limits"]),
    "budgets": _or_project(_AMOUNTS["budgets"]),
    "alerts": _AMOUNTS["alerts"],
}


def with_fields(
    fields: Mapping[str, OptionField], *, update: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field, in the place of its parameter `changes`.

    What is wrong by itself exits with status 2 before the command begins. `update` is the command
    as it is typed, if it changes what there is; such a command wants one option at least.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            changes = {
                name: field.parse(field.option, typed)
                for name, field in fields.items()
                if (typed := given.pop(name)) is not None
            }
            if update and not changes:
                reject(f"Nothing to change. Give an option, as this shows: {update} --help")
            for budgets in filter(fields.__contains__, ALERTS):
                _add_alerts(changes, fields, budgets, new=not update)
            if changes.get("models") or changes.get("providers"):
                _check_names(changes.get("models") or (), changes.get("providers") or ())
            command(**given, changes=changes)

        added = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if name == "name" and not update else None,
                annotation=Annotated[field.type | None, field.info],
            )
            for name, field in fields.items()
        ]
        own = inspect.signature(command).parameters.values()
        parameters = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for each in own
            for parameter in (added if each.name == "changes" else [each])
        ]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def _add_alerts(
    changes: Changes, fields: Mapping[str, OptionField], field: str, *, new: bool
) -> None:
    """Move the typed alerts into the typed budgets; a new record has no others for them."""
    alerts = ALERTS[field]
    percents: tuple[int, ...] | None = changes.get(alerts)
    if field not in changes:
        if new and percents is not None:
            reject(_no_budget(fields, field, percents))
        return
    budgets: tuple[Budget, ...] | None = changes[field]
    if budgets is None and percents is not None:
        reject(
            f"{fields[field].option} {PROJECT_SAYS!r} has the alerts of the project. Leave out "
            f"{_typed(fields[alerts], percents)}."
        )
    if percents and not budgets:
        reject(
            f"{fields[field].option} {NONE!r} takes all budgets away, so "
            f"{_typed(fields[alerts], percents)} has none. Leave one of them out."
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
    """Give alerts that were typed without budgets to each budget that `record` has.

    Exits with status 1 if it has none.
    """
    for field, alerts in ALERTS.items():
        percents: tuple[int, ...] | None = changes.pop(alerts, None)
        if percents is None:
            continue
        budgets: Sequence[Budget] | None = getattr(record, field)
        if not budgets:
            fail(_no_budget(fields, field, percents))
        changes[field] = tuple(BudgetChange(per=each.per, alerts=percents) for each in budgets)
    return changes


def _no_budget(fields: Mapping[str, OptionField], field: str, percents: Sequence[int]) -> str:
    typed = _typed(fields[ALERTS[field]], percents)
    return f"There is no budget for {typed}. Add one, such as {fields[field].option} 25/month"


def _typed(field: OptionField, percents: Sequence[int]) -> str:
    return repeated(field.option, percents or [NONE])


def _check_names(models: Sequence[str], providers: Sequence[str]) -> None:
    """Exit with status 1 for what no request could name: it would allow nothing."""
    catalog = load_catalog(config.load_settings())
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
