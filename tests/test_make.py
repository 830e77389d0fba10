"""The Makefile: every target of it is run, here or by `.ci/run`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from conftest import clean_environment, free_port, get

ROOT = Path(__file__).parent.parent
HERE = {"serve", "bench-counts"}
"""Targets that .ci/run leaves to these tests, or to people: counting takes minutes."""


def test_every_target_is_run() -> None:
    """No target waits for somebody to notice that it fails."""
    [phony] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = re.findall(r"^make (.+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert HERE | {word for line in lines for word in line.split()} >= set(phony.split())


def test_serve(minilm: object, tmp_path: Path) -> None:
    """`make serve` serves until Ctrl-C, and says how to ask it."""
    port = free_port()
    settings = {"EMBEDWAY_DATA_DIR": str(tmp_path), "EMBEDWAY_PORT": str(port)}
    # What runs these tests is what `make setup` installed, or is as good.
    command = ["make", "--old-file=.venv/setup", f"BIN={Path(sys.executable).parent}", "serve"]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environment() | settings, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert any("Embedway is ready" in line for line in process.stdout)
            assert get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.stdout.read()
