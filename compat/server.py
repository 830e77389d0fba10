"""Runs the servers that clients are tried on: two gateways, and a stand-in for OpenAI."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import httpx
import tiktoken
from benchmarks.load import free_port

from compat.tiktoken_cache import fill_cache
from embedway.core.clock import now_ms
from embedway.core.limit import Limit
from embedway.organization.key_secret import issue_key
from embedway.organization.keys import KeyBootstrap
from embedway.storage.store import open_store
from embedway.testing import Upstream, vector_of
from embedway.testing.vectors import Item, Vector

EMBEDWAY = Path(sys.executable).with_name("embedway")
# Gateways here speak plain HTTP. By default httpx reads all certificates for each request.
get = partial(httpx.get, verify=False)
post = partial(httpx.post, verify=False)
START_S = 120
STOP_S = 30

HOSTED = """
[providers.openai]
base_url = "{url}/openai/v1"
api_key = "sk-upstream"
"""
ALIASES = """\
[aliases]
text-embedding-ada-002 = "auto"
text-embedding-3-small = "auto"
"""
"""What an operator writes for clients that choose a model themselves."""
MAX_ITEMS = "max_items = 4096\n"
"""What an operator writes for clients that cut no list."""


@dataclass(frozen=True)
class Key:
    """A key of a gateway."""

    id: str
    secret: str


class Gateway:
    """A gateway in a process of its own, with data, settings and a log in its folder."""

    def __init__(self, folder: Path, settings: str, **variables: str) -> None:
        folder.mkdir()
        (folder / "embedway.toml").write_text(settings)
        (folder / "embedway.toml").chmod(0o600)
        self.folder = folder
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        kept = {"PATH", "HOME", "EMBEDWAY_CACHE_DIR", "TMPDIR", "LANG"}
        self._env = {name: value for name, value in os.environ.items() if name in kept} | {
            "EMBEDWAY_DATA_DIR": str(folder / "data"),
            "EMBEDWAY_PORT": str(self.port),
            "EMBEDWAY_LOG_FORMAT": "json",
            "EMBEDWAY_DRAIN_S": "0",
            "EMBEDWAY_LOCAL_SERVERS": "false",
            "EMBEDWAY_CANARIES": "false",
            **variables,
        }
        self._log = folder / "log"
        self._markers = itertools.count()
        self.own = self.new_key()
        """The key of requests that no client sends."""

    def new_key(self, *limits: Limit) -> Key:
        """Create a key with rate limits."""
        store = open_store(self.folder / "data")
        shown, key = issue_key("compat", pepper=store.pepper, now_ms=now_ms(), limits=limits)
        KeyBootstrap(store.database).create(key)
        store.database.dispose()
        return Key(key.id, shown)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends; `wait_until_ready` tells from when on."""
        with self._log.open("ab") as log:
            # Ctrl-C in a terminal reaches only this program, which then stops the gateway.
            process = subprocess.Popen(
                [EMBEDWAY, "serve"], env=self._env, cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: It does not in time.
        """
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            try:
                if get(self.base_url.replace("/v1", "/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"The gateway did not start:\n{self._log.read_text()}")

    def post(self, secret: str, request_id: str | None = None, **body: object) -> httpx.Response:
        """Send a request as `curl` would, without any client's help."""
        headers = {"authorization": f"Bearer {secret}"}
        if request_id:
            headers["x-request-id"] = request_id
        return post(f"{self.base_url}/embeddings", json=body, headers=headers, timeout=300)

    def fill(self, key: Key) -> None:
        """Use up a limit of one request."""
        self.post(key.secret, "fill", input="a")

    def mark(self) -> int:
        """Return a position in the log after the lines of all requests that were answered."""
        request_id = f"mark-{next(self._markers)}"
        self.post(self.own.secret, request_id, input="a")
        while True:
            log = self._log.read_bytes()
            found = log.find(b'"request_id":"%s"' % request_id.encode())
            if found >= 0:
                return log.index(b"\n", found)
            time.sleep(0.01)

    def statuses(self, start: int, end: int) -> list[int]:
        """Return the statuses of what clients were answered, between two positions in the log."""
        lines = self._log.read_bytes()[start:end].splitlines()
        events = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [
            event["status"]
            for event in events
            if "status" in event and not event["request_id"].startswith(("mark-", "fill"))
        ]


@dataclass(frozen=True)
class Servers:
    """Everything that a run needs, and nothing of one client."""

    usual: Gateway
    """Has the built-in model, and one of a provider."""
    prepared: Gateway
    """Has the built-in model alone, aliases for the models that clients choose, and room for lists
    that they do not cut."""
    encoding: tiktoken.Encoding
    folder: Path
    """A temporary folder, in which `tiktoken` is the cache of that package."""


@contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """Start the servers in an empty folder; stop them when the block ends."""
    encoding = _encoding(folder / "tiktoken")

    def vectors(item: Item, width: int) -> Vector:
        """Give whole texts and their ids the same vector."""
        if not isinstance(item, str):
            item = encoding.decode_bytes(item).decode(errors="backslashreplace")
        return vector_of(item, width)

    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream(vectors=vectors))
        usual = Gateway(folder / "usual", HOSTED.format(url=upstream.url))
        prepared = Gateway(folder / "prepared", MAX_ITEMS + ALIASES)
        for gateway in (usual, prepared):
            stack.enter_context(gateway.running())
        for gateway in (usual, prepared):
            gateway.wait_until_ready()
        yield Servers(usual, prepared, encoding, folder)


def _encoding(cache: Path) -> tiktoken.Encoding:
    """Return OpenAI's vocabulary, from the cache that this and the clients use."""
    cache.mkdir()
    fill_cache(cache)
    with patch.dict(os.environ, TIKTOKEN_CACHE_DIR=str(cache)):
        return tiktoken.get_encoding("cl100k_base")
