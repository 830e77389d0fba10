"""Starts the servers under load, and reads from /proc what they use."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

START_S = 180
"""How long a server may take to listen. Some load a model first."""
STOP_S = 15


class SystemFailed(Exception):
    """A system does not start, or does not answer as it must. The message says why."""


@dataclass(frozen=True)
class System:
    """A server under load."""

    process: subprocess.Popen
    port: int
    key: str
    headers: dict[str, str] = field(default_factory=dict)
    """The headers that each request needs besides the key."""

    @property
    def url(self) -> str:
        """The URL of its embeddings endpoint."""
        return f"http://127.0.0.1:{self.port}/v1/embeddings"

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self.process.pid

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers of a request."""
        return {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            **self.headers,
        }


@contextmanager
def running(
    command: Sequence[str | Path], port: int, *, log: Path | None = None, **env: str
) -> Iterator[subprocess.Popen]:
    """Start a server, wait until it listens, and stop it at the end.

    It gets no Ctrl-C from the terminal, so that always this program stops it.

    Args:
        command: What to run.
        port: Where it will listen.
        log: The file for what it prints as errors; None for those of this program.
        env: Environment variables beside those of this program.

    Raises:
        SystemFailed: It does not start.
    """
    with open(log or os.devnull, "wb") as errors:  # noqa: PTH123  # os.devnull is no Path
        process = subprocess.Popen(
            command,
            env=os.environ | env,
            stdout=subprocess.DEVNULL,
            stderr=errors if log else None,
            start_new_session=True,
        )
    try:
        try:
            wait_until_listening(process, port)
        except SystemFailed as error:
            raise SystemFailed(f"{error} {last_line(log)}".strip()) from None
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a process that leads a session, by SIGTERM, or by SIGKILL if that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path | None) -> str:
    """Return the last line of a log, which tends to say why its program ended."""
    lines = log.read_text(errors="replace").split("\n") if log else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(process: subprocess.Popen, port: int) -> None:
    """Wait until the process listens on `port`.

    Raises:
        SystemFailed: It ends instead, or does not listen in time.
    """
    deadline_s = time.monotonic() + START_S
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline_s:
            raise SystemFailed(f"It did not listen within {START_S} s.")
        time.sleep(0.1)
    raise SystemFailed(f"It ended with status {process.returncode} instead of listening.")


def tree(pid: int) -> Iterator[Path]:
    """Yield the folders in /proc of a process and its descendants."""
    yield Path(f"/proc/{pid}")
    for task in Path(f"/proc/{pid}/task").iterdir():
        children: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children = (task / "children").read_text().split()
        for child in children:
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds so far, in user and kernel, of a process and its descendants."""
    ticks = 0
    for folder in tree(pid):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process and its descendants."""
    return _memory_mib(pid, "VmHWM:")


def resident_mib(pid: int) -> float:
    """Return the memory of a process and its descendants."""
    return _memory_mib(pid, "VmRSS:")


def _memory_mib(pid: int, name: str) -> float:
    lines = (line for folder in tree(pid) for line in (folder / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
