"""Measures what a worker process adds: requests a second, and CPU time, with 1, 2 and 4 of them.

    python -m benchmarks.workers [--seconds 4] [--rounds 3] [--workers 1 2 4] [--json]

Requests are passed through to a provider, first without limits and then with rate limits and a
budget on the key, on SQLite and on Postgres with Redis. Provider, client and databases are those of
`benchmarks.passthrough` and `benchmarks.sizing`, on the same cores as the gateway. So where cores
are few, requests a second say little: what a worker adds there is told by the requests that a
second of the gateway's CPU time answers, which stays the same if workers do not stand in each
other's way. Postgres and Redis are not part of the gateway's CPU time.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import passthrough
from benchmarks.passthrough import load, tool
from benchmarks.processes import System, resident_mib
from benchmarks.sizing import KEY, Backends, on_postgres, on_sqlite
from benchmarks.turns import Measurement, medians

CONNECTIONS = 32
"""The client's connections for each worker."""
Setup = Callable[[], AbstractContextManager[Backends]]
SETUPS: Sequence[tuple[str, Setup]] = (("SQLite", on_sqlite), ("Postgres and Redis", on_postgres))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one number of workers answered in one setup."""

    setup: str
    limits: bool
    """Whether the key has rate limits and a budget."""
    workers: int
    requests_per_s: float
    p99_ms: float
    cpu_ms: float
    """The CPU time of all processes of the gateway per request, in milliseconds."""
    memory_mib: float
    """The memory of all processes of the gateway, shared pages counted in each."""

    @property
    def requests_per_cpu_s(self) -> float:
        """The requests that a second of the gateway's CPU time answers."""
        return 1000 / self.cpu_ms


def measure(counts: Sequence[int], seconds: int, rounds: int) -> list[Row]:
    """Measure all numbers of workers in all setups."""
    rows: list[Row] = []
    for name, setup in SETUPS:
        for limits in (False, True):
            with ExitStack() as stack:
                rows += _measure_in_turn(
                    stack, name, setup, limits=limits, counts=counts, seconds=seconds, rounds=rounds
                )
    return rows


def _measure_in_turn(
    stack: ExitStack,
    name: str,
    setup: Setup,
    *,
    limits: bool,
    counts: Sequence[int],
    seconds: int,
    rounds: int,
) -> list[Row]:
    """Start a gateway with each number of workers, and put each under load, round after round."""
    gateways: dict[int, tuple[System, System]] = {}
    for count in counts:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backends = stack.enter_context(setup())
        provider = passthrough.start_provider(stack, tool("nginx"), folder)
        gateway = passthrough.start_embedway(
            stack,
            f"http://127.0.0.1:{provider.port}/v1",
            folder,
            *(KEY if limits else ()),
            EMBEDWAY_WORKERS=str(count),
            **backends.settings,
        )
        gateways[count] = provider, gateway
        passthrough.check("embedway", gateway)
        _load(*gateways[count], count, passthrough.WARM_UP_S)
    seen: dict[int, list[Measurement]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            seen[count].append(_load(*gateways[count], count, seconds))
    return [
        Row(
            setup=name,
            limits=limits,
            workers=count,
            requests_per_s=(median := medians(seen[count])).per_s,
            p99_ms=median.p99_ms,
            cpu_ms=median.cpu_ms,
            memory_mib=resident_mib(gateways[count][1].pid),
        )
        for count in counts
    ]


def _load(provider: System, gateway: System, workers: int, seconds: int) -> Measurement:
    return load(provider, gateway, CONNECTIONS * workers, seconds)


def show(rows: Sequence[Row]) -> None:
    """Print a table. The last column compares each number of workers with the first."""
    table = Table(
        *("setup", "limits and budget", "workers", "requests/s", "p99 ms", "CPU ms a request"),
        *("requests a CPU second", "memory, MiB", "of one worker's"),
    )
    for row in rows:
        first = next(each for each in rows if (each.setup, each.limits) == (row.setup, row.limits))
        table.add_row(
            row.setup,
            "yes" if row.limits else "no",
            str(row.workers),
            f"{row.requests_per_s:,.0f}",
            f"{row.p99_ms:.1f}",
            f"{row.cpu_ms:.3f}",
            f"{row.requests_per_cpu_s:,.0f}",
            f"{row.memory_mib:.0f}",
            f"{row.requests_per_cpu_s / first.requests_per_cpu_s:.2f}",
        )
    Console(width=140).print(table)


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=4, help="of load in each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--json", action="store_true", help="print JSON")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    try:
        rows = measure(chosen.workers, chosen.seconds, chosen.rounds)
    except KeyboardInterrupt:
        sys.exit(130)
    if chosen.json:
        print(msgspec.json.encode(rows).decode())
    else:
        show(rows)


if __name__ == "__main__":
    main()
