"""The systemd unit."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from machinery import DEPLOY, run, unavailable

from embedway.config.settings import Settings

UNIT = DEPLOY / "systemd/embedway.service"


@pytest.fixture
def analyze() -> str:
    """Return the path of systemd-analyze."""
    found = shutil.which("systemd-analyze")
    if not found:
        unavailable("systemd-analyze is not installed: apt-get install systemd")
    return str(found)


def test_valid(analyze: str, tmp_path: Path) -> None:
    """Every line is one that systemd understands."""
    unit = tmp_path / UNIT.name
    # Where this machine has the program.
    unit.write_text(UNIT.read_text().replace("/opt/embedway/bin", str(Path(sys.executable).parent)))
    checked = run(analyze, "verify", "--man=no", unit)
    assert UNIT.name not in checked.stderr


def test_score(analyze: str) -> None:
    """deploy/README.md has the exposure that `systemd-analyze security` computes."""
    shown = run(analyze, "security", "--offline=yes", UNIT)
    [score] = re.findall(r"Overall exposure level for embedway\.service: ([\d.]+)", shown.stdout)
    assert f"an exposure of {score} " in (DEPLOY / "README.md").read_text()
    assert float(score) < 2


def test_time_to_stop() -> None:
    """The unit waits for requests in flight as long as docs/operations.md says."""
    [limit] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    defaults = Settings()
    longest = defaults.drain_s + defaults.body_timeout_s + defaults.request_timeout_s + 25
    assert int(limit) > longest
