"""`embedway webhooks`: shows who receives events, and sends a test event."""

import asyncio
import time
from typing import Annotated, get_args
from urllib.parse import urlsplit

import typer

from embedway.cli.setup import Setup, open_store
from embedway.cli.terminal import AsJson, fail, print_table, say
from embedway.config.schema import did_you_mean
from embedway.config.settings import load_settings
from embedway.config.webhooks import read_webhooks
from embedway.core.clock import now_ms
from embedway.events.event import TEST, Event, EventType
from embedway.events.outbox import read_summaries

commands = typer.Typer(
    no_args_is_help=True, help="Show who receives events, and send a test event."
)


@commands.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """Show each webhook, and how many deliveries to it wait or were given up in the last days.

    The sections [webhooks.NAME] of embedway.toml define them. Of an address, only the host is
    shown, because the rest may be a secret.

        embedway webhooks list
    """
    setup = Setup()
    webhooks = read_webhooks(setup.loaded)
    summaries = {}
    if webhooks:
        store = open_store(setup)
        summaries = read_summaries(store.database, [each.name for each in webhooks])
        store.database.dispose()
    rows = [
        {
            "webhook": each.name,
            "host": urlsplit(each.url).hostname,
            "format": each.format,
            "events": "all"
            if each.events >= {*get_args(EventType)}
            else ", ".join(sorted(each.events)),
            "waiting": summaries[each.name].waiting,
            "given_up": summaries[each.name].failed,
            "last_result": summaries[each.name].last_result,
        }
        for each in webhooks
    ]
    print_table(
        rows,
        empty="There is no webhook. Add a section [webhooks.NAME] to embedway.toml.",
        as_json=as_json,
    )


@commands.command()
def test(name: Annotated[str, typer.Argument(help="The name of its section.")]) -> None:
    """Send an event of type webhook.test now, once, and say what the receiver answered.

    The exit status is 1 if it was not received. No database is needed.

        embedway webhooks test ops
    """
    webhooks = {each.name: each for each in read_webhooks(load_settings())}
    webhook = webhooks.get(name)
    if webhook is None:
        near = did_you_mean(name, webhooks) if webhooks else "There is none in embedway.toml."
        fail(f"There is no webhook {name!r}. {near}")
    from embedway.events.sending import send  # noqa: PLC0415  # the HTTP client: slow

    event = Event(
        type=TEST,
        at_ms=now_ms(),
        subject=name,
        text=f"This is a test of the webhook {name} of Embedway.",
        data={"webhook": name},
    )
    begun_s = time.monotonic()
    answer = asyncio.run(send(webhook, event, now_ms=now_ms))
    milliseconds = round((time.monotonic() - begun_s) * 1000)
    result = f"{urlsplit(webhook.url).hostname}: {answer.text}, after {milliseconds} ms"
    if not answer.delivered:
        fail(f"The event {event.id} was not received. {result}.")
    say(f"The event {event.id} was received. {result}.")
