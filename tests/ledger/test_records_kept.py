"""What providers did is in the ledger and counts, whoever leaves and whoever else writes."""

import asyncio
import contextlib
import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Gateway
from raw_http import until
from sqlalchemy import create_engine
from test_ledger import row
from writing import write

from embedway.ledger.ledger import Ledger, RecordOutcome
from embedway.storage import database
from embedway.testing import Upstream


@pytest.fixture
def start(new_gateway: Callable[..., Gateway], upstream: Upstream) -> Callable[[], Gateway]:
    def started() -> Gateway:
        gateway = new_gateway()
        (gateway.folder / "embedway.toml").write_text(
            f'[providers.a]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
            'api_key = "k"\n[[providers.a.models]]\nid = "m"\ntokenizer = "cl100k_base"\n'
            'price_per_mtok_usd = "1"\n'
        )
        return gateway.start()

    return started


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else writes, and lets nobody in meanwhile."""
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        other.rollback()


def leave(gateway: Gateway, text: str, key: str | None = None) -> None:
    """Sends a request and does not wait for its answer."""
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    with gateway.client(headers=headers) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/embeddings", json={"model": "a:m", "input": text}, timeout=1)


def test_a_client_leaves_while_its_line_waits(
    start: Callable[[], Gateway], upstream: Upstream
) -> None:
    """A line that waits to be committed is committed, whether or not its client still waits."""
    gateway = start()
    upstream.reset()
    body = json.dumps({"model": "a:m", "input": "one"})
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    with (
        written_to(gateway.folder / "data" / "embedway.db"),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as client,
    ):
        client.request("POST", "/v1/embeddings", body, headers)
        until(lambda: upstream.calls and not upstream.running)
        time.sleep(1)  # The gateway gets the provider's answer; its line now waits.
    until(lambda: sum(each["requests"] for each in gateway.usage()) == 1)


def test_who_leaves_uses_up_limits(start: Callable[[], Gateway], upstream: Upstream) -> None:
    """What a provider was asked counts against limits of tokens, also for clients that leave."""
    gateway = start()
    key = gateway.new_key("limited", "--limit", "tokens=20/day")["key"]
    upstream.always("never answers")
    leave(gateway, "one two three four five six seven eight nine ten eleven twelve", key)
    upstream.always(None)

    until(lambda: sum(each["failed_calls"] for each in gateway.usage()) == 1)
    with gateway.client(headers={"authorization": f"Bearer {key}"}) as client:
        reply = client.post("/v1/embeddings", json={"model": "a:m", "input": "a b c d e f g h i j"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "tokens")


def test_a_commit_that_stands_still_is_in_doubt(tmp_path: Path) -> None:
    """Who waits too long for a commit is told that it is in doubt, one after another."""
    path = tmp_path / "embedway.db"
    database.connect(path).dispose()
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5})
    ledger = Ledger(engine, process="p", retry_s=0, wait_s=0.1)

    async def append() -> list[RecordOutcome]:
        first = ledger.append([row("embd_1")])
        await asyncio.sleep(0.05)
        return await asyncio.gather(first, ledger.append([row("embd_2")]))

    with written_to(path) as other:
        assert asyncio.run(append()) == ["in_doubt", "in_doubt"]
        other.rollback()
    ledger.close()
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as kept:
        assert kept.execute("SELECT count(*) FROM usage").fetchone() == (2,)


def test_somebody_else_writes_for_long(tmp_path: Path) -> None:
    """Lines wait for another writer for longer than one try does."""
    path = tmp_path / "embedway.db"
    database.connect(path).dispose()
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.05})
    ledger = Ledger(engine, process="p")
    with written_to(path) as other:
        threading.Timer(0.5, other.rollback).start()
        asyncio.run(write(ledger, [row("embd_1")]))
    ledger.close()
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as kept:
        assert kept.execute("SELECT count(*) FROM usage").fetchone() == (1,)
