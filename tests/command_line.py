"""Runs command lines of `embedway`, each in a process of its own, within milliseconds.

Importing the program takes longer than most commands, so one process imports it once and forks for
each command line. The fork calls the program's own entry point, with its own arguments,
environment, folder and standard streams.
"""

import atexit
import contextlib
import fcntl
import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

PROGRAM = Path(sys.executable).with_name("embedway")
STDIN = 0
NUMBER = struct.Struct("i")
TIMEOUT_S = 120
"""The longest wait for a command, in seconds; far more than any takes."""


class Process:
    """A running command line, with those methods of `subprocess.Popen` that tests need."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | str,
        streams: tuple[IO[bytes], IO[bytes], IO[bytes]],
    ) -> None:
        """Start it; `streams` are its standard input, output and error."""
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(TIMEOUT_S)
        self._connection.connect(_forking())
        socket.send_fds(self._connection, [b"\n"], [each.fileno() for each in streams])
        asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        self.pid = self._told()
        self.returncode: int | None = None

    def _told(self) -> int:
        [number] = NUMBER.unpack(self._connection.recv(NUMBER.size))
        return number

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        """Wait until it has ended; return its exit status."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("embedway", timeout)
            self.returncode = self._told()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | str, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, with `input` as its standard input."""
    with contextlib.ExitStack() as files:
        stdin, stdout, stderr = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        stdin.write(input.encode())
        stdin.seek(0)
        process = Process(arguments, env=env, cwd=cwd, streams=(stdin, stdout, stderr))
        try:
            status = process.wait()
        finally:
            process.kill()
        printed = []
        for each in (stdout, stderr):
            each.seek(0)
            printed.append(each.read().decode())
    return subprocess.CompletedProcess(["embedway", *arguments], status, *printed)


@cache
def _forking() -> str:
    """Start the process that forks; return the path of its socket."""
    folder = tempfile.mkdtemp(prefix="embedway-commands-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/socket"
    # Without threads of numpy's, which would be missing after a fork.
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, path],
        env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests, which then end what they started
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return path


def _serve(path: str) -> None:
    """Fork for each connection until standard input ends, which it does when the tests end."""
    # Whoever only asks need not load these. The last two are what `serve` alone loads.
    import pydantic.v1  # noqa: F401, PLC0415

    from embedway.cli import app  # noqa: PLC0415
    from embedway.local import openvino  # noqa: F401, PLC0415
    from embedway.serving import server  # noqa: F401, PLC0415

    # No child's garbage collector is to go through what is loaded, and so copy it.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        os.write(1, b"ready\n")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
        while STDIN not in select.select([listening, STDIN], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _watch(connection, app)
            connection.close()


def _watch(connection: socket.socket, app: Callable[[], None]) -> None:
    """Run one command line in a child; send its process id, then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        asked = json.loads(lines.readline())
    process = os.fork()
    if process == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        if os.isatty(STDIN):  # which is its own, so that Ctrl-C there is for it
            os.setsid()
            fcntl.ioctl(STDIN, termios.TIOCSCTTY, 0)
            sys.stdout.reconfigure(line_buffering=True)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        if "PYTHONPATH" in os.environ:  # which an interpreter heeds when it starts
            os.execv(PROGRAM, [str(PROGRAM), *asked["arguments"]])
        sys.argv = [str(PROGRAM), *asked["arguments"]]
        app()
    connection.sendall(NUMBER.pack(process))
    _, status = os.waitpid(process, 0)
    connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
