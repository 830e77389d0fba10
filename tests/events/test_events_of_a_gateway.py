"""What a running gateway tells its webhooks, and what the command line says of them."""

import json
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Gateway, embedway
from raw_http import until
from servers import Postgres, Redis
from sqlalchemy import create_engine
from standardwebhooks import Webhook as Verifier
from webhook_receiver import SECRET, Receiver

from embedway.config.schema import ConfigError
from embedway.config.settings import LoadedSettings, Settings
from embedway.config.webhooks import read_webhooks
from embedway.testing import Upstream

PROVIDER = """
[providers.a]
kind = "openai"
base_url = "{url}/openai/v1"
api_key = "k"
[[providers.a.models]]
id = "m"
dimensions = 64
price_per_mtok_usd = "1.00"
"""


def configure(gateway: Gateway, upstream: Upstream, webhooks: str) -> Gateway:
    toml = gateway.folder / "embedway.toml"
    toml.write_text(PROVIDER.format(url=upstream.url) + webhooks)
    toml.chmod(0o600)
    return gateway


def outcomes(gateway: Gateway) -> int:
    """How many tries to deliver have ended."""
    with gateway.client() as client:
        lines = client.get("/metrics").text.splitlines()
    found = (each for each in lines if each.startswith("embedway_webhook_deliveries_total{"))
    return sum(int(float(each.split()[-1])) for each in found)


def let_time_pass(url: str) -> None:
    """Make all claims lapse and all waits end."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE event_deliveries SET next_ms = 0")
    engine.dispose()


def test_a_gateway_tells(
    new_gateway: Callable[..., Gateway],
    upstream: Upstream,
    receiver: Receiver,
    postgres: Postgres,
    redis: Redis,
) -> None:
    """It tells of budgets, failing providers, the database and Redis; kill -9 loses no event."""
    gateway = new_gateway(database_url=postgres.url, redis_url=redis.url)
    configure(gateway, upstream, receiver.section("ops"))
    key = gateway.new_key("small", "--budget", "0.00008/day", "--alert", "1")["key"]
    gateway.start()

    def embed(text: str = "a") -> int:
        with gateway.client(headers={"authorization": f"Bearer {key}"}) as client:
            return client.post("/v1/embeddings", json={"model": "a:m", "input": text}).status_code

    # The receiver has the first event, but its sender dies before it learns so.
    both_happened = threading.Event()
    receiver.answer = lambda _: (both_happened.wait() and gateway.kill()) or 200
    assert embed() == 200
    assert embed("long" * 100) == 429
    until(lambda: receiver.calls)
    both_happened.set()
    until(lambda: gateway.process is not None and gateway.process.poll() is not None)
    (first,) = receiver.calls
    receiver.answer = lambda _: 200
    let_time_pass(gateway.env["EMBEDWAY_DATABASE_URL"])
    gateway.start()
    until(lambda: {"budget.alert", "budget.exhausted"} <= set(receiver.types()[1:]))
    assert receiver.ids().count(first.id) == 2
    assert len(receiver.calls) == 3
    assert {each.content for each in receiver.calls if each.id == first.id} == {first.content}
    for each in receiver.calls[1:]:
        data = Verifier(SECRET).verify(each.content, each.headers)["data"]
        assert (data["of"], data["per"], data["amount_usd"]) == ("key", "day", 0.00008)

    upstream.always("no vectors")
    for _ in range(5):
        assert gateway.embed(model="a:m", input="a").status_code == 502
    until(lambda: "deployment.ejected" in receiver.types())
    upstream.reset()

    redis.stop()
    until(lambda: gateway.embed(input="a") and "redis.unavailable" in receiver.types())
    redis.start()
    until(lambda: "redis.available" in receiver.types())
    until(lambda: gateway.embed(model="a:m", input="a").status_code == 200)
    until(lambda: "deployment.recovered" in receiver.types())

    late = receiver.section("late", 'events = ["database.unavailable"]')
    configure(gateway, upstream, receiver.section("ops") + late)
    gateway.signal(signal.SIGHUP)
    until(lambda: "configuration reloaded" in gateway.log.read_text())
    postgres.stop()
    until(
        lambda: (
            gateway.embed(input="a").status_code == 503
            and "database.unavailable" in receiver.types()
        )
    )
    postgres.start()
    until(lambda: gateway.ready() and "database.available" in receiver.types())
    for type in ("redis.unavailable", "database.unavailable", "deployment.ejected"):
        arrived = [each.path for each in receiver.calls if each.body["type"] == type]
        expected = {"/ops", "/late"} if type == "database.unavailable" else {"/ops"}
        assert (set(arrived), len(arrived)) == (expected, len(expected))
    assert outcomes(gateway) >= 7


def test_the_command_line(
    new_gateway: Callable[..., Gateway], receiver: Receiver, upstream: Upstream
) -> None:
    """`webhooks test` says what the receiver did, and `webhooks list` how deliveries stand."""
    gateway = new_gateway()
    assert "There is no webhook." in gateway.cli("webhooks", "list").stdout
    assert "There is none in embedway.toml" in gateway.cli("webhooks", "test", "ops").stderr
    configure(gateway, upstream, receiver.section("ops", 'events = ["budget.alert"]'))
    done = gateway.cli("webhooks", "test", "ops")
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1: answered 200" in done.stdout
    assert receiver.types() == ["webhook.test"]
    doctor = json.loads(gateway.cli("doctor", "--json").stdout)
    found = {each["check"]: each["detail"] for each in doctor}
    assert found["webhooks"] == "ops; to test one: embedway webhooks test ops"
    receiver.answer = lambda _: 403
    failed = gateway.cli("webhooks", "test", "ops")
    assert failed.returncode == 1
    assert "was not received. 127.0.0.1: answered 403" in failed.stderr
    unknown = gateway.cli("webhooks", "test", "opps")
    assert (unknown.returncode, "Did you mean ops?" in unknown.stderr) == (1, True)
    (listed,) = json.loads(gateway.cli("webhooks", "list", "--json").stdout)
    assert listed == {
        "webhook": "ops", "host": "127.0.0.1", "format": "json", "events": "budget.alert",
        "waiting": 0, "given_up": 0, "last_result": None,
    }  # fmt: skip


SIGNED = f'secret = "{SECRET}"'


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("", "url is missing. Where events are sent"),
        ('url = "https://h/x"', "secret is missing"),
        (f'url = "ftp://h/x"\n{SIGNED}', "url must be an address such as https://host/path"),
        (f'url = "https://me:s3cret@h/x"\n{SIGNED}', "without a user"),
        (f'url = "$NOWHERE"\n{SIGNED}', "$NOWHERE is not set"),
        ('url = "https://h"\nsecret = "s3cret"', "secret must be whsec_ and 24 to 64 bytes"),
        ('url = "https://h"\nsecret = "whsec_c2hvcnQ="', "secret must be whsec_"),
        (f'url = "https://h"\n{SIGNED}\nevents = []', "events"),
        (f'url = "https://h"\n{SIGNED}\nevents = ["budget.allert"]', "budget.alert"),
        (
            f'url = "https://h"\n{SIGNED}\nevents = ["redis.available"]',
            "events has redis.available without redis.unavailable",
        ),
        (f'url = "https://h"\n{SIGNED}\nformat = "xml"', "format"),
        (f'url = "https://h"\n{SIGNED}\nsecrets = "a"', "Did you mean secret?"),
    ],
)
def test_wrong_sections(section: str, said: str) -> None:
    """A wrong section is refused by a message that names it and the cure, and shows no secret."""
    values = tomllib.loads(f"[webhooks.ops]\n{section}\n")
    settings = Settings.model_validate(values, context={"webhooks": "embedway.toml"})
    with pytest.raises(ConfigError) as refused:
        read_webhooks(LoadedSettings(settings, {}, [], {}))
    assert str(refused.value).startswith("embedway.toml: [webhooks.ops]: ")
    assert said in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_wrong_section_prevents_the_start(new_gateway: Callable[..., Gateway]) -> None:
    """`serve` ends with status 1 and the message, before it opens anything."""
    gateway = new_gateway()
    (gateway.folder / "embedway.toml").write_text('[webhooks.ops]\nurl = "https://h"\n')
    done = gateway.cli("serve")
    assert done.returncode == 1
    assert "embedway.toml: [webhooks.ops]: secret is missing" in done.stderr


def test_secrets_in_variables(receiver: Receiver, tmp_path: Path) -> None:
    """The address and the secret may be in variables, and are shown nowhere."""
    (tmp_path / "embedway.toml").write_text(
        '[webhooks.ops]\nurl = "$HOOK"\nsecret = "$HOOK_SECRET"\n'
    )
    env = {"HOOK": f"{receiver.url}/s3cret", "HOOK_SECRET": SECRET}
    done = embedway("webhooks", "test", "ops", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (call,) = receiver.calls
    assert call.path == "/s3cret"
    Verifier(SECRET).verify(call.content, call.headers)
    shown = done.stdout + embedway("config", "show", "--json", env=env, cwd=tmp_path).stdout
    assert "s3cret" not in shown
    assert SECRET not in shown
