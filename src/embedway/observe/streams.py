"""Writes standard output and error in a thread, so that writers never wait.

A pipe without a reader blocks its writer, and a closed pipe or a full disk raises an error. Neither
may stop a gateway, so lines that cannot be written are dropped and counted.
"""

import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from select import PIPE_BUF
from threading import Event, RLock, Thread
from typing import Any, TextIO, cast

import structlog

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""The most bytes that may wait for a slow reader; text beyond that is dropped."""
REST_S = 0.01
"""The pause between two writes, in seconds, so that under load many lines share a system call."""
DRAIN_S = 2
"""The longest wait for a reader at the end of the process, in seconds."""

_log = structlog.get_logger("embedway.streams")


def write_in_background(*, shared: bool = False) -> Callable[[], int]:
    """Replace `sys.stdout` and `sys.stderr`; call it before anything keeps a reference to them.

    Args:
        shared: Whether other processes write to the same pipes, so that what is written at once
            must be whole lines that a pipe takes at once.

    Returns:
        A function that returns the number of lines dropped so far.
    """
    output, errors = (
        BackgroundStream(_opened(each), shared=shared) for each in (sys.stdout, sys.stderr)
    )
    sys.stdout, sys.stderr = cast("TextIO", output), cast("TextIO", errors)
    return lambda: output.dropped + errors.dropped


def drain() -> None:
    """Write what is still waiting, before the process ends by `os._exit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, BackgroundStream):
            stream.drain()


def _opened(stream: TextIO | None) -> TextIO:
    # Python sets a stream to None if its descriptor was closed before the process started.
    return stream or Path(os.devnull).open("w")


class BackgroundStream:
    """A text stream whose `write` neither blocks nor fails; it counts the lines it drops."""

    def __init__(self, stream: TextIO, *, shared: bool = False) -> None:
        self.dropped = 0
        self._shared = shared
        self._stream = stream
        # Both are reentrant: a garbage collection inside `write` can make a finalizer write an
        # error to `sys.stderr`.
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._lock = RLock()
        self._waiting_bytes = 0
        self._reported = 0
        # Whether a failed write left half a line, which the next write must end first.
        self._cut = False
        self._ending = Event()
        self._thread = Thread(target=self._run, name=f"write {stream.name}", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str, /) -> int:
        """Hand `text` to the thread, or drop it if too much is waiting."""
        data = text.encode(self._stream.encoding, "backslashreplace")
        with self._lock:
            if self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
                self.dropped += data.count(b"\n")
                return len(text)
            self._waiting_bytes += len(data)
        self._queue.put(data)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def drain(self) -> None:
        """Write what is waiting, for at most `DRAIN_S`, and end the thread."""
        self._ending.set()
        self._queue.put(b"")
        self._thread.join(DRAIN_S)

    def _run(self) -> None:
        while not (self._ending.wait(REST_S) and self._queue.empty()):
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            data = b"".join(waiting)
            works = self._put_out(data)
            with self._lock:
                self._waiting_bytes -= len(data)
            if works and self.dropped > self._reported:
                # Log the total, so that the next line makes up for this one if it is dropped too.
                self._reported = self.dropped
                _log.warning("log lines dropped", total=self._reported)

    def _put_out(self, data: bytes) -> bool:
        """Write all of `data`, however long it takes. Return False if writing fails."""
        written = 0
        try:
            if self._cut:
                os.write(self._stream.fileno(), b"\n")
                self._cut = False
            while written < len(data):
                end = _end_of_lines(data, written) if self._shared else len(data)
                written += os.write(self._stream.fileno(), memoryview(data)[written:end])
        except OSError:
            self._cut = self._cut or data[:written][-1:] not in {b"", b"\n"}
            with self._lock:
                self.dropped += data.count(b"\n", written)
            return False
        return True


def _end_of_lines(data: bytes, start: int) -> int:
    """Return where the lines end, from `start`, that a pipe takes without lines of others in them.

    A longer line is taken as a whole.
    """
    end = data.rfind(b"\n", start, start + PIPE_BUF) + 1
    return end or data.find(b"\n", start) + 1 or len(data)
