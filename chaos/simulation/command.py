"""The command `python -m chaos simulation`: runs seeds on all cores, or one with its trace."""

import argparse
import gc
import logging
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaos.simulation.oracle import RULES
from chaos.simulation.seed import SeedReport, simulate

SEEDS = 10_000
SHORT_SEEDS = 60
PART = 10
"""How many seeds a process runs at a time."""
LINE_EVERY = 1000
"""Where there is no progress bar, print a line after so many seeds."""
SHOWN = 20
"""The most seeds with a broken promise to print."""

_EPILOG = (
    "Each seed is a small world: one to three replicas with the gateway's real code, four "
    "providers, a database, perhaps a Redis, and clients; and faults in all of them. After each "
    "seed these promises are checked: "
    + "; ".join(f"{name}: {text}" for name, text in RULES.items())
)


def add_to(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "simulation",
        help="simulate replicas, providers, database, Redis and clients, with faults from a seed",
        description="Simulate replicas of the gateway with faults in everything around them. "
        "Virtual time passes at once, and the same seed always does the same.",
        epilog=_EPILOG,
    )
    parser.add_argument("--seeds", type=_count, default=SEEDS, help="how many seeds (%(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (%(default)s)")
    parser.add_argument("--seed", type=int, help="run only this seed, and print its trace")
    parser.add_argument(
        "--jobs", type=_count, default=os.cpu_count() or 1, help="processes at a time (%(default)s)"
    )
    parser.add_argument(
        "--short", action="store_true", help=f"run {SHORT_SEEDS} seeds, to see that it works"
    )
    parser.set_defaults(run=run)


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of 1 or more")
    return int(value)


def run(options: argparse.Namespace) -> int:
    """Run what the options say; return the status to exit with: 1 if a promise was broken."""
    console = Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    if options.seed is not None:
        _start()
        return _show(console, simulate(options.seed))
    seeds = SHORT_SEEDS if options.short else options.seeds
    return _run_all(console, range(options.first, options.first + seeds), jobs=options.jobs)


def command_line(seed: int) -> str:
    """Return the command that runs a seed again."""
    return f"make chaos OPTIONS={shlex.quote(f'--seed {seed}')}"


def _show(console: Console, report: SeedReport) -> int:
    for line in report.trace:
        console.print(line, markup=False, highlight=False)
    for each in report.broken:
        console.print(f"BROKEN {each}", markup=False, highlight=False, style="red")
    kept = "Every promise is kept." if not report.broken else ""
    console.print(f"Seed {report.seed}: {_describe(Counter(report.counts))}. {kept}")
    return int(bool(report.broken))


def _run_all(console: Console, seeds: range, *, jobs: int) -> int:
    """Run seeds in several processes. Ctrl-C prints what ran."""
    began_s = time.monotonic()
    done, counts, broken = 0, Counter[str](), list[SeedReport]()
    was_interrupted = False
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    try:
        with progress, ProcessPoolExecutor(jobs, initializer=_start) as pool:
            pool.submit(_start).result()  # all fork now: Python loses a Ctrl-C that comes meanwhile
            console.print(
                f"Running {len(seeds)} seeds from {seeds[0]} on {jobs} core(s), until Ctrl-C."
            )
            bar = progress.add_task("seeds", total=len(seeds))
            for each in _run_in_parts(pool, seeds, jobs):
                done += 1
                counts.update(each.counts)
                if each.broken:
                    broken.append(each)
                    if len(broken) <= SHOWN:
                        _print_broken(console, each)
                progress.update(bar, completed=done, description=f"seeds, {len(broken)} broken")
                if done % LINE_EVERY == 0 and not console.is_terminal:
                    console.print(f"{done} seeds, {len(broken)} broken")
    except KeyboardInterrupt:
        was_interrupted = True
    if len(broken) > SHOWN:
        console.print(f"{len(broken) - SHOWN} more seeds break a promise.")
    console.print(
        f"{done} of {len(seeds)} seeds in {time.monotonic() - began_s:.0f} s: "
        f"{_describe(counts)}. {len(broken) or 'No'} seed(s) break a promise."
    )
    return 130 if was_interrupted else int(bool(broken))


def _run_in_parts(pool: ProcessPoolExecutor, seeds: range, jobs: int) -> Iterator[SeedReport]:
    """Yield the reports as soon as they are there, with few parts ahead."""
    starts = iter(range(seeds.start, seeds.stop, PART))
    running: set[Future[list[SeedReport]]] = set()
    try:
        while True:
            for start in islice(starts, max(0, 2 * jobs - len(running))):
                running.add(pool.submit(_run_part, range(start, min(start + PART, seeds.stop))))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield from each.result()
    finally:
        for each in running:
            each.cancel()


def _run_part(seeds: range) -> list[SeedReport]:
    reports = [simulate(seed) for seed in seeds]
    gc.collect()
    # The traces stay here: a seed with a broken promise can be run again.
    return [SeedReport(each.seed, each.broken, each.counts, []) for each in reports]


def _start() -> None:
    """Prepare a process that simulates."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()
    gc.disable()  # collected between parts


def _print_broken(console: Console, report: SeedReport) -> None:
    first, more = report.broken[0], len(report.broken) - 1
    also = f" (and {more} more)" if more else ""
    console.print(f"seed {report.seed} breaks {first}{also}", markup=False, style="red")
    console.print(f"  {command_line(report.seed)}", markup=False, highlight=False)


def _describe(counts: Counter[str]) -> str:
    requests = sum(counts[each] for each in ("answered", "refused", "left", "broken"))
    return (
        f"{requests} requests ({counts['answered']} answered, {counts['refused']} refused, "
        f"{counts['left']} given up, {counts['broken']} cut off), {counts['calls']} calls, "
        f"{counts['retries']} retries, {counts['faults']} faults"
    )
