"""Shows how far the work on a corpus has come, and what was done."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from embedway.cli.terminal import count_of, err, note, progress, say
from embedway.core import money
from embedway.corpora.job import Progress
from embedway.corpora.options import JobOptions
from embedway.corpora.source import Source
from embedway.corpora.state import JobStatus

REPORT_S = 10.0
"""How often to print a line where there is no terminal."""


@contextmanager
def progress_bar(source: Source) -> Generator[Callable[[Progress], None]]:
    """Yield a function that shows how far a run has come, as a bar or in lines."""
    started_s = reported_s = time.monotonic()
    if err.is_terminal:
        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
        )
        with progress(*columns) as bar:
            task = bar.add_task("", total=max(source.total_bytes, 1), done="")

            def show(seen: Progress) -> None:
                bar.update(task, completed=seen.bytes_read, done=_describe(seen, started_s))

            yield show
        return

    def log(seen: Progress) -> None:
        nonlocal reported_s
        now_s = time.monotonic()
        if now_s - reported_s >= REPORT_S:
            reported_s = now_s
            share = 100 * seen.bytes_read // max(seen.total_bytes, 1)
            note(f"{share}% {_describe(seen, started_s)}")

    yield log


def wait_reporter() -> Callable[[str], None]:
    """Return a function that says why nothing is sent, now and then."""
    reported_s = float("-inf")

    def report(reason: str) -> None:
        nonlocal reported_s
        now_s = time.monotonic()
        if now_s - reported_s >= REPORT_S:
            reported_s = now_s
            note(f"Waiting: {reason}")

    return report


def _describe(seen: Progress, started_s: float) -> str:
    status, seconds = seen.status, max(time.monotonic() - started_s, 0.001)
    parts = [
        f"{status.rows:,} rows",
        f"{status.tokens:,} tokens",
        f"{status.rows / seconds:,.0f} rows/s",
    ]
    if status.cost_nano_usd:
        parts.append(f"{money.format_usd(status.cost_nano_usd)} USD")
    return ", ".join(parts)


def say_done(status: JobStatus, options: JobOptions, rejects: Path) -> None:
    """Say what a run has done, and where the rows are that it set aside."""
    parts = [f"{count_of(status.written, 'row')} embedded into {options.shown_sink}"]
    if status.unchanged:
        parts.append(f"{status.unchanged:,} unchanged")
    if status.removed:
        parts.append(f"{status.removed:,} removed")
    text = f"{', '.join(parts)}; {status.tokens:,} tokens"
    if status.cost_nano_usd:
        text += f", {money.format_usd(status.cost_nano_usd)} USD"
    say(f"{text}, in {format_duration(status.seconds)}.")
    if status.rejected:
        say(f"{count_of(status.rejected, 'row')} could not be embedded: see {rejects}")


def format_duration(seconds: float) -> str:
    """Return a duration for people, such as `95.0 s` or `12 min`."""
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004
