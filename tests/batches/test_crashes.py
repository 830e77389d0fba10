"""Batches whose gateways die: every line is answered once and charged once."""

import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_client import BatchClient, line
from conftest import Gateway, Minilm
from object_server import BUCKET
from raw_http import until
from servers import Postgres
from sqlalchemy import create_engine, select, update

from embedway.storage.tables import batches, usage
from embedway.testing import Upstream

LINES = 3_000
RATE = "requests=400/second"
"""The rate at which the lines are sent, so that gateways die before the last one."""
KILLS = 10
PROVIDER = (
    '[providers.a]\nkind = "openai"\nbase_url = "{url}/openai/v1"\napi_key = "k"\n'
    '[[providers.a.models]]\nid = "m"\ndimensions = 64\ntokenizer = "cl100k_base"\n'
    'price_per_mtok_usd = "1.00"\n'
)


def database_url(gateway: Gateway) -> str:
    url = gateway.env.get("EMBEDWAY_DATABASE_URL", "")
    file = f"sqlite:///{gateway.folder}/data/embedway.db"
    return url.replace("postgresql://", "postgresql+psycopg://") or file


def charged(gateway: Gateway) -> Counter[str]:
    """Return how often each line was charged, by the id of its usage records without the try."""
    engine = create_engine(database_url(gateway))
    try:
        with engine.connect() as connection:
            query = select(usage.c.request_id).where(usage.c.status == 200)
            return Counter(connection.execute(query).scalars())
    finally:
        engine.dispose()


def end_leases(gateway: Gateway) -> None:
    """Let the leases of dead processes end now, instead of after some seconds."""
    engine = create_engine(database_url(gateway))
    with engine.begin() as connection:
        connection.execute(update(batches).values(lease_ms=0))
    engine.dispose()


def check(client: BatchClient, gateway: Gateway, batch_id: str) -> None:
    """Check that each line is answered once and charged once."""
    batch = client.wait(client.openai.batches.retrieve(batch_id))
    assert batch.status == "completed"
    assert client.results(batch.error_file_id) == []
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": LINES, "completed": LINES, "failed": 0}
    answers = client.answers(batch)
    assert list(answers) == [str(number) for number in range(LINES)]
    times = charged(gateway)
    assert set(times.values()) == {1}
    assert len(times) == LINES


@pytest.fixture
def provider() -> Iterator[Upstream]:
    """Run an upstream of this test alone."""
    with Upstream() as running:
        yield running


def test_kill_and_restart(new_gateway: Callable[..., Gateway], provider: Upstream) -> None:
    """However often a gateway is killed, each line is answered and charged once."""
    gateway = new_gateway()
    (gateway.folder / "embedway.toml").write_text(PROVIDER.format(url=provider.url))
    key = gateway.start().new_key("slow", "--limit", RATE)["key"]
    client = BatchClient(gateway.url, key)
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(LINES))
    chance = random.Random(7)
    for _ in range(KILLS):
        # At any moment of its work, which goes on a little each time.
        most = len(charged(gateway)) + chance.randrange(LINES // KILLS)
        until(lambda: len(charged(gateway)) >= most)  # noqa: B023
        gateway.kill()
        end_leases(gateway)
        gateway.start()
    check(client, gateway, batch.id)


@pytest.fixture
def replicas(
    minilm: Minilm, tmp_path: Path, shared_postgres: Postgres, s3: dict[str, str],
    provider: Upstream,
) -> Iterator[list[Gateway]]:  # fmt: skip
    """Two gateways, not started yet, that share a database and an object store."""
    shared = {
        "database_url": shared_postgres.url,
        "pepper": secrets.token_hex(32),
        "file_store": f"s3://{BUCKET}/{tmp_path.name}",
    }
    made: list[Gateway] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "embedway.toml").write_text(PROVIDER.format(url=provider.url))
        made.append(Gateway(tmp_path / name, **shared))
        made[-1].env |= s3
    yield made
    for each in made:
        each.kill()


def test_replicas_go_on(replicas: list[Gateway]) -> None:
    """Another replica goes on with a batch: at once after a shutdown, else once the lease ends."""
    one, two = replicas
    key = one.start().new_key("slow", "--limit", RATE)["key"]
    client = BatchClient(one.url, key)
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(LINES))
    client.wait(batch, lambda batch: bool(batch.request_counts and batch.request_counts.completed))
    two.start()
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    client = BatchClient(two.url, key)
    before = charged(two)
    client.wait(batch, lambda _: charged(two) != before)
    one.start()
    two.kill()
    client = BatchClient(one.url, key)
    check(client, one, batch.id)


def test_two_at_once(replicas: list[Gateway]) -> None:
    """If both work on a batch, as after a long pause of one, lines are still charged once."""
    one, two = (each.start() for each in replicas)
    client = BatchClient(one.url, one.new_key("slow", "--limit", RATE)["key"])
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(LINES))
    for _ in range(5):
        client.wait(batch, lambda batch: batch.status != "validating")
        end_leases(two)
        time.sleep(0.3)
    check(client, one, batch.id)


def test_expiry(new_gateway: Callable[..., Gateway], provider: Upstream) -> None:
    """A batch that is not done in its time ends with what it has, also after a restart."""
    gateway = new_gateway()
    (gateway.folder / "embedway.toml").write_text(PROVIDER.format(url=provider.url))
    key = gateway.start().new_key("slow", "--limit", "requests=4/second")["key"]
    client = BatchClient(gateway.url, key)
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(100))
    client.wait(batch, lambda _: len(charged(gateway)) >= 3)
    gateway.kill()
    engine = create_engine(database_url(gateway))
    with engine.begin() as connection:
        connection.execute(update(batches).values(lease_ms=0, expires_ms=1))
    engine.dispose()
    gateway.start()
    batch = client.wait(batch)
    assert (batch.status, bool(batch.expired_at)) == ("expired", True)
    answers = client.answers(batch)
    errors = client.results(batch.error_file_id)
    assert {each["error"]["code"] for each in errors} == {"batch_expired"}
    assert sorted([*map(int, answers), *(int(each["custom_id"]) for each in errors)]) == list(
        range(100)
    )


def test_a_database_that_goes_away(
    minilm: Minilm, tmp_path: Path, postgres: Postgres, provider: Upstream
) -> None:
    """While the database is away a batch waits; then it goes on, and each line is charged once."""
    (tmp_path / "embedway.toml").write_text(PROVIDER.format(url=provider.url))
    gateway = Gateway(tmp_path, database_url=postgres.url, pepper=secrets.token_hex(32))
    try:
        key = gateway.start().new_key("slow", "--limit", RATE)["key"]
        client = BatchClient(gateway.url, key)
        batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(LINES))
        client.wait(batch, lambda _: len(charged(gateway)) >= 100)
        postgres.stop()
        time.sleep(8)  # longer than the ledger waits for it
        postgres.start()
        check(client, gateway, batch.id)
    finally:
        gateway.kill()
