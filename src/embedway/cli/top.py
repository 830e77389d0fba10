"""`embedway top`: shows what a running gateway does now."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.live import Live

from embedway.cli import options
from embedway.cli.gateway_client import (
    KEY_VARIABLE,
    GatewayUnreachable,
    RunningGateway,
    Url,
    address_of,
    fail_without_key,
)
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, fail, out, print_json
from embedway.cli.top_view import ActivityAnswer, Screen

TIMEOUT_S = 10
"""The longest wait for an answer, in seconds."""
RATE_OVER_S = 10
"""Refusals per second are those of about the last so many seconds."""


Window = Literal["10", "60", "300", "900"]
"""The seconds that a gateway can look back."""


class Grouping(Enum):
    """What rows stand for; the values are what `--by` takes."""

    MODEL = "model"
    PROVIDER = "provider"
    PROJECT = "project"
    KEY = "key"
    USER = "user"


_PARAMETERS = {
    Grouping.MODEL: "model",
    Grouping.PROVIDER: "provider",
    Grouping.PROJECT: "project_id",
    Grouping.KEY: "api_key_id",
    Grouping.USER: "user_id",
}
_KEYS = {
    b"m": Grouping.MODEL,
    b"p": Grouping.PROVIDER,
    b"j": Grouping.PROJECT,
    b"k": Grouping.KEY,
    b"u": Grouping.USER,
}
_QUIT = b"q"
_HELP = "keys: m model  p provider  j project  k key  u user  q quit"


def top(
    by: Annotated[Grouping, typer.Option(help="What each row stands for.")] = Grouping.MODEL,
    seconds: Annotated[Window, typer.Option(help="How far to look back.")] = "60",
    interval: Annotated[
        int,
        options.whole_number(
            "--interval", least=1, most=3600, example=2, help="Ask again after N seconds."
        ),
    ] = 2,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show what a running gateway does now: traffic, cost, latency, errors, refusals.

    Needs an admin key in EMBEDWAY_API_KEY. Traffic and refusals are those of all replicas; queues
    and deployments are those of the replica that answers.

        embedway top

        embedway top --by project --seconds 300

        embedway top --once --json | jq .total

    The keys m, p, j, k and u group by model, provider, project, key and end user; q quits. In a
    pipe, one picture is printed, or with --json a line for each answer.
    """
    setup = Setup()
    address = address_of(url, setup)
    key = setup.loaded.variables.get(KEY_VARIABLE)
    if not key:
        fail_without_key(address)
    gateway = RunningGateway(address, key)
    if as_json:
        _print_lines(gateway, by, seconds, interval=0 if once else interval)
        return
    try:
        first = _ask(gateway, by, seconds)
    except GatewayUnreachable as error:
        fail(f"{error} Start one with 'embedway serve', or name another with --url.")
    screen = Screen(address, deque([first], max(2, RATE_OVER_S // interval)), help=_HELP)
    if once or not out.is_terminal:
        screen.print_once()
        return
    _watch(gateway, screen, by, seconds, interval)


def _query(by: Grouping, seconds: Window) -> str:
    query = urlencode({"seconds": seconds, "group_by": _PARAMETERS[by]})
    return f"/v1/organization/activity?{query}"


def _ask(gateway: RunningGateway, by: Grouping, seconds: Window) -> ActivityAnswer:
    return gateway.fetch(_query(by, seconds), ActivityAnswer, timeout_s=TIMEOUT_S)


def _print_lines(gateway: RunningGateway, by: Grouping, seconds: Window, *, interval: int) -> None:
    """Print a line of JSON for each answer; only one if `interval` is 0."""
    while True:
        print_json(gateway.fetch(_query(by, seconds), dict[str, Any], timeout_s=TIMEOUT_S))
        sys.stdout.buffer.flush()
        if not interval:
            return
        time.sleep(interval)


def _watch(
    gateway: RunningGateway, screen: Screen, by: Grouping, seconds: Window, interval: int
) -> None:
    """Show what happens until someone presses q or Ctrl-C."""
    console = Console(highlight=False, emoji=False)  # as wide as the terminal is, also later
    live = Live(screen, console=console, screen=True, auto_refresh=False)
    with _keys_at_once():
        try:  # its own `with` would leave the terminal as it is if Ctrl-C came in the first drawing
            live.start(refresh=True)
            while (typed := _read_key(interval)) != _QUIT:
                if typed in _KEYS:
                    by = _KEYS[typed]
                try:
                    screen.show(_ask(gateway, by, seconds))
                except GatewayUnreachable as error:  # it may be restarting
                    screen.problem = f"Asking again: {error}"
                live.refresh()
        finally:
            live.stop()


@contextmanager
def _keys_at_once() -> Generator[None]:
    """Let the terminal hand over each key when it is pressed, and restore it at the end."""
    # A signal that ends the process must not leave the terminal as it is here.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _read_key(timeout_s: float) -> bytes:
    """Return the next key, or nothing after `timeout_s`."""
    if not sys.stdin.isatty():
        time.sleep(timeout_s)
        return b""
    if not select.select([sys.stdin], [], [], timeout_s)[0]:
        return b""
    return os.read(sys.stdin.fileno(), 1) or _QUIT  # the terminal is gone
