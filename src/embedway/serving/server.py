"""Runs the gateway on its server until a signal stops it, then drains it."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog

from embedway import app
from embedway.app import Gateway
from embedway.config.configuration import Configuration
from embedway.core.errors import EmbedwayError
from embedway.observe import streams
from embedway.observe.otlp_options import OtlpOptions
from embedway.serving.address import listen
from embedway.serving.hangup import Hangups
from embedway.serving.http_server import HttpServer, ServerLimits

MAX_CONNECTIONS = 16_384
MAX_HEAD_BYTES = 16_384
"""The largest head of a request, the only memory that an unauthenticated connection uses."""
# Garbage collections show at the 99th percentile, so objects made at start are frozen and
# collections are rare.
GC_THRESHOLD = 50_000
# Threads of the model, the tokenizer and the ledger often need Python for a moment, and its default
# makes them wait 5 ms. This gave 10% more requests at 32 connections.
SWITCH_INTERVAL_S = 0.0005
INTERRUPT_GRACE_S = 0.5
"""The longest to keep serving after Ctrl-C, in seconds."""
CLOSE_S = 5
"""How long clients may take to read their answers after the last request finished, in seconds."""
LONGEST_CLOSE_S = 20
"""The longest that shutdown may take, in seconds. Only a database that hangs takes longer."""

_log = structlog.get_logger("embedway.serve")


async def run_server(
    configuration: Configuration,
    bound: socket.socket,
    hangups: Hangups,
    on_ready: Callable[[Gateway], None],
    dropped_lines: Callable[[], int],
    telemetry: OtlpOptions | None,
) -> None:
    """Run the gateway on a bound socket until a signal stops it and it is drained.

    Calls `on_ready` once the gateway answers; `dropped_lines` counts the log lines dropped so far.
    Each of `hangups` reloads the configuration. Spans and metrics go where `telemetry` says, if
    anywhere.

    Raises:
        AddressError: Another process listens on the address.
    """
    settings = configuration.settings
    hangup = hangups.watch()
    async with app.open_gateway(
        configuration, dropped_lines=dropped_lines, telemetry=telemetry
    ) as gateway:
        limits = ServerLimits(
            head_timeout_s=settings.header_timeout_s,
            max_head_bytes=MAX_HEAD_BYTES,
            max_connections=MAX_CONNECTIONS,
        )
        server = HttpServer(gateway, bound, limits)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        stopping = _on_signals()
        listen(bound, settings)
        serving = asyncio.ensure_future(server.serve())
        on_ready(gateway)
        reloading = asyncio.ensure_future(_reload_on(hangup, hangups, gateway, stopping))
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # it failed: raise the reason
        await _drain(gateway, server, serving, stopping.result())
        reloading.cancel()
        _limit_shutdown()
    _log.info("stopped")


def _on_signals() -> asyncio.Future[signal.Signals]:
    """Return a future of the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if first.done():
            os._exit(128 + number)
        first.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return first


async def _reload_on(
    hangup: asyncio.Event,
    hangups: Hangups,
    gateway: Gateway,
    stopping: asyncio.Future[signal.Signals],
) -> None:
    """Reload the configuration at each SIGHUP, or stop if it came because the terminal is gone."""
    while True:
        await hangup.wait()
        hangup.clear()
        if hangups.is_terminal_gone:
            if not stopping.done():
                stopping.set_result(signal.SIGINT)
            return
        try:
            await gateway.reload()
        except EmbedwayError as error:
            _log.error("configuration not reloaded", reason=error.message)
        except Exception:  # noqa: BLE001  # the top of a background task
            _log.exception("reload broke")


async def _drain(
    gateway: Gateway,
    server: HttpServer,
    serving: asyncio.Future[None],
    number: signal.Signals,
) -> None:
    gateway.admission.is_draining = True
    settings = gateway.current.configuration.settings
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
    server.abort()


def _limit_shutdown() -> None:
    """End the process after `LONGEST_CLOSE_S`, because closing may block the event loop."""
    watchdog = threading.Timer(LONGEST_CLOSE_S, _end_unclosed)
    watchdog.daemon = True
    watchdog.start()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))


def _end_unclosed() -> None:
    _log.error("ended without closing the database", waited_s=LONGEST_CLOSE_S)
    streams.drain()
    os._exit(1)
