"""Holds the figures of a comparison, and what they are compared with."""

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.turns import OURS, Measurement

LoadName = Literal["pass-through", "queries", "documents"]
LOADS: tuple[LoadName, ...] = ("pass-through", "queries", "documents")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a system under a load."""

    load: LoadName
    connections: int
    system: str
    figures: Measurement


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, as it is kept in `benchmarks/peers/results.json`."""

    date: str
    machine: str
    has_amx: bool
    precision: str
    """The precision of the built-in model."""
    load_average: float
    """Of the last minute before the comparison began: what else used the machine."""
    seconds: float
    rounds: int
    versions: dict[str, str]
    """The version of each peer, by its name."""
    rows: list[Row]
    did_not_run: dict[str, str]
    """Why a system has no rows, or lacks some, by its name."""

    def connections(self) -> list[int]:
        """Return the numbers of connections, in order."""
        return sorted({each.connections for each in self.rows})

    def systems(self, load: LoadName) -> list[str]:
        """Return who was measured under a load, in the order of measuring."""
        return list(dict.fromkeys(each.system for each in self.rows if each.load == load))

    def find(self, load: LoadName, connections: int, system: str) -> Measurement | None:
        """Return the figures of a system under a load, if there are any."""
        wanted = (load, connections, system)
        found = (
            row.figures for row in self.rows if (row.load, row.connections, row.system) == wanted
        )
        return next(found, None)

    def ratio(self, load: LoadName, connections: int, system: str) -> float | None:
        """Return how many times as many requests or texts per second Embedway answers."""
        ours, theirs = (self.find(load, connections, each) for each in (OURS, system))
        return ours.per_s / theirs.per_s if ours and theirs else None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as much as a peer Embedway is to do, at 32 connections."""

    load: LoadName
    system: str
    ratio: float
    with_amx: float | None = None
    """The same on a CPU with AMX, where that differs."""

    connections: int = 32

    def for_machine(self, *, has_amx: bool) -> float:
        """Return the ratio to reach on a machine with or without AMX."""
        return self.with_amx if has_amx and self.with_amx else self.ratio


TARGETS = (
    Target(load="pass-through", system="LiteLLM", ratio=40),
    Target(load="pass-through", system="Portkey", ratio=5),
    Target(load="queries", system="Infinity", ratio=5, with_amx=8),
    Target(load="documents", system="Infinity", ratio=4, with_amx=5),
)


def describe_machine() -> tuple[str, bool]:
    """Return the machine in words, and whether its CPU has AMX."""
    cpu = Path("/proc/cpuinfo").read_text()
    [name, *_] = re.findall(r"^model name\s*: (.+)$", cpu, re.MULTILINE) or ["unknown CPU"]
    flags = set(re.findall(r"\b(?:amx_tile|avx512_bf16|avx512f|avx2)\b", cpu))
    words = {"amx_tile": "AMX", "avx512_bf16": "AVX-512 bf16", "avx512f": "AVX-512", "avx2": "AVX2"}
    best = next((words[flag] for flag in words if flag in flags), "no AVX2")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {name.strip()} ({best})", "amx_tile" in flags
