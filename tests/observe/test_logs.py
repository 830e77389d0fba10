"""A log that cannot be written delays no request, fails none, and loses no usage record."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import EMBEDWAY, Gateway, clean_environment, get

REQUESTS = 40
"""Their log lines need more than the smallest pipe holds."""
SMALLEST_PIPE = 4096
LIMIT_S = 60


def start(gateway: Gateway, **streams: object) -> Gateway:
    """Starts a gateway with these as its standard streams, and waits until it is ready."""
    gateway.process = subprocess.Popen(
        [EMBEDWAY, "serve"], env=clean_environment() | gateway.env, cwd=gateway.folder, **streams
    )
    until(gateway.ready)
    return gateway


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def small_pipe(path: Path) -> int:
    """A named pipe that holds little, opened so that a writer finds a reader."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    return reader


def ask(gateway: Gateway, times: int = REQUESTS) -> None:
    """Each request gets its answer, and the gateway says that it is alive."""
    with gateway.client() as client:
        for _ in range(times):
            assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
        assert client.get("/livez").status_code == 200


def dropped(gateway: Gateway) -> int:
    """The lines that the gateway says it has dropped."""
    metrics = get(f"{gateway.url}/metrics").text
    return int(float(re.search(r"embedway_log_lines_dropped_total ([\d.e+]+)", metrics)[1]))


def read(reader: int) -> str:
    """What is in the pipe."""
    try:
        return os.read(reader, 1 << 20).decode()
    except BlockingIOError:
        return ""


def test_nobody_reads(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """A full pipe and a reader that left stop nothing; a new reader learns how much is missing."""
    reader = small_pipe(tmp_path / "log")
    with (tmp_path / "log").open("wb") as pipe:
        gateway = start(new_gateway(), stdout=pipe, stderr=pipe)
    ask(gateway)
    os.close(reader)
    until(lambda: dropped(gateway))
    ask(gateway)

    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    logged = ""

    def told() -> bool:
        nonlocal logged
        ask(gateway, 1)
        logged += read(reader)
        return "log lines dropped" in logged

    until(told)
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    missing = next(line for line in lines if line["event"] == "log lines dropped")
    assert missing["level"] == "warning"
    assert 0 < missing["total"] <= dropped(gateway)
    ask(gateway)  # the pipe is full once more
    assert gateway.usage()[0]["requests"] > 3 * REQUESTS
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(LIMIT_S) == 0
    os.close(reader)


def test_nothing_can_be_written(new_gateway: Callable[..., Gateway]) -> None:
    """A full device for the log, and a banner whose reader has left, stop nothing."""
    reader, closed = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") as full:
        gateway = start(new_gateway(), stdout=closed, stderr=full)
    os.close(closed)
    ask(gateway)
    until(lambda: dropped(gateway) > REQUESTS)
    assert gateway.usage()[0]["requests"] == REQUESTS
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(LIMIT_S) == 0


CLOSED = """
from embedway.cli.terminal import err, out
from embedway.observe import logs, streams
streams.write_in_background()
logs.configure_logs(format="auto", level="info")
out.print("banner")
err.print("progress")
"""


def test_no_standard_streams() -> None:
    """A process whose standard streams were closed before it started runs without them."""
    closing = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash"]
    done = subprocess.run([*closing, sys.executable, "-c", CLOSED], check=False, timeout=LIMIT_S)
    assert done.returncode == 0


CROWD = """
import logging, sys, structlog
from embedway.observe import logs, streams
dropped = streams.write_in_background()
logs.configure_logs(format="json", level="info")
for n in range(20_000):
    logging.getLogger("library").error("%s of %s", n, "x" * 400)
print(dropped())
sys.stdin.readline()
raise RuntimeError("after all")
"""


@pytest.fixture
def crowded() -> Iterator[subprocess.Popen]:
    """A process that has logged more than can wait, and crashes when it is given a line."""
    with subprocess.Popen(
        [sys.executable, "-c", CROWD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert 5000 < int(process.stdout.readline()) < 15_000
        yield process


def test_what_waits_is_bounded(crowded: subprocess.Popen) -> None:
    """What does not fit is dropped, which is told once the rest is read; a crash comes out too."""
    while json.loads(crowded.stderr.readline())["event"] != "log lines dropped":
        pass
    crowded.stdin.close()
    crash = json.loads(crowded.stderr.read().splitlines()[-1])
    assert crash["event"] == "crashed"
    assert "RuntimeError: after all" in crash["exception"]


def test_a_crash_that_nobody_reads(crowded: subprocess.Popen) -> None:
    """A process ends although nobody reads what it has to say."""
    crowded.stdin.close()
    assert crowded.wait(LIMIT_S) == 1
