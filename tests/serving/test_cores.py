"""The workers that `auto` starts: as many as there are cores to use, at most eight."""

import subprocess
import sys
from pathlib import Path

import pytest

from embedway.serving.cores import count_workers, read_quota, usable_cores


def test_affinity():
    """A process that may use one core counts one."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from embedway.serving.cores import count_workers; print(count_workers('auto'))"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux has affinities")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"


def test_count():
    """A number means itself; `auto` is bounded."""
    assert count_workers(3) == 3
    assert 1 <= count_workers("auto") == min(usable_cores(), 8)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None):
    """The quota of a container is read in both of its forms."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert read_quota(tmp_path) == quota
