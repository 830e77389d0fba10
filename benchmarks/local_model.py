"""Measures the built-in model over HTTP, beside a plain server and the engine without HTTP.

    python -m benchmarks.local_model [--seconds 3] [--rounds 3] [--case NAME]

All three run in turn on the same machine, round after round. It prints medians over the rounds, and
ratios. A short text has about 10 tokens, a long one about 200.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.load import Load, free_port, load, median, wait_until_listening
from embedway.catalog import catalog
from embedway.config.engines import load_engine
from embedway.config.settings import load_settings
from embedway.core.batch import Batch
from embedway.local.engine import LocalEngine

SHORT = "The quick brown fox jumps over the lazy dog."
LONG = (
    "A gateway stands between those who ask and those who answer, and keeps the books for both. "
    * 11
)


@dataclass
class Case:
    """A kind of load."""

    name: str
    texts: list[str]
    connections: int


CASES = [
    Case("short text, 1 connection", [SHORT], 1),
    Case("short text, 32 connections", [SHORT], 32),
    Case("200 tokens, 1 connection", [LONG], 1),
    Case("200 tokens, 32 connections", [LONG], 32),
    Case("32 x 200 tokens, 4 connections", [LONG] * 32, 4),
]


async def engine_load(engine: LocalEngine, case: Case, seconds: float) -> Load:
    """Put the same load on the engine in this process, without HTTP."""
    seen = Load(seconds, [], 0)
    deadline_s = time.perf_counter() + seconds

    async def caller() -> None:
        while (sent_s := time.perf_counter()) < deadline_s:
            ids = await engine.encode(case.texts)
            lengths = [len(item) for item in ids]
            await engine.embed(Batch(model="", items=ids, tokens=lengths))
            seen.latencies_s.append(time.perf_counter() - sent_s)

    started_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(case.connections)))
    seen.seconds = time.perf_counter() - started_s
    return seen


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Start both servers; yield a key for the gateway, and the servers' ports by name."""
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
        yield json.loads(made.stdout)["key"], ports
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


async def measure(cases: list[Case], seconds: float, rounds: int, folder: Path) -> None:
    """Run every case on all three and print a table."""
    settings = load_settings().settings
    engine = load_engine(catalog.load_catalog(eu_native=False).local_models()[0], settings)
    with servers(folder) as (key, ports):
        for case in cases:
            tokens = sum(map(len, await engine.encode(case.texts)))
            body = json.dumps({"input": case.texts}).encode()
            systems: dict[str, Callable[[], Awaitable[Load]]] = {
                "engine alone": partial(engine_load, engine, case, seconds),
                **{
                    name: partial(
                        load,
                        f"http://127.0.0.1:{port}/v1/embeddings",
                        body,
                        key=key,
                        connections=case.connections,
                        seconds=seconds,
                    )
                    for name, port in ports.items()
                },
            }
            for run in systems.values():  # warms up
                await run()
            seen: dict[str, list[Load]] = {name: [] for name in systems}
            for _ in range(rounds):
                for name, run in systems.items():
                    seen[name].append(await run())
            report(case, tokens, seen)
    engine.close()


def report(case: Case, tokens: int, seen: dict[str, list[Load]]) -> None:
    """Print the rows of one case."""
    print(f"\n{case.name} ({tokens} tokens a request)")
    print(f"  {'':14}{'requests/s':>12}{'tokens/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'ratio':>8}")
    ours = median([each.requests_per_s for each in seen["embedway"]])
    for name, loads in seen.items():
        rate = median([each.requests_per_s for each in loads])
        p50, p99 = (median([each.latency_ms(q) for each in loads]) for q in (0.5, 0.99))
        errors = sum(each.errors for each in loads)
        print(
            f"  {name:14}{rate:12.1f}{rate * tokens:12.0f}{p50:10.2f}{p99:10.2f}{ours / rate:8.2f}"
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
    print("ratio: embedway's requests/s over the row's. The plain server keeps no keys or books.")
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(cases, chosen.seconds, chosen.rounds, Path(folder)))


if __name__ == "__main__":
    main()
