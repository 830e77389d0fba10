"""Provides what the tests of deploy/ share: programs to run, and what to wait for."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import START_S

DEPLOY = Path(__file__).parent.parent
ROOT = DEPLOY.parent


def unavailable(reason: str) -> None:
    """Skip the test, or fail if nothing may be skipped."""
    if os.environ.get("EMBEDWAY_TEST_SERVERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and fail with what it printed unless its status is 0."""
    done = run_any(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def run_any(*command: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its status."""
    words = [str(each) for each in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


def wait_until(condition: Callable[[], bool], *, because: Callable[[], str] = str) -> None:
    """Wait until the condition holds; `because` says what to show if it never does."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, because()
        time.sleep(0.05)


@contextlib.contextmanager
def running(command: list[object], log: Path, **options) -> Iterator[subprocess.Popen]:
    """Run a program beside the test, with its output in a file, and end it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(each) for each in command], stdout=output, stderr=output, **options
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(START_S)
