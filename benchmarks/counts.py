"""Counts the instructions of a request, and compares them with the counts that were committed.

    python -m benchmarks.counts [--update]

`benchmarks/counted.py` says what is counted, by callgrind, which sees the same instructions however
busy the machine is. The counts depend on the versions of Python and of the libraries, so update
them with these: `--update` writes them to `benchmarks/counts.json`. Needs valgrind.
"""

import argparse
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.processes import free_port, running

COMMITTED = Path(__file__).with_name("counts.json")
TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many instructions each part takes."""

    python: str
    machine: str
    margin: float
    """By which share a part may take more than this before the command fails."""
    instructions: dict[str, int]


def count(folder: Path) -> dict[str, int]:
    """Count, with files in a folder; return the instructions of each part."""
    port = free_port()
    provider = [sys.executable, "-m", "benchmarks.fixed_server", str(port)]
    program = [sys.executable, "-m", "benchmarks.counted", f"http://127.0.0.1:{port}/v1"]
    callgrind = [tool("valgrind"), "--tool=callgrind", "--quiet", "--instr-atstart=no"]
    callgrind += ["--dump-before=getsid", f"--callgrind-out-file={folder / 'count'}"]
    with running(provider, port):
        process = subprocess.Popen(
            [*callgrind, *program],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                sys.exit("The program to count ended instead of preparing. Its errors are above.")
            control = [tool("callgrind_control"), "--instr=on", str(process.pid)]
            subprocess.run(control, check=True, capture_output=True)
            printed, _ = process.communicate("go\n")
    if process.returncode:
        sys.exit("The program to count failed. Its errors are above.")
    return read(folder, parts=json.loads(printed))


def read(folder: Path, *, parts: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Return the instructions of each part from the files that callgrind wrote.

    There are two for each run of a part: of what came before it, and of the run.

    Args:
        folder: Where the files are.
        parts: The runs of each part, and how often a run does it, in the order of the runs.
    """
    dumps = sorted(folder.glob("count.*"), key=lambda each: int(each.suffix[1:]))
    totals = (int(TOTALS.findall(each.read_text())[0]) for each in dumps[1::2])
    return {
        name: round(min(itertools.islice(totals, runs)) / times)
        for name, (runs, times) in parts.items()
    }


def compare(found: Mapping[str, int], committed: Counts) -> tuple[str, bool]:
    """Return a table, and whether each part takes no more than it may."""
    lines, is_good = [f"{'instructions':34}{'committed':>14}{'now':>14}{'change':>9}"], True
    for name, now in found.items():
        before = committed.instructions.get(name)
        if before is None:
            lines.append(f"{name:34}{'':14}{now:14,}      new")
            continue
        change = now / before - 1
        verdict = ""
        if change > committed.margin:
            is_good, verdict = False, f"  more than {committed.margin:.0%} above"
        lines.append(f"{name:34}{before:14,}{now:14,}{change:+9.1%}{verdict}")
    return "\n".join(lines), is_good


def tool(name: str) -> str:
    """Return the path of a program of valgrind."""
    return shutil.which(name) or sys.exit(
        f"{name} is missing. On Debian and Ubuntu: apt-get install valgrind"
    )


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--update", action="store_true", help="keep the counts as the new ones")
    chosen = options.parse_args()
    committed = msgspec.json.decode(COMMITTED.read_bytes(), type=Counts)
    python, machine = platform.python_version(), platform.machine()
    with tempfile.TemporaryDirectory() as folder:
        found = count(Path(folder))
    table, is_good = compare(found, committed)
    print(table)
    if chosen.update:
        new = Counts(python=python, machine=machine, margin=committed.margin, instructions=found)
        COMMITTED.write_bytes(msgspec.json.format(msgspec.json.encode(new), indent=2) + b"\n")
        print(f"Wrote {os.path.relpath(COMMITTED)}")
        return
    if (python, machine) != (committed.python, committed.machine):
        print(
            f"The committed counts are of Python {committed.python} on {committed.machine}, these "
            f"of {python} on {machine}: they cannot be compared."
        )
        return
    if not is_good:
        sys.exit("If that is worth it, keep the new counts: make bench-counts OPTIONS=--update")


if __name__ == "__main__":
    main()
