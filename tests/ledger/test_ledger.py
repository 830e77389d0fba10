"""Every answer is in the ledger once, whatever happens to process, disk and database."""

import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import Gateway
from raw_http import gauge, load, until
from sqlalchemy import event, func, select
from writing import write

from embedway.core.usage import UsageRecord
from embedway.ledger.ledger import Ledger
from embedway.storage import database
from embedway.storage.tables import usage_days

TOKENS = {"one": 3, "one two": 4, "one two three": 5}
"""Texts and their tokens, the model's own two marks included."""


def rows(gateway: Gateway) -> list[sqlite3.Row]:
    """Every row of the ledger, read as another process would."""
    path = gateway.folder / "data" / "embedway.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM usage").fetchall()


def ask(number: int) -> dict:
    """A request whose row can be told from all others."""
    texts = random.choices(list(TOKENS), k=1 + number % 3)
    return {"input": texts, "user": f"user-{number % 5}", "metadata": {"number": str(number)}}


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """Another process holds the database's write lock."""
    path = gateway.folder / "data" / "embedway.db"
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_kill_loses_no_answer(new_gateway: Callable[..., Gateway]):
    """Every answer a client saw is in the ledger once and right, however often it is killed."""
    gateway = new_gateway()
    answers = []
    for _ in range(4):
        gateway.start()
        with load(gateway, ask, headers={"x-on-behalf-of": "team a"}) as seen:
            until(lambda seen=seen: len(seen.answers) > 50)
            time.sleep(random.uniform(0, 0.5))
            gateway.kill()
        assert not seen.refused
        answers += seen.answers
    recorded = {row["id"]: row for row in rows(gateway)}
    for asked, answer in answers:
        row = recorded[answer["id"]]
        assert row["tokens"] == answer["usage"]["prompt_tokens"]
        assert row["tokens"] == sum(TOKENS[text] for text in asked["input"])
        assert row["items"] == len(asked["input"])
        assert (row["user"], row["on_behalf_of"]) == (asked["user"], "team a")
        assert json.loads(row["metadata"]) == asked["metadata"]
        assert (row["model"], row["status"]) == ("all-minilm-l6-v2", 200)


def test_kill_tears_no_row(new_gateway: Callable[..., Gateway]):
    """After a kill the database is sound, no id is there twice, and usage sums up its rows."""
    gateway = new_gateway().start()
    with load(gateway, ask) as seen:
        until(lambda: len(seen.answers) > 50)
        gateway.kill()
    gateway.start()
    assert gateway.embed(input="one").status_code == 200
    with closing(sqlite3.connect(gateway.folder / "data" / "embedway.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    kept = rows(gateway)
    assert len({row["id"] for row in kept}) == len(kept)
    assert all(json.loads(row["metadata"]) or row["items"] == 1 for row in kept)
    assert [(each["requests"], each["items"], each["tokens"]) for each in gateway.usage()] == [
        (len(kept), sum(row["items"] for row in kept), sum(row["tokens"] for row in kept))
    ]


def test_row_is_there_before_the_answer(gateway: Gateway):
    """The moment an answer arrives, any other process finds its row."""
    for _ in range(10):
        answer = gateway.embed(input="one two").json()
        assert answer["id"] in {row["id"] for row in rows(gateway)}


def test_waiting_rows_share_a_commit(tmp_path: Path):
    """A crowd of rows takes few commits: the busier the gateway, the more rows in each."""
    engine = database.connect(tmp_path / "embedway.db")
    commits: list[object] = []
    # Each takes a connection once.
    event.listen(engine, "checkout", lambda *_: commits.append(None))
    ledger = Ledger(engine)

    async def crowd() -> None:
        await asyncio.gather(*(write(ledger, [row(f"embd_{n}")]) for n in range(2_000)))

    asyncio.run(crowd())
    ledger.close()
    assert len(commits) < 100
    with engine.connect() as connection:
        assert connection.scalar(select(func.sum(usage_days.c.requests))) == 2_000
    engine.dispose()


def test_no_row_no_answer(new_gateway: Callable[..., Gateway]):
    """While another process holds the database, requests get 503; afterwards all is as before."""
    gateway = new_gateway().start()
    assert gateway.embed(input="one").status_code == 200
    before = len(rows(gateway))
    with locked(gateway):
        refused = gateway.embed(input="one")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert gateway.embed(input="one").status_code == 200
    assert len(rows(gateway)) == before + 1


def test_short_lock_is_waited_for(new_gateway: Callable[..., Gateway]):
    """A database that another process holds for a moment delays answers and fails none."""
    gateway = new_gateway().start()
    statuses = []
    asking = threading.Thread(
        target=lambda: statuses.append(gateway.embed(input="one").status_code)
    )
    with locked(gateway):
        asking.start()
        until(lambda: gauge(gateway, "embedway_requests_in_flight") == 1)
    asking.join(30)
    assert statuses == [200]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(small_disk: Path, new_gateway: Callable[..., Gateway]):
    """On a full disk nothing is answered unrecorded; the gateway is ready once there is room."""
    gateway = new_gateway(data_dir=small_disk / "data")
    gateway.folder = small_disk
    gateway.start()
    assert gateway.embed(input="one").status_code == 200
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):  # noqa: PT012
        while True:
            file.write(bytes(4096))
    answered = []
    for _ in range(400):
        reply = gateway.embed(input="one", user="u" * 250)
        if reply.status_code != 200:
            break
        answered.append(reply.json()["id"])
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable")
    assert not gateway.ready()
    assert not gateway.ready()
    ballast.unlink()
    until(gateway.ready)
    assert gateway.embed(input="one").status_code == 200
    assert set(answered) <= {row["id"] for row in rows(gateway)}


def test_data_folder_gone(new_gateway: Callable[..., Gateway]):
    """With its data folder deleted nothing is answered: rows would go where nobody reads them."""
    gateway = new_gateway().start()
    assert gateway.embed(input="one").status_code == 200
    shutil.rmtree(gateway.folder / "data")
    refused = gateway.embed(input="one")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    until(lambda: httpx.get(f"{gateway.url}/readyz", timeout=30).status_code == 503)


def test_refused_requests_are_recorded_unbilled(new_gateway: Callable[..., Gateway]):
    """A refused request leaves a row with its status, no tokens and no cost."""
    gateway = new_gateway().start()
    assert gateway.embed(input=["word " * 400, "one"], user="u").status_code == 400
    assert gateway.embed(input="one", model="nobody").status_code == 404
    assert gateway.embed(input="one", user="u").status_code == 200
    kept = {row["status"]: row for row in rows(gateway)}
    assert {status: (row["items"], row["tokens"]) for status, row in kept.items()} == {
        400: (2, 0), 404: (1, 0), 200: (1, 3),
    }  # fmt: skip
    sums = {each["user"]: each for each in gateway.usage(by="user")}
    assert {name: (each["requests"], each["errors"], each["tokens"], each["items"])
            for name, each in sums.items()} == {"u": (1, 1, 3, 1), None: (0, 1, 0, 0)}  # fmt: skip


def row(id: str, **fields: object) -> UsageRecord:
    """A row with some fields of its own."""
    values = {
        "at_ms": 0, "request_id": "req", "key_id": "key", "on_behalf_of": None, "user": None,
        "metadata": {}, "model": "m", "provider": "p", "items": 1, "tokens": 2,
        "cost_nano_usd": 3, "latency_us": 4, "status": 200, "project_id": "proj_default",
        "upstream_cost_nano_usd": 3, "calls": 1, "failed_calls": 0,
    }  # fmt: skip
    return UsageRecord(id=id, **(values | fields))
