"""`python -m chaos`: its page, its messages, and that it leaves nothing running."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from chaos import page
from chaos.processes import check
from chaos.processes.scenarios import redis
from raw_http import until

ROOT = Path(__file__).parent.parent
PROCESSES = (sys.executable, "-m", "chaos", "processes")


def test_page() -> None:
    """The page has the figures of the last run that was kept."""
    results = json.loads(page.RESULTS.read_text())
    assert not any(each["is_short"] for each in results.values())
    assert page.page(page.PAGE.read_text(), results) == page.PAGE.read_text(), "run: make docs"


def chaos(command: Sequence[object], **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with wide lines."""
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | {"COLUMNS": "200"} | env,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_checks_can_fail() -> None:
    """A promise is broken beyond its bound, and if nothing was tried that could break it."""
    assert check.none_of("failures", 0, out_of=10).is_kept
    assert not check.none_of("failures", 1, out_of=10).is_kept
    assert not check.none_of("failures", 0, out_of=0).is_kept
    assert check.at_most("wait", 2, 2, " s").is_kept
    assert not check.at_most("wait", 2, 2.01, " s").is_kept
    assert not check.at_least("share", 80, 79.9, "%").is_kept
    assert not check.holds("ready", is_kept=False).is_kept
    slow = check.at_most("wait", 2, 3, " s", is_timing=True)
    assert not slow.is_kept
    assert slow.of_short_run().is_kept
    assert not check.none_of("failures", 1, out_of=10).of_short_run().is_kept
    times_s = [0, 1, 58.9, 59, 60, 117]
    assert redis.most_within(times_s, 59) == 4
    assert redis.most_within([], 59) == 0


def test_unknown_scenario() -> None:
    """A scenario that does not exist is a wrong command line, and the message names the others."""
    ran = chaos([*PROCESSES, "--only", "earthquake"])
    assert ran.returncode == 2
    assert "'earthquake'" in ran.stderr and "'restarts'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_no_folder_for_results(tmp_path: Path) -> None:
    """Results that could not be written are noticed before anything is measured."""
    ran = chaos([*PROCESSES, "--json", tmp_path / "missing" / "results.json"])
    assert ran.returncode == 2
    assert "is in no folder" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(("servers", "status"), [("", 0), ("required", 1)])
def test_missing_program_is_named(tmp_path: Path, servers: str, status: int) -> None:
    """Without Redis its scenario is skipped, or fails where servers are required, and says why."""
    command = [*PROCESSES, "--only", "redis", "--json", tmp_path / "results.json"]
    ran = chaos(command, PATH=str(tmp_path), EMBEDWAY_TEST_SERVERS=servers)
    assert ran.returncode == status, ran.stdout
    assert "redis-server is not installed: apt-get install" in ran.stdout
    assert "Traceback" not in ran.stderr
    written = page.figures(json.loads((tmp_path / "results.json").read_text()))
    assert "redis-server is not installed: apt-get install" in written


def test_too_few_files() -> None:
    """A scenario for which this user may open too few files is skipped, with the reason."""
    command = shlex.join([*PROCESSES, "--only", "idle"])
    ran = chaos(["sh", "-c", f"ulimit -n 500 && exec {command}"])
    assert ran.returncode == 0, ran.stderr
    assert "skipped: this user may open only 500 files" in ran.stdout


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    """After Ctrl-C in the middle of a scenario every process that was started has ended."""
    with subprocess.Popen(
        [*PROCESSES, "--only", "overload"], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        # Its welcome: by then, the program that started it knows it.
        logs = tmp_path.glob
        until(
            lambda: (
                any(each.stat().st_size for each in logs("*/busy/log"))
                or process.poll() is not None
            )
        )
        assert running_in(tmp_path)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    until(lambda: not running_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def running_in(folder: Path) -> list[str]:
    """Return the processes whose temporary folder this is, except the one that makes it."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            is_child = str(folder).encode() in environ.read_bytes()
            command = environ.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if is_child and b"serve" in command.split(b"\0"):
            found.append(command.decode())
    return found
