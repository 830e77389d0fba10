"""Requests are never charged more than was reserved, nor for answers never sent."""

import asyncio
import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import Client, Gateway, Minilm, embedway, first_key, get
from in_process import running
from raw_http import until
from servers import Postgres, broken_commits
from sqlalchemy import create_engine, func, select

from embedway.api.asgi import Application
from embedway.core.clock import now_ms
from embedway.storage.tables import usage
from embedway.testing import Upstream
from embedway.testing.misbehaviour import Misbehaviour

NANO_PER_TOKEN = 1000
"""Both models cost 1 USD per million tokens."""
MODELS = {"counted": "cl100k_base", "guessed": "unknown"}
"""Models whose tokens are counted exactly, and models whose tokens are estimated."""


def toml(upstream: Upstream) -> str:
    """Return the settings of a gateway in front of the upstream."""
    models = "\n".join(
        f'[[providers.a.models]]\nid = "{name}"\ndimensions = 64\ntokenizer = "{tokenizer}"\n'
        'price_per_mtok_usd = "1.00"'
        for name, tokenizer in MODELS.items()
    )
    return (
        f'[providers.a]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "k"\n{models}\n'
    )


@pytest.fixture(scope="module")
def billed(
    minilm: Minilm, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in front of a provider whose models have a price."""
    folder = tmp_path_factory.mktemp("billed")
    (folder / "embedway.toml").write_text(toml(upstream))
    running = Gateway(folder).start()
    yield running
    running.kill()


def budgeted_key(gateway: Gateway, *, tokens: int) -> tuple[str, str]:
    """Return the id and secret of a key whose budget pays for this many tokens."""
    made = gateway.new_key("k", "--budget", f"{tokens * NANO_PER_TOKEN / 1e9:.9f}/total")
    return made["id"], made["key"]


def embed(gateway: Gateway, secret: str, model: str, items: list[str]) -> httpx.Response:
    with Client(timeout=60) as client:
        return client.post(
            f"{gateway.url}/v1/embeddings",
            headers={"authorization": f"Bearer {secret}"},
            json={"model": f"a:{model}", "input": items},
        )


def spent_tokens(gateway: Gateway, key_id: str) -> int:
    """Return the tokens that the ledger charges to the key."""
    [row] = [each for each in gateway.usage("key") if each["key"] == key_id] or [{}]
    return round(float(row.get("cost_usd", 0)) * 1e9 / NANO_PER_TOKEN)


def count(gateway: Gateway, status: int) -> int:
    """Return how many requests the ledger has with this status."""
    engine = create_engine(gateway.env["EMBEDWAY_DATABASE_URL"].replace("://", "+psycopg://"))
    with engine.connect() as connection:
        query = select(func.count()).where(usage.c.status == status, usage.c.key_id != "")
        counted = connection.scalar(query)
    engine.dispose()
    return counted


def log_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the events in the gateway's log."""
    lines = gateway.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_exact_counts_bound_the_bill(billed: Gateway, upstream: Upstream) -> None:
    """If a provider reports 60 times the tokens, callers pay for those that the gateway counts."""
    upstream.always(Misbehaviour(tokens=lambda tokens: 60 * tokens))
    try:
        key_id, secret = budgeted_key(billed, tokens=30)
        one = embed(billed, secret, "counted", ["a"] * 10)
        assert one.json()["usage"]["prompt_tokens"] == 10
        with ThreadPoolExecutor(16) as threads:
            replies = threads.map(lambda _: embed(billed, secret, "counted", ["a"]), range(60))
            statuses = [reply.status_code for reply in replies]
    finally:
        upstream.reset()
    assert statuses.count(200) == 20
    assert set(statuses) == {200, 429}
    assert spent_tokens(billed, key_id) == 30
    metrics = get(f"{billed.url}/metrics").text
    assert 'embedway_provider_overcounts_total{deployment="a:counted"} 21.0' in metrics
    told = next(each for each in log_of(billed) if each["event"] == "provider overcounted")
    assert (told["deployment"], told["billed_tokens_at_most"]) == ("a:counted", 10)
    assert told["reported_tokens"] > 10


def test_estimates_reserve_what_may_be_billed(billed: Gateway, upstream: Upstream) -> None:
    """However wrong an estimate is, parallel requests do not overspend a budget."""
    upstream.always(Misbehaviour(tokens=lambda _: 60))
    try:
        key_id, secret = budgeted_key(billed, tokens=200)
        with ThreadPoolExecutor(16) as threads:
            replies = threads.map(lambda _: embed(billed, secret, "guessed", ["word"]), range(30))
            answered = [reply for reply in replies if reply.status_code == 200]
    finally:
        upstream.reset()
    assert answered
    assert all(each.json()["usage"]["prompt_tokens"] == 60 for each in answered)
    assert spent_tokens(billed, key_id) == 60 * len(answered) <= 200


def test_a_database_that_stands_still_overspends_nothing(
    minilm: Minilm, tmp_path: Path, postgres: Postgres, upstream: Upstream
) -> None:
    """An answer whose commit is in doubt is refused, and spends budget only until that is known.

    Its record has the status that the client got. The outage is logged once, and so is its end.
    """
    budget = 12
    (tmp_path / "embedway.toml").write_text(toml(upstream))
    gateway = Gateway(tmp_path, database_url=postgres.url, pepper="5a" * 32).start()
    try:
        key_id, secret = budgeted_key(gateway, tokens=budget)
        assert embed(gateway, secret, "counted", ["a"]).status_code == 200
        with ThreadPoolExecutor(budget) as threads:
            with upstream.holding():
                asked = [
                    threads.submit(embed, gateway, secret, "counted", ["a"])
                    for _ in range(budget - 1)
                ]
                until(lambda: upstream.running == budget - 1)
                postgres.pause()
            ready = f"{gateway.url}/readyz"
            until(lambda: get(ready, timeout=120).status_code == 503, within_s=120)
            for refused in (each.result() for each in asked):
                assert refused.status_code == 503
                assert refused.headers["x-should-retry"] == "false"
                assert "retry-after" not in refused.headers
                assert "may have been charged" in refused.json()["error"]["message"]
            postgres.resume()
            until(gateway.ready, within_s=120)
            # The budget in doubt is free again once the outcome is certain, and can be spent once.
            until(lambda: count(gateway, 503) == budget - 1, within_s=120)
            again = threads.map(
                lambda _: embed(gateway, secret, "counted", ["a"]).status_code, range(2 * budget)
            )
            assert Counter(again) == {200: budget - 1, 429: budget + 1}
        assert spent_tokens(gateway, key_id) == budget
        assert gateway.cli("ledger", "check").returncode == 0
        events = Counter(event["event"] for event in log_of(gateway))
        assert events["database unavailable"] == events["database available again"] == 1
        assert events["failed"] == 0
    finally:
        postgres.resume()
        gateway.kill()


def test_what_is_sent_again_is_not_charged_twice(
    minilm: Minilm, tmp_path: Path, postgres_url: str, upstream: Upstream
) -> None:
    """A real client repeats a request whose budget is in doubt, but not one whose usage is."""
    (tmp_path / "embedway.toml").write_text(toml(upstream))
    gateway = Gateway(tmp_path, database_url=postgres_url, pepper="5a" * 32).start()
    database = create_engine(postgres_url.replace("://", "+psycopg://"))
    key_id, secret = budgeted_key(gateway, tokens=100)
    upstream.reset()
    try:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=secret) as client:
            with (
                broken_commits(database, "usage"),
                pytest.raises(openai.InternalServerError, match="may have been charged"),
            ):
                client.embeddings.create(model="a:counted", input="a")
            assert len(upstream.calls) == 1
        until(gateway.ready, within_s=120)
        until(lambda: count(gateway, 503) == 1, within_s=120)
        _, secret = budgeted_key(gateway, tokens=100)
        with broken_commits(database, "holds"):
            refused = embed(gateway, secret, "counted", ["a"])
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "x-should-retry" not in refused.headers
        assert len(upstream.calls) == 1
        until(lambda: embed(gateway, secret, "counted", ["a"]).status_code == 200)
        assert spent_tokens(gateway, key_id) == 0
    finally:
        database.dispose()
        gateway.kill()


async def leave_after_sending(gateway: Application, secret: str) -> list[Any]:
    """Send a whole request, disconnect in the same moment, and return what is sent back."""
    body = json.dumps({"model": "a:counted", "input": "a"}).encode()
    received = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/embeddings", "query_string": b"",
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
    }  # fmt: skip
    await gateway(scope, receive, send)
    return sent


def test_a_client_that_leaves_at_once_is_not_charged(
    minilm: Minilm, tmp_path: Path, upstream: Upstream
) -> None:
    """However early a client leaves, the answer it never gets is not charged."""
    values = tomllib.loads(toml(upstream))
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    secret = first_key(env)

    async def run() -> None:
        clocks = {"now_ms": now_ms, "now_s": time.monotonic}
        async with running(values, folder=tmp_path, **clocks) as gateway:
            for _ in range(20):
                assert await leave_after_sending(gateway, secret) == []

    asyncio.run(run())
    shown = embedway("usage", "--json", env=env)
    assert all(float(row["cost_usd"]) == 0 == row["requests"] for row in json.loads(shown.stdout))
