"""Measures Embedway beside its peers, and writes the page about it with plots.

    python -m benchmarks.comparison [--peer NAME ...] [--seconds 3] [--rounds 3]
        [--connections 1 8 32 128] [--load NAME ...] [--otlp] [--output docs]

It passes requests through to a provider (`benchmarks/passthrough.py`), and embeds queries and
documents with the built-in model (`benchmarks/local_model.py`). All systems take turns on the same
machine, round after round, and the figures are medians over the rounds. A peer that cannot be
installed, does not start or answers wrongly is reported with the reason.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks import local_model, page, passthrough
from benchmarks.local_model import Case
from benchmarks.peers import install
from benchmarks.processes import SystemFailed
from benchmarks.results import LOADS, LoadName, Results, Row, describe_machine
from benchmarks.turns import Measurement, Turn, table, take_turns
from embedway.config.settings import load_settings
from embedway.local.openvino import resolve_precision

PEERS = {
    "litellm": ["LiteLLM"],
    "portkey": ["Portkey"],
    "infinity": ["Infinity"],
    "sentence_transformers": ["sentence-transformers (torch)", "sentence-transformers (OpenVINO)"],
}
"""The names of the systems in the results, by the name of the peer on the command line."""
DISTRIBUTIONS = {
    "litellm": "litellm",
    "portkey": "@portkey-ai/gateway",
    "infinity": "infinity-emb",
    "sentence_transformers": "sentence-transformers",
}
CONNECTIONS = (1, 8, 32, 128)
WARM_UP_S = 2.0
NOT_CHOSEN = "It was not chosen for this run."


class Comparison:
    """Runs the loads one after another, and collects the figures."""

    def __init__(self, options: argparse.Namespace, progress: Progress) -> None:
        self.rows: list[Row] = []
        self.failed: dict[str, str] = {
            system: NOT_CHOSEN
            for peer, systems in PEERS.items()
            for system in systems
            if peer not in options.peers
        }
        self._options = options
        self._peers = [system for peer in options.peers for system in PEERS[peer]]
        self._progress = progress

    async def pass_through(self, folder: Path) -> None:
        """Measure gateways before a provider."""
        with ExitStack() as stack:
            self._progress.console.print("Starting the gateways before a provider")
            peers = [name for name in self._peers if name in passthrough.PEERS]
            started = passthrough.start_systems(
                stack, folder, peers, failed=self.failed, otlp=self._options.otlp
            )
            provider = started[passthrough.PROVIDER]

            def turn(name: str, connections: int) -> Turn:
                async def measure(seconds: float) -> Measurement:
                    return passthrough.load(provider, started[name], connections, seconds)

                return measure

            for connections in self._options.connections:
                turns = {name: turn(name, connections) for name in started}
                await self._measure("pass-through", connections, turns, what="requests")

    async def built_in_model(self, folder: Path, loads: Sequence[LoadName]) -> None:
        """Measure the built-in model."""
        with ExitStack() as stack:
            self._progress.console.print("Starting the servers of the model")
            peers = [name for name in self._peers if name in local_model.PEERS]
            started = local_model.start_systems(stack, folder, peers, failed=self.failed)
            for load in loads:
                for connections in self._options.connections:
                    turns = local_model.turns(started, Case(load, 1, connections))
                    await self._measure(load, connections, turns, what="texts")

    async def _measure(
        self, load: LoadName, connections: int, turns: Mapping[str, Turn], *, what: str
    ) -> None:
        title = f"{load}, {connections} connection{'s' * (connections > 1)}"
        task = self._progress.add_task(title, total=len(turns) * (self._options.rounds + 1))
        failed: dict[str, str] = {}

        def on_turn(name: str) -> None:
            self._progress.update(task, advance=1, description=f"{title}: {name}")

        measured = await take_turns(
            turns,
            seconds=self._options.seconds,
            rounds=self._options.rounds,
            warm_up_s=min(WARM_UP_S, self._options.seconds),
            failed=failed,
            on_turn=on_turn,
        )
        self._progress.remove_task(task)
        self.failed |= {f"{name}, {title},": reason for name, reason in failed.items()}
        print(f"\n{title}\n{table(what, measured)}", flush=True)
        self.rows += [
            Row(load=load, connections=connections, system=name, figures=figures)
            for name, figures in measured.items()
        ]


async def compare(options: argparse.Namespace, progress: Progress, folder: Path) -> Results:
    """Run the loads and return the figures."""
    [load_average, *_] = os.getloadavg()
    comparison = Comparison(options, progress)
    if "pass-through" in options.loads:
        await comparison.pass_through(folder)
    if of_model := [each for each in options.loads if each != "pass-through"]:
        await comparison.built_in_model(folder, of_model)
    machine, has_amx = describe_machine()
    return Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=machine,
        has_amx=has_amx,
        precision=resolve_precision(load_settings().settings.precision) if of_model else "",
        load_average=round(load_average, 2),
        seconds=options.seconds,
        rounds=options.rounds,
        versions={
            system: install.version(peer, DISTRIBUTIONS[peer])
            for peer, systems in PEERS.items()
            for system in systems
        },
        rows=comparison.rows,
        did_not_run=comparison.failed,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", choices=PEERS, default=[], dest="peers")
    parser.add_argument("--load", action="append", choices=LOADS, dest="loads")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--otlp", action="store_true", help="also with a trace of each request")
    parser.add_argument(
        "--output", type=Path, default=page.DOCS, help="the folder to write the page and plots to"
    )
    options = parser.parse_args()
    options.loads = options.loads or LOADS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    progress = Progress(console=Console(stderr=True), transient=True)
    try:
        with tempfile.TemporaryDirectory(prefix="embedway-bench-") as folder, progress:
            results = uvloop.run(compare(options, progress, Path(folder)))
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemFailed as error:
        sys.exit(f"Embedway or the provider failed: {error}")
    page.write(results, options.output)
    print(f"\nWrote {options.output / 'peers.md'}")
    for system, reason in results.did_not_run.items():
        print(f"{system} did not run: {reason}")


if __name__ == "__main__":
    main()
