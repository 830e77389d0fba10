"""Receives SIGHUP, which reloads the configuration, from the start of the process on."""

import asyncio
import os
import signal
from pathlib import Path


class Hangups:
    """The SIGHUPs that this process gets; one that comes before the gateway is ready waits.

    The system sends the same signal when the terminal of the process goes away.
    """

    def __init__(self) -> None:
        """Receive the signal from now on; without that, it would end the process."""
        self._came_early = False
        # `nohup` has the signal ignored: then the gateway outlives its terminal.
        ends_with_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        self._has_terminal = ends_with_terminal and _is_there_a_terminal()
        signal.signal(signal.SIGHUP, lambda _, __: self._note())

    @property
    def is_terminal_gone(self) -> bool:
        """Whether the process had a terminal at the start, and has none now."""
        return self._has_terminal and not _is_there_a_terminal()

    def watch(self) -> asyncio.Event:
        """Return an event that each SIGHUP sets from now on, and an earlier one has set."""
        hangup = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        if self._came_early:
            hangup.set()
        return hangup

    def _note(self) -> None:
        self._came_early = True


def _is_there_a_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        os.close(os.open(Path("/dev/tty"), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
