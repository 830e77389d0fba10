"""Does what `benchmarks.counts` counts, part by part. Runs under callgrind.

    python -m benchmarks.counted PROVIDER_URL

It prepares everything, says that it is ready, and waits for a line of input, because it starts
before callgrind counts. Then it calls `getsid` before and after each run of a part, where callgrind
writes down its count: a function of the C library that nothing else here calls. In the end it
prints the names of the parts in their order, each with its runs, and how often a run does it.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.passthrough import ASKED_FOR, DIMENSIONS, REQUEST
from embedway import app
from embedway.catalog.catalog import Catalog
from embedway.catalog.model import LOCAL
from embedway.config import configuration as configuring
from embedway.config.models import build_catalog
from embedway.config.settings import LoadedSettings, Settings
from embedway.core.clock import now_ms
from embedway.core.project import DEFAULT_PROJECT
from embedway.core.request import DEFAULT_MAX_ITEMS
from embedway.observe import logs
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService
from embedway.serving.server import GC_THRESHOLD
from embedway.storage.store import open_store
from embedway.wire.decode import decode
from embedway.wire.encode import ResponseHead, encode

RUNS = 3
"""How often each part is counted. The lowest count is the figure: whatever disturbs a run, such as
work that is due every second, adds to it."""
REQUESTS = 60
"""How many requests are passed through, each counted alone, after as many that are not counted."""
NEVER_S = 1000.0
"""How long a thread may keep Python while another waits. A wait that ends by the clock is tried
again, and callgrind slows everything down except the clock."""
HEAD = ResponseHead(
    id="embd_1", created=1, model=ASKED_FOR, provider="openai", usage={"prompt_tokens": 1}
)


def parts() -> dict[str, tuple[Callable[[], object], int]]:
    """Return what is counted besides whole requests: by its name, and how often one run does it."""
    texts = json.dumps({"model": ASKED_FOR, "input": ["The quick brown fox."] * 2048}).encode()
    one, many = (
        np.random.default_rng(1).standard_normal((items, DIMENSIONS), np.float32)
        for items in (1, 256)
    )

    def decoding(body: bytes) -> Callable[[], object]:
        return lambda: decode(body, max_items=DEFAULT_MAX_ITEMS)

    def encoding(vectors: np.ndarray, encoding_format: str) -> Callable[[], object]:
        return lambda: list(encode(HEAD, vectors, encoding_format=encoding_format))

    return {
        "decode a request of 1 text": (decoding(REQUEST.encode()), 100),
        "decode a request of 2048 texts": (decoding(texts), 2),
        f"encode 1 x {DIMENSIONS} as floats": (encoding(one, "float"), 20),
        f"encode 1 x {DIMENSIONS} in base64": (encoding(one, "base64"), 100),
        f"encode 256 x {DIMENSIONS} as floats": (encoding(many, "float"), 1),
        f"encode 256 x {DIMENSIONS} in base64": (encoding(many, "base64"), 2),
    }


def mark() -> None:
    """Let callgrind write down its count."""
    os.getsid(0)


def build_remote_catalog(*arguments: Any, **named: Any) -> Catalog:
    """Build the catalog without the built-in model, which never loads under callgrind."""
    whole = build_catalog(*arguments, **named)
    remote = [each for each in whole.deployments() if each.provider != LOCAL]
    return Catalog(remote, offers=list(whole.offers.values()), auto=ASKED_FOR)


async def pass_through(base_url: str, folder: Path) -> None:
    """Pass requests through the data plane in this process, to a provider in another."""
    values = {
        "data_dir": folder,
        "providers": {"openai": {"base_url": base_url, "api_key": "sk-upstream"}},
        "auto": ASKED_FOR,
        "canaries": False,
        "local_servers": False,
        "providers_from_environment": False,
    }
    origins = {"providers": "embedway.toml"}
    settings = Settings.model_validate(values, context=origins)
    store = open_store(folder)
    service = AdminService(store.database, pepper=store.pepper, now_ms=now_ms)
    actor = Actor.at_command_line("benchmark")
    secret, _ = service.create_key(actor, project_id=DEFAULT_PROJECT, changes={"name": "benchmark"})
    store.database.dispose()
    configuring.build_catalog = build_remote_catalog
    configuration = configuring.read_configuration(LoadedSettings(settings, origins, [], {}))
    async with app.open_gateway(configuration) as gateway:
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(NEVER_S)
        for _ in range(REQUESTS):
            await send_request(gateway, secret)
        for do, _ in parts().values():
            do()
        print("ready", flush=True)
        sys.stdin.readline()
        count_parts()
        for _ in range(REQUESTS):
            mark()
            await send_request(gateway, secret)
            mark()


def count_parts() -> None:
    """Run everything besides whole requests between marks."""
    for do, times in parts().values():
        for _ in range(RUNS):
            mark()
            for _ in range(times):
                do()
            mark()


async def send_request(gateway: app.Gateway, secret: str) -> None:
    """Send one request to the gateway as its server does, and check the answer."""
    body = REQUEST.encode()
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/embeddings", "raw_path": b"/v1/embeddings", "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 40000), "server": ("127.0.0.1", 8080),
        "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {}, "extensions": {},
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", f"Bearer {secret}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }  # fmt: skip
    received = iter([{"type": "http.request", "body": body, "more_body": False}])
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        if message := next(received, None):
            return message
        await asyncio.Event().wait()  # a client that stays
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await gateway(scope, receive, send)
    assert statuses == [200], statuses


def main() -> None:
    """Count, as told on the command line and on standard input."""
    logs.configure_logs(format="json", level="warning", for_good=True)
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(pass_through(sys.argv[1], Path(folder)))
    counted = {name: (RUNS, times) for name, (_, times) in parts().items()}
    print(json.dumps(counted | {"pass a request of 1 text through": (REQUESTS, 1)}))


if __name__ == "__main__":
    main()
