"""`embedway providers`: lists the providers and tests whether they answer."""

import asyncio
from typing import Annotated

import typer

from embedway.cli.administration import Yes, confirm
from embedway.cli.setup import Setup
from embedway.cli.terminal import (
    AsJson,
    err,
    escape,
    fail,
    note,
    out,
    print_json,
    print_table,
    say_error,
)
from embedway.cli.trials import ModelName, ProviderName, choose_target, try_keys
from embedway.config.providers import incomplete_providers
from embedway.core.provider_error import ProviderError
from embedway.providers.adapter import ProviderRow
from embedway.providers.registry import load_rows

commands = typer.Typer(no_args_is_help=True, help="List providers and test them.")


@commands.command("list")
def list_providers(
    all_kinds: Annotated[
        bool, typer.Option("--all", help="List every kind of provider, and what enables it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the enabled providers, those of embedway.toml first.

    A provider is enabled by its usual variable, such as OPENAI_API_KEY, by a section of
    embedway.toml, or by running on this machine. To see what enables each kind:

        embedway providers list --all
    """
    if all_kinds:
        kinds = [_kind_row(row, notes=as_json) for row in load_rows().values()]
        print_table(kinds, as_json=as_json)
        return
    setup = Setup()
    deployments = setup.offered_by(setup.providers).deployments()
    rows = [
        {
            "name": each.name,
            "kind": each.row.name,
            "base_url": each.url,
            "keys": len(each.keys),
            "models": sum(deployment.provider == each.name for deployment in deployments),
            "from": each.origin,
        }
        for each in setup.providers
    ]
    print_table(
        rows,
        empty="No provider is enabled; only the models that run here are served. To see what "
        "enables one: embedway providers list --all",
        as_json=as_json,
    )
    for missing in incomplete_providers(setup.loaded):
        err.print(f"[yellow]left out:[/yellow] {escape(missing)}")


@commands.command("test")
def try_provider(name: ProviderName, model: ModelName = None, as_json: AsJson = False) -> None:
    """Embed one short text at a provider, with each of its keys, and show the result.

    The provider bills the text, about ten tokens for each key.

        embedway providers test openai

        embedway providers test ollama --model nomic-embed-text
    """
    target = choose_target(Setup(), name, model, command="test")
    deployment = target.deployment
    with err.status(f"Calling {target.provider.url}"):
        trials = asyncio.run(try_keys([target]))
    for trial in trials:
        with_key = f" with {trial.key}" if trial.key else ""
        if trial.failure:
            say_error(f"{name}{with_key}: {trial.failure}")
        elif as_json:
            print_json(
                {
                    "provider": name,
                    "model": deployment.upstream_name,
                    "dimensions": trial.dimensions,
                    "tokens": trial.tokens,
                    "milliseconds": trial.milliseconds,
                }
            )
        else:
            unknown = "" if deployment.model.declared else ", a model that is not in the catalog"
            out.print(
                f"[green]{escape(name)}[/green] answers{with_key}: "
                f"{escape(deployment.upstream_name)}{unknown}, {trial.dimensions} dimensions, "
                f"{trial.milliseconds} ms."
            )
    if any(trial.failure for trial in trials):
        raise typer.Exit(1)


@commands.command()
def verify(
    name: ProviderName,
    model: ModelName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare a provider with what this gateway expects of it, by about ten calls that it bills.

    The command shows the cost first, and asks at a terminal. The exit status is 1 if something
    differs.

        embedway providers verify openai

        embedway providers verify deepinfra --model bge-m3 --yes
    """
    target = choose_target(Setup(), name, model, command="verify")
    from embedway.cli.verification import Verification  # noqa: PLC0415  # the HTTP client: slow

    verification = Verification(target.provider, target.deployment, timeout_s=target.timeout_s)
    tokens = verification.tokens
    note(
        f"{name} will bill at most about {tokens} tokens of {target.deployment.upstream_name}: "
        f"{target.cost_usd(tokens)} USD."
    )
    confirm("Verify it?", yes=yes)
    try:
        with err.status(f"Calling {target.provider.url}"):
            findings = asyncio.run(verification.run())
    except (ProviderError, ImportError, ValueError) as error:
        fail(f"{name}: {target.explain(error)}")
    print_table(findings, as_json=as_json)
    if any(each.outcome == "differs" for each in findings):
        raise typer.Exit(1)


def _kind_row(row: ProviderRow, *, notes: bool) -> dict[str, object]:
    if row.own_server:
        enabled_by = f"found on port {row.port}" if row.port else ""
    else:
        needed = [row.sources(name)[0] for name in row.variables if name not in row.defaults]
        enabled_by = " + ".join(filter(None, (" or ".join(row.key_variables), *needed)))
    cells: dict[str, object] = {
        "kind": row.name,
        "provider": row.title,
        "enabled_by": enabled_by or f"[providers.{row.name}] in embedway.toml",
    }
    if notes:
        cells |= {"base_url": row.base_url, "eu_native": row.eu_native, "notes": row.notes}
    return cells
