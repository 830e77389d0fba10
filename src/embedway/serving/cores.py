"""Counts the processor cores that this process may use."""

import os
from contextlib import suppress
from pathlib import Path

MOST_BY_ITSELF = 8
"""The most workers that `auto` starts."""


def count_workers(setting: int | str) -> int:
    """Return how many workers a value of the setting `workers` means."""
    return setting if isinstance(setting, int) else min(usable_cores(), MOST_BY_ITSELF)


def usable_cores() -> int:
    """Return the cores that the affinity of this process and the quota of its container leave it.

    Part of a core counts as one.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = read_quota()
    return cores if quota is None else max(1, min(cores, -int(-quota // 1)))


def read_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the quota of the container in cores; None if there is none."""
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is no number
    with suppress(OSError, ValueError):
        quota, period = (
            int((root / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    return None
