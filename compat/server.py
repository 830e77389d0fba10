"""Runs the servers that clients are tried on: two gateways, and a stand-in for OpenAI."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import tiktoken
from benchmarks.gateway import GatewayProcess, Key

from compat.tiktoken_cache import fill_cache
from embedway.testing import Upstream, vector_of
from embedway.testing.vectors import Item, Vector

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


class Gateway(GatewayProcess):
    """A gateway that knows from its log what clients were answered."""

    def __init__(self, folder: Path, settings: str) -> None:
        super().__init__(folder, settings)
        self._markers = itertools.count()
        self.own = self.new_key()
        """The key of requests that no client sends."""

    def fill(self, key: Key) -> None:
        """Use up a limit of one request."""
        self.post(key.secret, "fill", input="a")

    def mark(self) -> int:
        """Return a position in the log after the lines of all requests that were answered."""
        request_id = f"mark-{next(self._markers)}"
        self.post(self.own.secret, request_id, input="a")
        while True:
            log = self.log.read_bytes()
            found = log.find(b'"request_id":"%s"' % request_id.encode())
            if found >= 0:
                return log.index(b"\n", found)
            time.sleep(0.01)

    def statuses(self, start: int, end: int) -> list[int]:
        """Return the statuses of what clients were answered, between two positions in the log."""
        lines = self.log.read_bytes()[start:end].splitlines()
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
