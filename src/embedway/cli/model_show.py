"""`embedway models show`: one model explained, with everybody who serves it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from embedway.cli.gateway_client import SAMPLE, GatewayClient, Url, open_client
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, err, escape, fail, out, print_json, print_table
from embedway.core.errors import EmbedwayError
from embedway.core.request import Preference
from embedway.routing.model_listing import DeploymentCard

Places = dict[str, tuple[int | None, str]]
"""By deployment: when it would be asked, counted from 1, or None for not at all; and why."""


def show(
    name: Annotated[str, typer.Argument(help="By any name that a request may use.")],
    preference: Annotated[
        Preference, typer.Option(help="What to favour in the order.")
    ] = "balanced",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Explain a model: what it is, who serves it at what price, in which order, and why.

    If EMBEDWAY_API_KEY is set, the running gateway tells, which knows how fast providers are and
    who fails; else what is known here is shown. No provider is asked.

        embedway models show bge-m3

        embedway models show bge-m3 --preference cost

        embedway models show auto --json | jq '.deployments[].proof'
    """
    with open_client(url) as asked:
        cards = asked.deployments(name)
        if not cards:
            fail(f"The key in use may not use {name!r}.")
        places, refusal = _places(asked, name, preference)
    cards.sort(key=lambda card: places.get(card.id, (None,))[0] or len(cards) + 1)
    placed = [(card, *places.get(card.id, (None, _elsewhere(card, refusal)))) for card in cards]
    if as_json:
        deployments = [
            card.model_dump(mode="json") | {"order": order, "reason": reason}
            for card, order, reason in placed
        ]
        print_json({"name": name, "preference": preference, "deployments": deployments})
        return
    meant = [card for card in cards if card.id in places] or cards
    for label, value in _facts(meant).items():
        out.print(f"{label:12} {escape(value)}")
    out.print()
    print_table([_row(*each) for each in placed], empty="", as_json=False)
    if refusal:
        err.print(f"\n[yellow]refused now:[/yellow] {escape(refusal)}")


def _places(asked: GatewayClient, name: str, preference: Preference) -> tuple[Places, str]:
    """Who has which place, and why a request would be refused, if it would be."""
    try:
        told = asked.dry_run({"model": name, "input": SAMPLE, "preference": preference})
    except EmbedwayError as error:
        return {}, str(error)
    places: Places = {
        each.id: (number, each.reason) for number, each in enumerate(told.candidates, 1)
    }
    places |= {each.id: (None, each.reason) for each in told.unproven}
    places |= {each.id: (None, f"{each.filter}: {each.reason}") for each in told.removed}
    return places, ""


def _elsewhere(card: DeploymentCard, refusal: str) -> str:
    return "" if refusal else f"the name does not mean it; ask for {card.id}"


def _facts(meant: Sequence[DeploymentCard]) -> dict[str, str]:
    """What is known of the model, by whose vectors define its space if the name means it."""
    card = next((each for each in meant if each.proof == "reference"), meant[0])
    if not card.declared:
        return {
            "model": card.model,
            "known": "nothing but this name: nobody declared it. It is asked for as it is, its "
            "vectors are as wide as they come, and its price is unknown.",
            "space": card.space,
        }
    aliases = dict.fromkeys(alias for each in meant for alias in each.aliases)
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
        **_shared_space(card),
        "aliases": ", ".join(aliases) or "none",
    }


def _shared_space(card: DeploymentCard) -> dict[str, str]:
    """With which models it shares a space by their maker's word, and whether that is proven."""
    shared = card.shared_space
    if shared is None:
        return {}
    others = ", ".join(each for each in shared.models if each != card.model)
    if shared.proof == "reference":
        return {"shared with": f"{others}: their makers say that they share this space"}
    reason = f" ({shared.proof_reason})" if shared.proof_reason else ""
    return {"shared with": f"{others}, its maker says; {shared.proof} by canaries{reason}"}


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
        "retires": _end(card),
        "proof": proof if card.declared else "",
        "health": card.health,
        "why": reason,
    }


def _end(card: DeploymentCard) -> str:
    """What is known of how long its provider serves it, and what comes after it."""
    deprecated = f"deprecated {card.deprecated}" if card.deprecated else ""
    successor = f"successor {card.successor}" if card.successor else ""
    known = (str(card.retires or ""), deprecated, successor, card.dates_source)
    return ", ".join(filter(None, known))
