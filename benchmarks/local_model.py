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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
import uvloop

from benchmarks.corpus import Kind, make_requests, make_texts
from benchmarks.load import Load, load
from benchmarks.peers import servers
from benchmarks.peers.servers import SentenceTransformers
from benchmarks.processes import System, SystemFailed, cpu_s, free_port, running
from benchmarks.turns import OURS, Measurement, Turn, quantile_ms, table, take_turns
from embedway.catalog import catalog
from embedway.config.engines import load_engine
from embedway.config.settings import load_settings
from embedway.core.batch import Batch
from embedway.local.engine import LocalEngine

REQUESTS = 500
"""How many different requests a case has."""
BURST = "32 requests of 32 documents at once"
ANSWER_S = 60
"""How long to wait for the last answers after the time of a load."""
LOWEST_COSINE = 0.999
"""The lowest cosine between a peer's vector and Embedway's."""


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
    return figures(seen, time.process_time() - cpu_before_s, texts=case.texts)


async def measure_server(
    server: System, requests: Sequence[Sequence[str]], case: Case, seconds: float
) -> Measurement:
    """Put the load on a server.

    Raises:
        SystemFailed: Some request is not answered with 200.
    """
    bodies = [json.dumps({"input": each}).encode() for each in requests]
    cpu_before_s = cpu_s(server.pid)
    try:
        async with asyncio.timeout(seconds + ANSWER_S):
            seen = await load(
                server.url, bodies, key=server.key, connections=case.connections, seconds=seconds
            )
    except TimeoutError:
        raise SystemFailed(f"It did not answer within {ANSWER_S} s.") from None
    except OSError as error:
        raise SystemFailed(f"It cannot be reached: {error}") from None
    if seen.errors or not seen.latencies_s:
        raise SystemFailed(f"It did not answer {seen.errors} requests with 200.")
    return figures(seen, cpu_s(server.pid) - cpu_before_s, texts=case.texts)


async def measure_library(
    library: SentenceTransformers, requests: Sequence[Sequence[str]], case: Case, seconds: float
) -> Measurement:
    """Give a library as many texts in each call as the load has connections."""
    texts = [text for each in requests for text in each]
    cpu_before_s = cpu_s(library.pid)
    calls_s = library.calls_s(texts, at_once=case.connections, seconds=seconds)
    embedded = len(calls_s) * case.connections
    return Measurement(
        per_s=embedded / sum(calls_s),
        p50_ms=quantile_ms(calls_s, 0.5),
        p99_ms=quantile_ms(calls_s, 0.99),
        cpu_ms=(cpu_s(library.pid) - cpu_before_s) * 1000 / embedded,
    )


def figures(seen: Load, used_s: float, *, texts: int) -> Measurement:
    """Return the figures of a load whose requests have so many texts each."""
    return Measurement(
        per_s=seen.requests_per_s * texts,
        p50_ms=seen.latency_ms(0.5),
        p99_ms=seen.latency_ms(0.99),
        cpu_ms=used_s * 1000 / len(seen.latencies_s) / texts,
    )


def start_embedway(stack: ExitStack, folder: Path) -> System:
    """Start the gateway with its built-in model, and with its defaults except for less logging."""
    folder.mkdir(exist_ok=True)
    command, port = Path(sys.executable).with_name("embedway"), free_port()
    settings = {
        "EMBEDWAY_DATA_DIR": str(folder),
        "EMBEDWAY_PORT": str(port),
        "EMBEDWAY_LOG_LEVEL": "warning",
    }
    env = os.environ | settings
    subprocess.run([command, "db", "init"], env=env, check=True, capture_output=True)
    create = [command, "keys", "create", "--name", "benchmark", "--json"]
    made = subprocess.run(create, env=env, check=True, capture_output=True)
    process = stack.enter_context(running([command, "serve"], port, **settings))
    return System(process, port, json.loads(made.stdout)["key"])


def start_plain(stack: ExitStack) -> System:
    """Start the plain server."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", str(port)]
    return System(stack.enter_context(running(command, port)), port, "unused")


def vectors(server: System, texts: Sequence[str]) -> np.ndarray:
    """Return a server's vectors of the texts.

    Raises:
        SystemFailed: It does not answer with vectors.
    """
    try:
        answer = httpx.post(
            server.url, json={"input": texts}, headers=server.all_headers, timeout=60
        )
    except httpx.TransportError as error:
        raise SystemFailed(f"It does not answer: {error}") from None
    if answer.status_code != 200:
        raise SystemFailed(f"It answers {answer.status_code}: {answer.text[:200]}")
    return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)


PEERS = {
    "Infinity": servers.infinity,
    "sentence-transformers (torch)": partial(servers.sentence_transformers, backend="torch"),
    "sentence-transformers (OpenVINO)": partial(servers.sentence_transformers, backend="openvino"),
}


def start_systems(
    stack: ExitStack, folder: Path, peers: Sequence[str], *, failed: dict[str, str]
) -> dict[str, System | SentenceTransformers]:
    """Start the gateway and peers; return them by name.

    Args:
        stack: What stops them at its end.
        folder: Where they keep their files.
        peers: Names of `PEERS`.
        failed: Where to say why a peer does not start or answers wrongly, by its name.

    Raises:
        SystemFailed: The gateway fails.
    """
    texts = [*make_texts("queries", 16), *make_texts("documents", 4)]
    ours = start_embedway(stack, folder / "embedway")
    expected = vectors(ours, texts)
    started: dict[str, System | SentenceTransformers] = {OURS: ours}
    for name in peers:
        try:
            system = stack.enter_context(PEERS[name](folder))
            is_server = isinstance(system, System)
            found = vectors(system, texts) if is_server else system.vectors(texts)
            check(found, expected)
            started[name] = system
        except SystemFailed as error:
            failed[name] = str(error)
    return started


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare vectors, which have unit length, with those expected.

    Raises:
        SystemFailed: They are others.
    """
    if found.shape != expected.shape:
        raise SystemFailed(f"Its vectors have the shape {found.shape}, not {expected.shape}.")
    lowest = float((found * expected).sum(axis=1).min())
    if lowest < LOWEST_COSINE:
        raise SystemFailed(f"The cosine of a vector of it to Embedway's is {lowest:.4f}.")


def turns(started: dict[str, System | SentenceTransformers], case: Case) -> dict[str, Turn]:
    """Return how to put each system under the load of a case."""
    requests = make_requests(case.kind, REQUESTS, texts=case.texts)
    return {
        name: partial(measure_server, system, requests, case)
        if isinstance(system, System)
        else partial(measure_library, system, requests, case)
        for name, system in started.items()
    }


async def measure(
    cases: list[Case], seconds: float, rounds: int, folder: Path, *, with_burst: bool
) -> None:
    """Run every case on all three and print a table."""
    settings = load_settings().settings
    engine = load_engine(catalog.load_catalog(eu_native=False).local_models()[0], settings)
    with ExitStack() as stack:
        started = {OURS: start_embedway(stack, folder), "plain server": start_plain(stack)}
        for case in cases:
            requests = make_requests(case.kind, REQUESTS, texts=case.texts)
            counts = [len(ids) for each in requests[:50] for ids in await engine.encode(each)]
            alone: Turn = partial(measure_engine, engine, requests, case)
            measured = await take_turns(
                {"engine alone": alone, **turns(started, case)},
                seconds=seconds,
                rounds=rounds,
                warm_up_s=seconds,
                failed={},
            )
            print(f"\n{case.name} ({sum(counts) / len(counts):.1f} tokens a text)")
            print(table("texts", measured))
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
