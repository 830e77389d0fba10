"""Runs the gateway on its server until it is told to stop, then drains it."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # pyright: ignore[reportPrivateImportUsage]
from granian.server.embed import Server

from embedway import app
from embedway.app import Gateway
from embedway.config.settings import Settings
from embedway.observe import streams
from embedway.providers.provider_config import ProviderConfig
from embedway.serving.address import BACKLOG, listen

MAX_CONNECTIONS = 16_384
MAX_HEAD_BYTES = 16_384
"""The largest head of a request: all that a connection holds before it is known who asks."""
# Runs of the cyclic collector are what shows at the 99th percentile: what start-up made is
# frozen, and the rest is looked at rarely.
GC_THRESHOLD = 50_000
# The model, the tokenizer and the ledger come back from their libraries for a moment of Python each
# time; Python's default lets them wait 5 ms for it. Gave 10% more requests at 32 connections.
SWITCH_INTERVAL_S = 0.0005
INTERRUPT_GRACE_S = 0.5
"""After Ctrl-C: how long to go on serving, at most."""
CLOSE_S = 5
"""After everything in flight is answered: how long clients have to take their answers."""
LONGEST_CLOSE_S = 20
"""The longest that closing the parts may take. Only a database that stands still takes longer."""

_log = structlog.get_logger("embedway.serve")


class _Server(Server):
    """Granian on a socket of ours: its own would share the port with any second gateway."""

    def __init__(self, bound: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bound = bound

    def _init_shared_socket(self) -> None:
        self._ssp = None
        fd = self._bound.detach()
        self._shd = SocketHolder(fd, False, BACKLOG)  # noqa: FBT003  # pyright: ignore[reportCallIssue]


def run_server(
    settings: Settings,
    providers: Sequence[ProviderConfig],
    bound: socket.socket,
    *,
    on_ready: Callable[[Gateway], None],
    dropped_lines: Callable[[], int],
) -> None:
    """Returns once the gateway has been told to stop and is drained.

    Args:
        settings: How it runs.
        providers: Who may be asked.
        bound: Bound to where it listens; closed in the end.
        on_ready: Called once it answers.
        dropped_lines: Tells how many log lines could not be written so far.

    Raises:
        AddressError: Another process has come to listen there.
    """
    with bound:
        uvloop.run(_run(settings, providers, bound, on_ready, dropped_lines))


async def _run(
    settings: Settings,
    providers: Sequence[ProviderConfig],
    bound: socket.socket,
    on_ready: Callable[[Gateway], None],
    dropped_lines: Callable[[], int],
) -> None:
    async with app.open_gateway(settings, providers, dropped_lines=dropped_lines) as gateway:
        server = _Server(
            bound,
            gateway,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=round(settings.header_timeout_s * 1000),
                max_buffer_size=MAX_HEAD_BYTES,
            ),
        )
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        stopping = _on_signals()
        listen(bound, settings)
        serving = asyncio.ensure_future(server.serve())
        on_ready(gateway)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # it failed, and says why
        await _drain(settings, gateway, server, serving, stopping.result())
        _bound_the_end()
    _log.info("stopped")


def _on_signals() -> asyncio.Future[signal.Signals]:
    """Done at the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()

    def tell(number: signal.Signals) -> None:
        if told.done():
            os._exit(128 + number)
        told.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    return told


async def _drain(
    settings: Settings,
    gateway: Gateway,
    server: Server,
    serving: asyncio.Future[None],
    number: signal.Signals,
) -> None:
    gateway.admission.is_draining = True
    # Whoever sends traffic here learns from /readyz and from closed connections to stop. A person
    # at a terminal has no load balancer to wait for, but clients that must not see a failure.
    grace_s = settings.drain_s
    if number is signal.SIGINT:
        grace_s = min(grace_s, INTERRUPT_GRACE_S)
    _log.info("draining", in_flight=gateway.admission.requests, grace_s=grace_s)
    await asyncio.sleep(grace_s)
    server.stop()
    longest_s = settings.body_timeout_s + settings.request_timeout_s
    with suppress(TimeoutError):
        await asyncio.wait_for(gateway.admission.wait_until_idle(), longest_s)
    await asyncio.wait({serving}, timeout=CLOSE_S)


def _bound_the_end() -> None:
    """Lets the process end although what closes its parts, on the event loop, may block it."""
    watchdog = threading.Timer(LONGEST_CLOSE_S, _end_unclosed)
    watchdog.daemon = True
    watchdog.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))


def _end_unclosed() -> None:
    _log.error("ended without closing the database", waited_s=LONGEST_CLOSE_S)
    streams.drain()
    os._exit(1)
