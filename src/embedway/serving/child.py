"""The start of every process that the supervisor starts."""

import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from embedway.config.settings import Settings
from embedway.observe import logs, streams

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def run_child(
    run: Callable[[socket.socket, Callable[[], int]], Coroutine[Any, Any, None]],
) -> None:
    """Run a child of the supervisor, which gets its end of a channel, and a count of lost lines.

    Signals are for the supervisor alone, which tells its children what to do: a service manager may
    send them to all processes at once.
    """
    for each in _IGNORED:
        signal.signal(each, signal.SIG_IGN)
    dropped_lines = streams.write_in_background(shared=True)
    import uvloop  # noqa: PLC0415

    with socket.socket(fileno=int(sys.argv[1])) as end:
        uvloop.run(run(end, dropped_lines))


def configure_child_logs(settings: Settings) -> None:
    """Log as the supervisor does."""
    logs.configure_logs(format=settings.log_format, level=settings.log_level, for_good=True)
