"""Lets systems take turns under the same load, round after round, and compares their figures."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from benchmarks.processes import SystemFailed

OURS = "embedway"


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one system under one load."""

    per_s: float
    """Requests, or texts, answered per second."""
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """The system's own CPU time for a request or a text, in milliseconds."""


Turn = Callable[[float], Awaitable[Measurement]]
"""Puts a system under load for some seconds."""


async def take_turns(
    turns: Mapping[str, Turn],
    *,
    seconds: float,
    rounds: int,
    warm_up_s: float,
    failed: dict[str, str],
    on_turn: Callable[[str], None] = lambda _: None,
) -> dict[str, Measurement]:
    """Return the medians of each system over the rounds.

    Args:
        turns: The systems by name.
        seconds: How long each turn takes.
        rounds: How often each has its turn, after a first round that warms up.
        warm_up_s: How long the turns of that first round take.
        failed: Where to say why a system fails, by its name. It has no more turns.
        on_turn: Called with the name of whose turn begins.

    Raises:
        SystemFailed: Embedway itself fails.
    """
    seen: dict[str, list[Measurement]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in list(seen):
            on_turn(name)
            await asyncio.sleep(0)  # lets Ctrl-C end this, even where turns block
            try:
                measured = await turns[name](seconds if number else warm_up_s)
            except SystemFailed as error:
                if name == OURS:
                    raise
                failed[name] = str(error)
                del seen[name]
            else:
                seen[name].extend([measured] * bool(number))
    return {name: medians(measured) for name, measured in seen.items()}


def medians(measured: Sequence[Measurement]) -> Measurement:
    """Return the median of each figure, which is what to quote on a noisy machine."""
    return Measurement(
        **{
            field: statistics.median(getattr(each, field) for each in measured)
            for field in Measurement.__struct_fields__
        }
    )


def quantile_ms(latencies_s: Sequence[float], quantile: float) -> float:
    """Return a quantile of latencies, in milliseconds."""
    ordered = sorted(latencies_s)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000


def table(what: str, figures: Mapping[str, Measurement]) -> str:
    """Return a table of figures per second of `what`, with the ratios of Embedway to each."""
    ours = figures[OURS]
    width = max(map(len, figures)) + 2
    heads = (f"{what}/s", "p50 ms", "p99 ms", "CPU ms", "ratio", "CPU ratio")
    lines = ["  " + " " * width + "".join(f"{head:>12}" for head in heads)]
    for name, row in figures.items():
        lines.append(
            f"  {name:{width}}{row.per_s:12.1f}{row.p50_ms:12.2f}{row.p99_ms:12.2f}"
            f"{row.cpu_ms:12.3f}{ours.per_s / row.per_s:12.3g}{row.cpu_ms / ours.cpu_ms:12.3g}"
        )
    return "\n".join(lines)
