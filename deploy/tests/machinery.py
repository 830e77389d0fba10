"""Provides what the tests of deploy/ share: programs, and gateways to put behind something."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import START_S, Gateway, embedway

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


@pytest.fixture(scope="session")
def weights() -> None:
    """Have the weights of the built-in model in the cache."""
    pulled = embedway("models", "pull", env={}, cwd="/")
    assert pulled.returncode == 0, pulled.stderr


@pytest.fixture
def new_gateway(weights: None, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Return a function that makes gateways with settings of their own, not started yet."""
    made: list[Gateway] = []

    def make(**settings: object) -> Gateway:
        folder = tmp_path / f"gateway-{len(made)}"
        folder.mkdir()
        made.append(Gateway(folder, **settings))
        return made[-1]

    yield make
    for each in made:
        each.kill()
