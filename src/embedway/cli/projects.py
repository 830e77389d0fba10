"""`embedway projects`: make, list, show, change and archive projects."""

from typing import Annotated, Any

import typer

from embedway.admin.actors import Actor
from embedway.admin.acts import Acts
from embedway.admin.public_fields import public
from embedway.cli.acting import (
    PAGE,
    ModelOption,
    ProviderOption,
    Yes,
    acting,
    ask,
    check_name,
    every,
    given,
    joined,
    names,
    print_record,
    spending,
    spending_json,
    time,
)
from embedway.cli.amounts import (
    AlertOption,
    BudgetOption,
    LimitOption,
    budgets,
    check_alerts,
    check_budgets,
    check_limits,
    limits,
    realerted,
    repeated,
    shown_alerts,
    shown_budget,
    shown_limit,
)
from embedway.cli.counted import counted
from embedway.cli.terminal import AsJson, out, print_json, print_table, reject
from embedway.core.budgets import Budget
from embedway.core.clock import now_ms
from embedway.core.projects import Project
from embedway.storage import records

Which = Annotated[str, typer.Argument(metavar="ID|NAME", help="The project, by its id or name.")]
UserLimits = Annotated[
    list[str] | None,
    repeated(
        "--user-limit",
        metavar="OF=N/PER",
        check=check_limits,
        help="As --limit, but of each end user.",
    ),
]
UserBudgets = Annotated[
    list[str] | None,
    repeated(
        "--user-budget",
        metavar="USD/PER",
        check=check_budgets,
        help="As --budget, but of each end user.",
    ),
]
UserAlerts = Annotated[
    list[str] | None,
    repeated(
        "--user-alert",
        metavar="PERCENT",
        check=check_alerts,
        help="As --alert, but of each --user-budget.",
    ),
]
EuNative = Annotated[
    bool | None,
    typer.Option(
        "--eu-native/--no-eu-native",
        help="Serve all requests by deployments based and regulated in the EU.",
    ),
]
NoRetention = Annotated[
    bool | None,
    typer.Option(
        "--zero-data-retention/--no-zero-data-retention",
        help="Serve all requests by deployments that keep no data.",
    ),
]
Quantization = Annotated[
    bool | None,
    typer.Option(
        "--allow-quantization/--no-allow-quantization",
        help="Whether deployments with quantised weights may serve its requests.",
    ),
]

UNKNOWN = 0
"""When the default project was created, in databases that older versions made."""

commands = typer.Typer(
    no_args_is_help=True, help="Projects: tenants with keys, end users, limits and budgets."
)


@commands.command()
def create(
    name: Annotated[str, typer.Option(help="What it is called in lists and reports.")],
    models: ModelOption = None,
    providers: ProviderOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    alert: AlertOption = None,
    user_limit: UserLimits = None,
    user_budget: UserBudgets = None,
    user_alert: UserAlerts = None,
    eu_native: EuNative = None,
    zero_data_retention: NoRetention = None,
    allow_quantization: Quantization = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id.")] = False,
) -> None:
    """Make a project. Its limits and budgets hold for all its requests together.

    embedway projects create --name web

    embedway projects create --name web --limit requests=600/minute --limit tokens=1000000/day

    embedway projects create --name web --budget 25/month --budget 2/day --alert 80 --alert 100

    embedway projects create --name web --user-limit requests=10/second --user-budget 0.5/day
    """
    check_name(name)
    changes = given(
        name=name,
        limits=limits(limit),
        budgets=budgets(budget, alerts=alert),
        user_limits=limits(user_limit, option="--user-limit"),
        user_budgets=budgets(
            user_budget, alerts=user_alert, option="--user-budget", alert_option="--user-alert"
        ),
        eu_native=eu_native,
        zero_data_retention=zero_data_retention,
        allow_quantization=allow_quantization,
    ) | names(models, providers)
    acts, actor = acting()
    project = acts.create_project(actor, changes, unique=True)
    if as_json:
        print_json({"id": project.id})
        return
    out.print(project.id)


@commands.command("list")
def list_projects(
    archived: Annotated[
        bool, typer.Option("--archived", help="List archived projects too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List projects, oldest first."""
    acts, actor = acting()
    found = every(
        lambda after: acts.projects(actor, after=after, limit=PAGE, archived=archived),
        lambda project: project.id,
    )
    if as_json:
        print_json([_json(acts, each) for each in found])
        return
    rows = [
        {
            "id": each.id,
            "name": each.name,
            "status": _status(each),
            "created": _created(each),
            "limits": joined([shown_limit(limit) for limit in each.limits]),
            "budgets": joined([shown_budget(budget) for budget in each.budgets]),
        }
        for each in found
    ]
    print_table(rows, empty="No projects: embedway projects create --name NAME", as_json=False)


@commands.command()
def show(project: Which, as_json: AsJson = False) -> None:
    """Show a project: its rules, its limits, and what is spent and left of its budgets."""
    acts, actor = acting()
    found = acts.find_project(actor, project)
    if as_json:
        print_json(_json(acts, found))
        return
    print_record(
        {
            "id": found.id,
            "name": found.name,
            "status": _status(found),
            "created": _created(found),
            "archived": time(found.archived_ms),
            "models": joined(found.models),
            "providers": joined(found.providers),
            "rules": joined(_rules(found)) or "none",
            "limits": joined([shown_limit(each) for each in found.limits]) or "none",
            "budgets": spending(acts, found),
            "limits of each end user": joined([shown_limit(each) for each in found.user_limits])
            or "none",
            "budgets of each end user": joined([_with_alerts(each) for each in found.user_budgets])
            or "none",
        }
    )


@commands.command()
def update(
    project: Which,
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    models: ModelOption = None,
    providers: ProviderOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    alert: AlertOption = None,
    user_limit: UserLimits = None,
    user_budget: UserBudgets = None,
    user_alert: UserAlerts = None,
    eu_native: EuNative = None,
    zero_data_retention: NoRetention = None,
    allow_quantization: Quantization = None,
) -> None:
    """Change what the options say, and nothing else; running gateways follow within a second.

    Limits, budgets, models or providers that you give replace all that the project had. A budget
    keeps its alerts unless --alert gives others.

    embedway projects update web --budget 50/month

    embedway projects update web --alert 80 --alert 100

    embedway projects update web --limit none --model any
    """
    check_name(name)
    changes: dict[str, Any] = given(
        name=name,
        limits=limits(limit),
        budgets=budgets(budget, alerts=alert, of_new=False),
        user_limits=limits(user_limit, option="--user-limit"),
        user_budgets=budgets(
            user_budget,
            alerts=user_alert,
            of_new=False,
            option="--user-budget",
            alert_option="--user-alert",
        ),
        eu_native=eu_native,
        zero_data_retention=zero_data_retention,
        allow_quantization=allow_quantization,
    ) | names(models, providers)
    if not (changes or alert or user_alert):
        reject("Nothing to change. Give an option, as this shows: embedway projects update --help")
    acts, actor = acting()
    found = acts.find_project(actor, project)
    if alert and not budget:
        changes["budgets"] = realerted(found.budgets, alert)
    if user_alert and not user_budget:
        changes["user_budgets"] = realerted(
            found.user_budgets, user_alert, option="--user-budget", alert_option="--user-alert"
        )
    acts.update_project(actor, found.id, changes, unique=True)
    out.print(f"{found.id} is changed.")


@commands.command()
def archive(project: Which, yes: Yes = False) -> None:
    """Archive a project for good: its keys stop working within a second; its usage is kept.

    At a terminal it asks first.
    """
    acts, actor = acting()
    found = acts.find_project(actor, project)
    if found.archived_ms is None:
        keys = counted(_working(acts, actor, found), "working key")
        ask(f"Archive {found.name} ({found.id}) for good? This ends {keys}.", yes=yes)
    acts.archive_project(actor, found.id)
    out.print(f"{found.id} is archived.")


def _working(acts: Acts, actor: Actor, project: Project) -> int:
    """How many of its keys work now: an issued one does with its issuer."""
    keys = every(
        lambda after: acts.keys(actor, project_id=project.id, after=after, limit=PAGE),
        lambda key: key.id,
    )
    active = {key.id: key.issued_by for key in keys if key.state(now_ms()) == "active"}
    return sum(issuer is None or issuer in active for issuer in active.values())


def _json(acts: Acts, project: Project) -> dict[str, Any]:
    shown = public(records.row(project))
    if project.created_ms == UNKNOWN:
        shown["created_at"] = None
    return shown | {"status": _status(project), "spending": spending_json(acts, project)}


def _created(project: Project) -> str | None:
    return "-" if project.created_ms == UNKNOWN else time(project.created_ms)


def _with_alerts(budget: Budget) -> str:
    return f"{shown_budget(budget)}{shown_alerts(budget)}"


def _status(project: Project) -> str:
    return "active" if project.archived_ms is None else "archived"


def _rules(project: Project) -> list[str]:
    rules = {
        "eu_native": project.eu_native,
        "zero_data_retention": project.zero_data_retention,
        "no quantised weights": not project.allow_quantization,
    }
    return [rule for rule, holds in rules.items() if holds]
