"""Runs command lines of `embedway`, each in a process of its own, within milliseconds.

To import the program takes longer than most commands do. So one process imports it, once, and forks
for each command line: what runs is the program's own entry point, with the arguments, environment,
folder and standard streams that it is given, and nothing that another command line left behind.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

STDIN = 0
TIMEOUT_S = 300
"""Far more than any command takes here: that it ends is what tests ask."""


def run(
    arguments: Sequence[str], *, env: dict[str, str], cwd: Path | str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a command line with `given` as its standard input, and waits for its end."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        stdin.write(given.encode())
        stdin.seek(0)
        connection.settimeout(TIMEOUT_S)
        connection.connect(_forking())
        streams = [each.fileno() for each in (stdin, stdout, stderr)]
        socket.send_fds(connection, [b"\n"], streams)
        asked = {"arguments": list(arguments), "env": env, "cwd": str(cwd)}
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile("r") as told:
            process = int(told.readline())
            try:
                status = int(told.readline())
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise
        printed = []
        for each in (stdout, stderr):
            each.seek(0)
            printed.append(each.read().decode())
    return subprocess.CompletedProcess(["embedway", *arguments], status, *printed)


@cache
def _forking() -> str:
    """Starts the process that forks; returns the path of the socket that it listens on."""
    folder = tempfile.mkdtemp(prefix="embedway-commands-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/socket"
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": folder}
    process = subprocess.Popen(
        [sys.executable, __file__, path],
        env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return path


def _serve(path: str) -> None:
    """Forks for each connection until standard input ends, as it does when the tests end."""
    from embedway.cli import app  # noqa: PLC0415 - whoever only asks need not load it

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


def _watch(connection: socket.socket, app) -> None:
    """Runs one command line in a child; says which process that is, then its exit status."""
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
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv = ["embedway", *asked["arguments"]]
        app()
    connection.sendall(b"%d\n" % process)
    _, status = os.waitpid(process, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
