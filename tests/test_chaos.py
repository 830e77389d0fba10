"""`python -m chaos`: its page, its messages, and that it leaves nothing running."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from chaos import page
from raw_http import until

ROOT = Path(__file__).parent.parent
PROCESSES = (sys.executable, "-m", "chaos", "processes")


def test_page() -> None:
    """The page has the figures of the last run that was kept."""
    results = json.loads(page.RESULTS.read_text())
    assert not results["is_short"]
    assert page.page(page.PAGE.read_text(), results) == page.PAGE.read_text(), "run: make docs"


def test_unknown_scenario() -> None:
    """A scenario that does not exist is a wrong command line, and the message names the others."""
    ran = subprocess.run(
        [*PROCESSES, "--only", "earthquake"], cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "'earthquake'" in ran.stderr and "'restarts'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_cannot_run_is_said() -> None:
    """A scenario for which this user may open too few files is skipped, with the reason."""
    command = shlex.join([*PROCESSES, "--only", "idle"])
    ran = subprocess.run(
        ["sh", "-c", f"ulimit -n 500 && exec {command}"],
        cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "skipped: this user may open only 500 files" in ran.stdout


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    """After Ctrl-C in the middle of a scenario every process that was started has ended."""
    with subprocess.Popen(
        [*PROCESSES, "--only", "overload"], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        until(lambda: any(tmp_path.glob("*/busy/log")) or process.poll() is not None)
        started = running_in(tmp_path)
        assert started
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
