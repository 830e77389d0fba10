"""The command `processes`: runs scenarios, prints what was measured, and judges it."""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from chaos.processes.check import Check
from chaos.processes.scenarios import SCENARIOS, describe
from chaos.processes.stage import Lacking, Shared, Skipped, Stage

BROKEN, WRONG, INTERRUPTED = 1, 2, 130
_EPILOG = """\
scenarios:
{scenarios}

examples:
  python -m chaos processes --only restarts      one scenario, in full
  python -m chaos processes --short              whether everything works; the figures mean little
  python -m chaos processes --json chaos/results.json && make docs
                                                 measure, and put the figures into
                                                 docs/reliability.md

Needs Linux, and from Debian: postgresql redis-server nginx-light faketime. A scenario that lacks
something is skipped, and says what. Everything runs on 127.0.0.1 and in temporary folders, and
ends with the run; Ctrl-C ends it early. The exit status is 0 if every promise was kept, 1 if one
was not, 2 for a wrong command line, and 130 after Ctrl-C.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one scenario."""

    name: str
    seconds: float
    load: float
    """The load average of the machine before."""
    checks: Sequence[Check] = ()
    skipped: str = ""
    """Why it did not run."""

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept, as far as it ran."""
        return all(each.is_kept for each in self.checks)


def add_to(commands: Any) -> None:
    """Add the command to those of `python -m chaos`."""
    parser = commands.add_parser(
        "processes",
        help="run real gateways, databases and clients on this machine, and break them",
        description="Run real gateways, databases, balancers and clients on this machine, break "
        "them, and compare what clients and the ledger saw with what is promised.",
        epilog=_EPILOG.format(
            scenarios="\n".join(f"  {name:10} {describe(name)}" for name in SCENARIOS)
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, metavar="NAME", help="run these scenarios alone"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="run each in its shortest form, too short to judge times",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also keep the results in FILE",
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen scenarios; return the status to exit with."""
    console = Console()
    if chosen.json and not chosen.json.parent.is_dir():
        sys.stderr.write(f"--json {str(chosen.json)!r} is in no folder. Make the folder first.\n")
        return WRONG
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))  # so that all children end
    outcomes: list[Outcome] = []
    try:
        with ExitStack() as stack:
            shared = Shared(stack, is_short=chosen.short)
            outcomes.extend(
                _run_one(name, shared, console, is_short=chosen.short)
                for name in chosen.only or SCENARIOS
            )
    except KeyboardInterrupt:
        console.print(_table(outcomes))
        console.print("Interrupted; everything that was started has ended.")
        return INTERRUPTED
    console.print(_table(outcomes))
    if chosen.json:
        _keep(outcomes, chosen.json, is_short=chosen.short)
    broken = [each.name for each in outcomes if not each.is_kept]
    if broken:
        console.print(f"Broken promises: {', '.join(broken)}.", style="bold red")
    return BROKEN if broken else 0


def _run_one(name: str, shared: Shared, console: Console, *, is_short: bool) -> Outcome:
    began_s, load = time.monotonic(), os.getloadavg()[0]
    checks: Sequence[Check] = ()
    skipped = ""
    with console.status(name) as status, ExitStack() as stack:

        def say(what: str) -> None:
            status.update(f"{name}: {what}")

        stage = Stage(shared, stack, is_short=is_short, say=say)
        try:
            checks = SCENARIOS[name](stage)
            if is_short:
                checks = [each.of_short_run() for each in checks]
        except Skipped as reason:
            skipped = str(reason)
        except (Lacking, TimeoutError, httpx.HTTPError) as reason:
            checks = [Check("it runs to its end", "yes", str(reason), is_kept=False)]
    outcome = Outcome(name, time.monotonic() - began_s, load, checks, skipped)
    verdict = f"skipped: {skipped}" if skipped else "kept" if outcome.is_kept else "BROKEN"
    console.print(f"{name:10} {verdict}, {outcome.seconds:.0f} s", markup=False, highlight=False)
    return outcome


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("scenario", "promise", "bound", "measured", "verdict")
    for outcome in outcomes:
        if outcome.skipped:
            table.add_row(outcome.name, outcome.skipped, "", "", "skipped")
        for number, check in enumerate(outcome.checks):
            table.add_row(
                "" if number else outcome.name,
                check.promise,
                check.bound,
                check.measured,
                "kept" if check.is_kept else "[bold red]BROKEN[/bold red]",
            )
        table.add_section()
    return table


def _keep(outcomes: Sequence[Outcome], file: Path, *, is_short: bool) -> None:
    """Put the outcomes in place of what the file has of the same scenarios."""
    found = json.loads(file.read_text()) if file.exists() else {}
    found |= {
        each.name: {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": _machine(),
            "load": round(each.load, 1),
            "is_short": is_short,
            "seconds": round(each.seconds),
            "skipped": each.skipped,
            "checks": [asdict(check) for check in each.checks],
        }
        for each in outcomes
    }
    results = {name: found[name] for name in SCENARIOS if name in found}
    file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def _machine() -> str:
    """Return the cores, memory and versions of this machine, in words."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if "model name" in line), "")
    cores = f"{len(os.sched_getaffinity(0))} cores"
    cores += f" of {model}" if model else ""
    return f"{cores}, {gib:.0f} GiB, Linux, Python {platform.python_version()}"
