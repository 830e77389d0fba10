"""Fills the disk that SQLite writes to."""

import contextlib
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gateway import GatewayProcess

from chaos.processes.check import Check, at_most, holds, none_of
from chaos.processes.clients import Clients, wait_until
from chaos.processes.scenarios.restarts import no_record_without, one_record_each
from chaos.processes.stage import Stage, records

PER_S = 50
HOLD_S = 10
BACK_S = 5
SMALL_BYTES = 4096
"""Less than SQLite's files have, so that every write of it fails."""


def run(stage: Stage) -> Sequence[Check]:
    """Fill the disk of a gateway on SQLite under load, then make room.

    Who may mount a disk mounts one of 4 MB and fills it. Anybody else lowers the largest size of a
    file that the gateway may write, which SQLite takes for a full disk.
    """
    disk = stage.folder / "disk"
    disk.mkdir()
    small = _SmallDisk(stage, disk) if _mount(disk) else _SmallFiles()
    gateway = stage.gateway(data_dir=disk / "data")
    key = gateway.new_key()
    with Clients(gateway.url, key.secret, per_s=PER_S) as clients:
        wait_until(clients.ids, "there are no answers before the disk is full.")
        stage.say("filling the disk")
        small.fill(gateway)
        wait_until(lambda: clients.statuses()[503], "the disk is full and there is no 503.")
        stage.wait(0.5 if stage.is_short else HOLD_S, "the disk is full")
        not_ready = not gateway.is_ready()
        small.empty(gateway)
        back_s = wait_until(gateway.is_ready, "the gateway is not ready though there is room.")
        answered = len(clients.ids())
        wait_until(lambda: len(clients.ids()) > answered, "there are no answers afterwards.")
    recorded = records(gateway, key)
    refused = [each for each in clients.answers if each.status != 200]
    wrong = sum(
        (each.status, each.id) != (503, "storage_unavailable") or each.wait_s is None
        for each in refused
    )
    return [
        none_of(
            "answers of another kind than 200, and 503 `storage_unavailable` with `Retry-After`",
            wrong,
            out_of=len(clients.answers),
        ),
        holds("`/readyz` says no meanwhile", not_ready),
        at_most("time until ready once there is room", BACK_S, back_s, " s", is_timing=True),
        *one_record_each(clients.ids(), recorded),
        *no_record_without(clients.ids(), recorded),
    ]


def _mount(folder: Path) -> bool:
    """Mount a small disk; return whether this user may."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class _SmallDisk:
    """A file system of its own, which a file fills."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        stage.stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        self._ballast = folder / "ballast"

    def fill(self, _: GatewayProcess) -> None:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty(self, _: GatewayProcess) -> None:
        self._ballast.unlink()


class _SmallFiles:
    """A limit on the size of the files that a gateway may write."""

    def fill(self, gateway: GatewayProcess) -> None:
        pid, hard = self._limited(gateway)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_BYTES, hard))

    def empty(self, gateway: GatewayProcess) -> None:
        pid, hard = self._limited(gateway)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def _limited(self, gateway: GatewayProcess) -> tuple[int, int]:
        """Return the process and the most to which its limit may be raised."""
        assert gateway.process is not None
        pid = gateway.process.pid
        return pid, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
