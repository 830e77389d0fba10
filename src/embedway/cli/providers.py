"""`embedway providers`: lists the providers and tests whether they answer."""

import asyncio
from typing import Annotated

import typer

from embedway.catalog import catalog
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, err, escape, out, print_json, print_table, say_error
from embedway.cli.trials import ModelName, ProviderName, choose_deployment, try_keys
from embedway.cli.verify import verify
from embedway.config.providers import incomplete_providers, provider_offers
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
    deployments = catalog.load_catalog(
        eu_native=False,
        offers=provider_offers(setup.providers),
        models=setup.catalog_in_use.models,
    ).deployments()
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
    setup = Setup()
    provider, deployment = choose_deployment(setup, name, model, command="test")
    timeout_s = setup.settings.request_timeout_s
    with err.status(f"Calling {provider.url}"):
        trials = asyncio.run(try_keys(provider, deployment, timeout_s=timeout_s))
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


commands.command("verify")(verify)


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
