"""Runs the gateway on its server, and drains it: in one process, until a signal stops it."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from embedway import app
from embedway.app import Gateway
from embedway.config.configuration import Configuration
from embedway.config.settings import Settings
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
# makes them wait 5 ms. Well below `turns.TURN_S`, because a thread must wait for this long in one
# go, and the event loop lets go of Python for a moment between two turns.
SWITCH_INTERVAL_S = 0.0002
INTERRUPT_GRACE_S = 0.5
"""The longest to keep serving after Ctrl-C, in seconds."""
CLOSE_S = 5
"""How long clients may take to read their answers after the last request finished, in seconds."""
LONGEST_CLOSE_S = 20
"""The longest that shutdown may take, in seconds. Only a database that hangs takes longer."""

_log = structlog.get_logger("embedway.serve")


class GatewayServer:
    """A gateway that answers on a socket, from when it is made until `drain` has returned."""

    def __init__(self, gateway: Gateway, listening: socket.socket) -> None:
        """Begin to answer. The server closes the socket."""
        settings = gateway.current.configuration.settings
        self._gateway = gateway
        limits = ServerLimits(
            head_timeout_s=settings.header_timeout_s,
            max_head_bytes=MAX_HEAD_BYTES,
            max_connections=MAX_CONNECTIONS,
        )
        self._server = HttpServer(gateway, listening, limits)
        self.failure = asyncio.ensure_future(self._server.serve())
        """Ends with an error if the server fails."""

    async def drain(self, *, grace_s: float) -> None:
        """Keep serving for `grace_s` while `/readyz` says no, then answer what is in flight."""
        gateway, admission = self._gateway, self._gateway.admission
        admission.is_draining = True
        settings = gateway.current.configuration.settings
        _log.info("draining", in_flight=admission.requests, grace_s=grace_s)
        await asyncio.sleep(grace_s)
        await self._server.stop()
        longest_s = settings.body_timeout_s + settings.request_timeout_s
        with suppress(TimeoutError):
            await asyncio.wait_for(admission.wait_until_idle(), longest_s)
        await asyncio.wait({self.failure}, timeout=CLOSE_S)
        self._server.abort()

    async def leave(self, *, grace_s: float) -> None:
        """Leave new connections to other processes with the same socket, and drain the others."""
        self._gateway.admission.is_replaced = True
        self._server.stop_accepting()
        await self.drain(grace_s=grace_s)


def tune_interpreter() -> None:
    """Set the garbage collector and the threads' turns for serving, once all parts are open."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


async def run_server(
    configuration: Configuration,
    bound: socket.socket,
    hangups: Hangups,
    on_ready: Callable[[Configuration, Sequence[str]], None],
    dropped_lines: Callable[[], int],
    telemetry: OtlpOptions | None,
) -> None:
    """Run the gateway on a bound socket until a signal stops it and it is drained.

    Calls `on_ready` with the configuration in force and the ids of drifted deployments once the
    gateway answers; `dropped_lines` counts the log lines dropped so far. Each of `hangups` reloads
    the configuration. Spans and metrics go where `telemetry` says, if anywhere.

    Raises:
        AddressError: Another process listens on the address.
    """
    hangup = hangups.watch()
    async with app.open_gateway(
        configuration, dropped_lines=dropped_lines, telemetry=telemetry
    ) as gateway:
        gateway.work_on_batches()
        tune_interpreter()
        stopping = on_signals()
        listen(bound, configuration.settings)
        server = GatewayServer(gateway, bound)
        on_ready(gateway.current.configuration, gateway.current.spaces.drifted_ids())
        reloading = asyncio.ensure_future(reload_on(hangup, hangups, gateway.reload, stopping))
        await asyncio.wait({server.failure, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if server.failure.done():
            await server.failure
        grace_s = grace_of(stopping.result(), gateway.current.configuration.settings)
        await server.drain(grace_s=grace_s)
        reloading.cancel()
        limit_shutdown()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os._exit(128 + number))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _log.info("stopped")


def grace_of(number: signal.Signals, settings: Settings) -> float:
    """Return how long to keep serving after a signal, in seconds."""
    # Whoever sends traffic here learns from /readyz and from closed connections to stop. A person
    # at a terminal has no load balancer to wait for, but clients that must not see a failure.
    if number is signal.SIGINT:
        return min(settings.drain_s, INTERRUPT_GRACE_S)
    return settings.drain_s


def on_signals(end: Callable[[], None] = lambda: None) -> asyncio.Future[signal.Signals]:
    """Return a future of the first SIGTERM or SIGINT.

    A second one calls `end` and ends the process at once.
    """
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if first.done():
            end()
            os._exit(128 + number)
        first.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return first


async def reload_on(
    hangup: asyncio.Event,
    hangups: Hangups,
    reload: Callable[[], Awaitable[object]],
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
            await reload()
        except EmbedwayError as error:
            _log.error("configuration not reloaded", reason=error.message)
        except Exception:  # noqa: BLE001  # the top of a background task
            _log.exception("reload broke")


def limit_shutdown() -> None:
    """End the process after `LONGEST_CLOSE_S`, because closing may block the event loop."""
    watchdog = threading.Timer(LONGEST_CLOSE_S, _end_unclosed)
    watchdog.daemon = True
    watchdog.start()


def _end_unclosed() -> None:
    _log.error("ended without closing the database", waited_s=LONGEST_CLOSE_S)
    streams.drain()
    os._exit(1)
