"""Tries other people's clients on a real gateway, each in its own environment.

    python -m compat [--pin] [CLIENT...]

Without a name it tries every client. It writes what it finds to `compat/results.json` and
`docs/clients.md`, and ends with status 1 if a client does not do what is expected of it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from compat import environments, page
from compat.cases import CASES
from compat.reference import Reference
from compat.registry import CLIENTS, Client
from compat.server import Servers, serving
from compat.trial import Result, Trial, try_client

CONSOLE = Console()


def main() -> None:
    """Try the clients that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m compat",
        description="Try other people's clients on a real gateway, each in its own environment, "
        "and write docs/clients.md.",
        epilog=f"clients: {', '.join(CLIENTS)}",
    )
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help="what to try; default: all")
    parser.add_argument(
        "--pin", action="store_true", help="only pin the newest versions, for the next run"
    )
    chosen = parser.parse_args()
    for name in chosen.clients:
        if name not in CLIENTS:
            parser.error(f"no client is named {name!r}; the names are {', '.join(CLIENTS)}")
    clients = [CLIENTS[name] for name in chosen.clients or CLIENTS]
    if chosen.pin:
        if not chosen.clients:
            environments.pin_node()
        for client in clients:
            if not client.environment:
                CONSOLE.print(f"pinning {client.name}")
                environments.pin(client)
    else:
        sys.exit(_try_all(clients))


def _try_all(clients: list[Client]) -> int:
    """Try each client; return the status to exit with."""
    with tempfile.TemporaryDirectory(prefix="embedway-compat-") as folder, _progress() as progress:
        starting = progress.add_task("starting the gateways", total=None)
        with serving(Path(folder)) as servers:
            progress.remove_task(starting)
            reference = Reference(servers)
            plain = {case.name: reference.described(case) for case in CASES}
            failed = 0
            for client in clients:
                trial = _try(client, servers, reference, progress)
                if trial.wrong:
                    failed = 1
                else:
                    page.keep(plain, client, trial)
    return failed


def _try(client: Client, servers: Servers, reference: Reference, progress: Progress) -> Trial:
    """Try one client."""
    task = progress.add_task(f"{client.name}: installing", total=len(CASES))
    environments.install(client)
    progress.update(task, description=client.name)
    started_s = time.monotonic()

    def advance(result: Result) -> None:
        progress.advance(task)
        if result.wrong:
            progress.console.print(f"{client.name}, {result.case}: {result.wrong}", markup=False)

    command = environments.command_of(client)
    trial = try_client(client, command, servers, reference, on_result=advance)
    progress.remove_task(task)
    progress.console.print(_summary(client, trial, time.monotonic() - started_s), markup=False)
    return trial


def _summary(client: Client, trial: Trial, seconds: float) -> str:
    version = next(iter(trial.versions.values()))
    outcome = (
        f"WRONG: {', '.join(trial.wrong)}"
        if trial.wrong
        else f"{len(trial.tried)} cases as expected"
    )
    return f"{client.name:28} {version:10} {outcome}, {seconds:.0f} s"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=CONSOLE,
    )  # fmt: skip


if __name__ == "__main__":
    main()
