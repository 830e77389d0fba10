"""Measures the built-in model over HTTP, beside a plain server and the engine without HTTP.

    python -m benchmarks.local_model [--seconds 3] [--rounds 3] [--case NAME]

All three run in turn on the same machine, round after round. It prints medians over the rounds, and
ratios. `benchmarks/corpus.py` makes the texts, which are as long as people's queries and documents.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import uvloop

from benchmarks.corpus import Kind, make_requests
from benchmarks.load import Load, free_port, load, median, wait_until_listening
from benchmarks.passthrough import cpu_s
from embedway.catalog import catalog
from embedway.config.engines import load_engine
from embedway.config.settings import load_settings
from embedway.core.batch import Batch
from embedway.local.engine import LocalEngine

REQUESTS = 500
"""How many different requests a case has."""
BURST = "32 requests of 32 documents at once"


@dataclass
class Case:
    """A kind of load."""

    kind: Kind
    texts: int
    """How many texts a request has."""
    connections: int

    @property
    def name(self) -> str:
        """The case in words."""
        what = self.kind if self.texts == 1 else f"{self.texts} {self.kind} a request"
        return f"{what}, {self.connections} connection{'s' * (self.connections > 1)}"


CASES = [
    Case("queries", 1, 1),
    Case("queries", 1, 32),
    Case("documents", 1, 1),
    Case("documents", 1, 32),
    Case("mix", 1, 32),
    Case("documents", 32, 4),
]


@dataclass
class Measurement:
    """The figures of one run."""

    load: Load
    cpu_s: float
    """The system's CPU time."""


@dataclass
class Server:
    """A server that runs."""

    port: int
    pid: int
    key: str


async def measure_engine(
    engine: LocalEngine, requests: Sequence[Sequence[str]], case: Case, seconds: float
) -> Measurement:
    """Put the load on the engine in this process, without HTTP."""
    seen = Load(seconds, [], 0)
    next_request = cycle(requests)
    deadline_s = time.perf_counter() + seconds

    async def caller() -> None:
        while (sent_s := time.perf_counter()) < deadline_s:
            ids = await engine.encode(next(next_request))
            lengths = [len(item) for item in ids]
            await engine.embed(Batch(model="", items=ids, tokens=lengths))
            seen.latencies_s.append(time.perf_counter() - sent_s)

    started_s, cpu_before_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(case.connections)))
    seen.seconds = time.perf_counter() - started_s
    return Measurement(seen, time.process_time() - cpu_before_s)


async def measure_server(
    server: Server, requests: Sequence[Sequence[str]], case: Case, seconds: float
) -> Measurement:
    """Put the load on a server."""
    url = f"http://127.0.0.1:{server.port}/v1/embeddings"
    bodies = [json.dumps({"input": each}).encode() for each in requests]
    cpu_before_s = cpu_s(server.pid)
    seen = await load(url, bodies, key=server.key, connections=case.connections, seconds=seconds)
    return Measurement(seen, cpu_s(server.pid) - cpu_before_s)


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, Server]]:
    """Start both servers; yield them by name."""
    command = Path(sys.executable).with_name("embedway")
    ports = {"embedway": free_port(), "plain server": free_port()}
    env = os.environ | {
        "EMBEDWAY_DATA_DIR": str(folder),
        "EMBEDWAY_PORT": str(ports["embedway"]),
        "EMBEDWAY_LOG_LEVEL": "warning",
    }
    subprocess.run([command, "db", "init"], env=env, check=True, capture_output=True)
    create = [command, "keys", "create", "--name", "benchmark", "--json"]
    made = subprocess.run(create, env=env, check=True, capture_output=True)
    plain = [sys.executable, "-m", "benchmarks.plain_server", str(ports["plain server"])]
    running = [
        subprocess.Popen(each, env=env, stdout=subprocess.DEVNULL)
        for each in ([command, "serve"], plain)
    ]
    try:
        for process, port in zip(running, ports.values(), strict=True):
            wait_until_listening(process, port)
        key = json.loads(made.stdout)["key"]
        yield {
            name: Server(port, process.pid, key)
            for (name, port), process in zip(ports.items(), running, strict=True)
        }
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


async def measure(
    cases: list[Case], seconds: float, rounds: int, folder: Path, *, with_burst: bool
) -> None:
    """Run every case on all three and print a table."""
    settings = load_settings().settings
    engine = load_engine(catalog.load_catalog(eu_native=False).local_models()[0], settings)
    with servers(folder) as started:
        for case in cases:
            requests = make_requests(case.kind, REQUESTS, texts=case.texts)
            counts = [len(ids) for each in requests[:50] for ids in await engine.encode(each)]
            run: dict[str, Callable[[float], Awaitable[Measurement]]] = {
                "engine alone": partial(measure_engine, engine, requests, case),
                **{
                    name: partial(measure_server, server, requests, case)
                    for name, server in started.items()
                },
            }
            seen: dict[str, list[Measurement]] = {name: [] for name in run}
            for each in run.values():
                await each(seconds)  # warms up
            for _ in range(rounds):
                for name, each in run.items():
                    seen[name].append(await each(seconds))
            report(case, sum(counts) / len(counts), seen)
    if with_burst:
        await measure_burst(engine)
    engine.close()


async def measure_burst(engine: LocalEngine) -> None:
    """Print when requests end that came all at once."""
    requests = [await engine.encode(each) for each in make_requests("documents", 32, texts=32)]
    started_s = time.perf_counter()

    async def end_s(ids: list[list[int]]) -> float:
        await engine.embed(Batch(model="", items=ids, tokens=[len(each) for each in ids]))
        return time.perf_counter() - started_s

    ends_s = sorted(await asyncio.gather(*map(end_s, requests)))
    mean_s = sum(ends_s) / len(ends_s)
    print(
        f"\n{BURST} (engine alone)\n"
        f"  first after {ends_s[0]:.2f} s, mean {mean_s:.2f} s, last {ends_s[-1]:.2f} s"
    )


def report(case: Case, tokens: float, seen: dict[str, list[Measurement]]) -> None:
    """Print the rows of one case, whose texts have so many tokens in the mean."""
    print(f"\n{case.name} ({tokens:.1f} tokens a text)")
    titles = ("texts/s", "tokens/s", "p50 ms", "p99 ms", "CPU ms", "ratio", "CPU ratio")
    print("  " + " " * 14 + "".join(f"{title:>11}" for title in titles))
    rates = {
        name: median([each.load.requests_per_s * case.texts for each in measured])
        for name, measured in seen.items()
    }
    used_ms = {
        name: median(
            [each.cpu_s * 1000 / len(each.load.latencies_s) / case.texts for each in measured]
        )
        for name, measured in seen.items()
    }
    for name, measured in seen.items():
        p50, p99 = (median([each.load.latency_ms(q) for each in measured]) for q in (0.5, 0.99))
        errors = sum(each.load.errors for each in measured)
        print(
            f"  {name:14}{rates[name]:11.1f}{rates[name] * tokens:11.0f}{p50:11.2f}{p99:11.2f}"
            f"{used_ms[name]:11.2f}{rates['embedway'] / rates[name]:11.2f}"
            f"{used_ms[name] / used_ms['embedway']:11.2f}"
            + (f"  {errors} ERRORS" if errors else "")
        )


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3, help="per system, case and round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--case", default="", help="only cases that have this in their names")
    chosen = options.parse_args()
    cases = [each for each in CASES if chosen.case in each.name]
    print(
        "CPU ms: CPU time of the system for a text, without the load generator of the servers.\n"
        "Ratios: embedway's texts/s, and texts per CPU second, over the row's. The plain server\n"
        "keeps no keys or books."
    )
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(
            measure(
                cases, chosen.seconds, chosen.rounds, Path(folder), with_burst=chosen.case in BURST
            )
        )


if __name__ == "__main__":
    main()
