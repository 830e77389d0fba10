"""Measures the SDKs beside OpenAI's clients.

    python -m benchmarks.clients [--seconds 2] [--rounds 5]

- decode: from the bytes of one answer of 2048 vectors of 1536 dimensions, in memory, to its result.
- calls: calls of one text, one after another or 32 at once, over kept connections to a server of
  another process that answers at once.

The clients take turns, round after round. It prints medians over the rounds, and ratios. Those of
TypeScript run in Node if `make bench-clients` has built the SDK.
"""

import argparse
import asyncio
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import numpy as np
import openai
from embedway_sdk import SDK
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.fixed_server import DIMENSIONS, answer
from benchmarks.processes import free_port, wait_until_listening

ITEMS = 2048
AT_ONCE = 32
TEXT = "The quick brown fox jumps over the lazy dog."
OURS, THEIRS = "embedway-sdk", f"openai {openai.__version__} (Python)"
TYPESCRIPT = Path(__file__).parent.parent / "sdks/typescript"

Cases = dict[str, dict[str, Callable[[float], float]]]
"""By case and client, a function that measures for some seconds and returns the rate per second."""


def repeat(call: Callable[[], object], seconds: float) -> float:
    """Return how many calls end per second, one after another."""
    calls, begin_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - begin_s) < seconds or not calls:
        call()
        calls += 1
    return calls / elapsed_s


def at_once(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Return how many calls end per second, `AT_ONCE` at a time."""

    async def run() -> float:
        calls, begin_s = 0, time.perf_counter()

        async def go_on() -> None:
            nonlocal calls
            while time.perf_counter() - begin_s < seconds:
                await call()
                calls += 1

        await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
        return calls / (time.perf_counter() - begin_s)

    return asyncio.get_event_loop().run_until_complete(run())


def cases(url: str) -> Cases:
    """Return what to measure."""
    texts = [TEXT] * ITEMS
    large = answer(ITEMS, DIMENSIONS)
    headers = {"content-type": "application/json"}
    http = httpx2.Client(
        transport=httpx2.MockTransport(
            lambda _: httpx2.Response(200, stream=httpx2.ByteStream(large), headers=headers)
        )
    )
    decode = SDK("k", server_url=url, client=http).llm.embeddings
    their_decode = openai.OpenAI(base_url=f"{url}/v1", api_key="k", http_client=http).embeddings
    ours = SDK("k", server_url=url).llm.embeddings
    theirs = openai.OpenAI(base_url=f"{url}/v1", api_key="k").embeddings
    their_async = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k").embeddings
    their_texts = functools.partial(their_decode.create, input=texts, model="m")
    their_text = {"input": TEXT, "model": "m"}

    def lists() -> list[list[float]]:
        return [each.embedding for each in decode.embed(input=texts, model="m").data]

    def their_array() -> np.ndarray:
        return np.array([each.embedding for each in their_texts().data], np.float32)

    def rates(ours: Callable, theirs: Callable) -> dict[str, Callable[[float], float]]:
        return {
            OURS: functools.partial(repeat, ours),
            THEIRS: functools.partial(repeat, theirs),
        }

    size = f"{ITEMS} x {DIMENSIONS}"
    return {
        f"decode {size} to an array": rates(
            lambda: decode.embed(input=texts, model="m").numpy(), their_array
        ),
        f"decode {size} to lists": rates(lists, their_texts),
        "calls, blocking": rates(
            lambda: ours.embed(**their_text), lambda: theirs.create(**their_text)
        ),
        f"calls, async, {AT_ONCE} at once": {
            OURS: functools.partial(at_once, lambda: ours.embed_async(**their_text)),
            THEIRS: functools.partial(at_once, lambda: their_async.create(**their_text)),
        },
    }


def measure(measured: Cases, *, seconds: float, rounds: int) -> Iterator[tuple[str, str, float]]:
    """Yield case, client and median rate."""
    seen: dict[tuple[str, str], list[float]] = {}
    # The first round, a short one, warms up.
    for number in track(
        range(rounds + 1), "Measuring", transient=True, console=Console(stderr=True)
    ):
        for case, clients in measured.items():
            for client, rate in clients.items():
                found = rate(seconds if number else 0.1)
                seen.setdefault((case, client), []).extend([found] * bool(number))
    for (case, client), rates in seen.items():
        yield case, client, statistics.median(rates)


def typescript(arguments: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return case, client and median rate of the TypeScript SDK and of OpenAI's for JavaScript."""
    if not (TYPESCRIPT / "dist").exists():
        return []
    command = ["node", "benchmarks/clients.mjs", *arguments]
    printed = subprocess.run(command, cwd=TYPESCRIPT, check=True, capture_output=True, text=True)
    return [tuple(json.loads(line).values()) for line in printed.stdout.splitlines()]


def show(rates: Sequence[tuple[str, str, float]]) -> None:
    """Print a table. Of each two lines, the first is of an SDK, the second of OpenAI's client."""
    table = Table("case", "client", "per second", "ms each", "times as fast")
    for ours, theirs in zip(rates[::2], rates[1::2], strict=True):
        for case, client, rate in (ours, theirs):
            ratio = f"{rate / theirs[2]:.2f}" if client == ours[1] else ""
            table.add_row(case, client, f"{rate:.1f}", f"{1000 / rate:.2f}", ratio)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measures the SDKs beside OpenAI's clients.")
    parser.add_argument("--seconds", type=float, default=2, help="for each client and case")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.set_event_loop(asyncio.new_event_loop())
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.fixed_server", str(port)]
    with subprocess.Popen(command) as server:
        try:
            wait_until_listening(server, port)
            measured = cases(f"http://127.0.0.1:{port}")
            rates = list(measure(measured, seconds=options.seconds, rounds=options.rounds))
        finally:
            server.terminate()
    show([*rates, *typescript(sys.argv[1:])])


if __name__ == "__main__":
    main()
