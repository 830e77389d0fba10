"""Runs a gateway in a process of its own, for whoever tries or measures one from outside."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.processes import free_port
from embedway.core.budget import Budget
from embedway.core.clock import now_ms
from embedway.core.limit import Limit
from embedway.core.project import DEFAULT_PROJECT
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService
from embedway.storage.store import Store, open_store

EMBEDWAY = Path(sys.executable).with_name("embedway")
# Gateways here speak plain HTTP. By default httpx reads all certificates for each request.
get = partial(httpx.get, verify=False)
post = partial(httpx.post, verify=False)
START_S = 120
STOP_S = 30
ADMIN = Actor.at_command_line("operator")


@dataclass(frozen=True)
class Key:
    """A key of a gateway."""

    id: str
    secret: str


class GatewayProcess:
    """A gateway in a process of its own, with data, settings and a log in its folder."""

    def __init__(self, folder: Path, settings: str, **variables: str) -> None:
        """Prepare it, not started yet.

        Args:
            folder: A folder to create for it.
            settings: The content of its `embedway.toml`.
            variables: Environment variables beside the usual ones.
        """
        folder.mkdir()
        (folder / "embedway.toml").write_text(settings)
        (folder / "embedway.toml").chmod(0o600)
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"
        self.log = folder / "log"
        kept = {"PATH", "HOME", "EMBEDWAY_CACHE_DIR", "TMPDIR", "LANG"}
        self.env = {name: value for name, value in os.environ.items() if name in kept} | {
            "EMBEDWAY_DATA_DIR": str(folder / "data"),
            "EMBEDWAY_PORT": str(self.port),
            "EMBEDWAY_LOG_FORMAT": "json",
            "EMBEDWAY_DRAIN_S": "0",
            "EMBEDWAY_LOCAL_SERVERS": "false",
            "EMBEDWAY_CANARIES": "false",
            **variables,
        }
        self.process: subprocess.Popen | None = None

    @contextmanager
    def open_store(self) -> Iterator[Store]:
        """Open its database and pepper."""
        store = open_store(
            Path(self.env["EMBEDWAY_DATA_DIR"]),
            database_url=self.env.get("EMBEDWAY_DATABASE_URL"),
            pepper=self.env.get("EMBEDWAY_PEPPER"),
        )
        try:
            yield store
        finally:
            store.database.dispose()

    @contextmanager
    def administration(self) -> Iterator[AdminService]:
        """Open its database for administrative actions, by `ADMIN`."""
        with self.open_store() as store:
            yield AdminService(store.database, pepper=store.pepper, now_ms=now_ms)

    def new_key(
        self, *limits: Limit, budgets: tuple[Budget, ...] = (), project_id: str = DEFAULT_PROJECT
    ) -> Key:
        """Create a key with rate limits and budgets."""
        changes = {"name": "key", "limits": limits, "budgets": budgets}
        with self.administration() as service:
            secret, key = service.create_key(ADMIN, project_id=project_id, changes=changes)
        return Key(key.id, secret)

    def start(self) -> None:
        """Start it; `wait_until_ready` tells from when on it answers."""
        with self.log.open("ab") as log:
            # Ctrl-C in a terminal reaches only this program, which then stops the gateway.
            self.process = subprocess.Popen(
                [EMBEDWAY, "serve"], env=self.env, cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it by SIGTERM, or by SIGKILL if that takes too long; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends; `wait_until_ready` tells from when on."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def is_ready(self) -> bool:
        """Whether `/readyz` says that it can answer."""
        try:
            return get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: It ends instead, or does not in time.
        """
        assert self.process is not None
        deadline_s = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            if self.is_ready():
                return
            time.sleep(0.05)
        raise TimeoutError(f"The gateway did not start:\n{self.log.read_text()}")

    def post(self, secret: str, request_id: str | None = None, **body: object) -> httpx.Response:
        """Send a request as `curl` would, without any client's help."""
        headers = {"authorization": f"Bearer {secret}"}
        if request_id:
            headers["x-request-id"] = request_id
        return post(f"{self.base_url}/embeddings", json=body, headers=headers, timeout=300)
