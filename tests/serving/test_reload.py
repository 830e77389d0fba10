"""A reload takes in a new configuration under load, and refuses a broken one, without a failure."""

import asyncio
import fcntl
import gc
import json
import os
import signal
import subprocess
import termios
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import in_process
import numpy as np
import pytest
from conftest import EMBEDWAY, Gateway, clean_environment
from raw_http import load, until
from test_drain import starting
from test_ledger import rows

from embedway.core import clock
from embedway.testing import Upstream
from embedway.testing.vectors import space, vector_of

RELOAD = "/v1/organization/configuration/reload"


def provider(
    name: str, upstream: Upstream, *, key: str = 'api_key = "k"', price: object = 1, more: str = ""
) -> str:
    """Return the section of a provider with one model."""
    return (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n{key}\n'
        f'catalog = false\n{more}[[providers.{name}.models]]\nid = "m"\ndimensions = 64\n'
        f"price_per_mtok_usd = {price}\n"
    )


class Reloadable:
    """A gateway whose settings file the tests rewrite."""

    def __init__(self, gateway: Gateway, text: str) -> None:
        self.gateway = gateway
        self.file = gateway.folder / "embedway.toml"
        self.write(text)
        gateway.env["EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT"] = "false"
        self.admin_key = gateway.new_key("admin", "--admin")["key"]

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    def post(self, **query: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        url = self.gateway.url + RELOAD
        return httpx.post(url, headers=headers, params=query, timeout=120, verify=False)

    def reload(self, text: str | None = None) -> list[dict[str, Any]]:
        if text is not None:
            self.write(text)
        answer = self.post()
        assert answer.status_code == 200, answer.text
        return answer.json()["changes"]

    def events(self, event: str) -> list[Mapping[str, Any]]:
        lines = self.gateway.log.read_text().splitlines()
        parsed = [json.loads(each) for each in lines if each.startswith("{")]
        return [each for each in parsed if each["event"] == event]


@pytest.fixture(scope="module")
def running(minilm: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloadable]:
    """Run a gateway that the tests here share."""
    gateway = Gateway(tmp_path_factory.mktemp("reload"), log_level="info")
    made = Reloadable(gateway, "")
    gateway.start()
    yield made
    gateway.kill()


@pytest.fixture
def made(running: Reloadable, upstream: Upstream) -> Reloadable:
    """Return the shared gateway, with one provider and an upstream that forgot all calls."""
    upstream.reset()
    running.reload(provider("one", upstream))
    return running


REFUSED = {
    "syntax": "port = ",
    "an unknown name": "prot = 1",
    "a bad value": "max_items = 0",
    "an unknown kind": '[providers.x]\nkind = "nobody"',
    "a key that is missing": '[providers.x]\nkind = "openai"',
    "a provider that cannot be opened": '[providers.x]\nkind = "bedrock"\napi_key = "a:b"\n'
    'region = "eu-west-1"',
    "an alias of nothing": '[aliases]\ndocs = "nobody:m"',
    "an alias of two spaces": '[aliases]\ndocs = ["one:m", "embedway:all-minilm-l6-v2"]',
    "a file that is not there": '[models.m]\ncanaries = "none.json"',
    "an issuer": '[issuers.x]\nissuer = "ftp://x"\naudience = "a"',
}


def test_under_load(made: Reloadable, upstream: Upstream):
    """In 20 reloads under load no request fails, and each is answered and billed by one of them."""

    def configuration(number: int) -> str:
        # A provider that stays, with another key, another upstream model and another price each
        # time, and one that is replaced by another, to which the alias moves.
        other = f"other{number % 2}"
        name = f'name = "m{number}"\n'
        return (
            provider("one", upstream, key=f'api_key = "k{number}"', price=number) + name
            + provider(other, elsewhere)
            + f'[aliases]\ndocs = "{["one", other][number % 3 > 0]}:m"\n'
        )  # fmt: skip

    def request(number: int) -> dict[str, Any]:
        fields = {"input": f"text {number}", "metadata": {"number": str(number)}}
        return fields | {"model": ("one:m", "docs")[number % 2]}

    elsewhere_vectors = space("elsewhere")
    with Upstream(vectors=elsewhere_vectors) as elsewhere:
        made.reload(configuration(1))
        with load(made.gateway, request, connections=4) as seen:
            for number in range(2, 22):
                before = len(seen.answers)
                made.reload(configuration(number))
                until(lambda before=before: len(seen.answers) > before + 8)
        calls = {each.body["input"][0]: each for each in upstream.calls if each.body}
    assert (seen.broken, seen.refused) == ([], [])
    recorded = {row["id"]: row for row in rows(made.gateway)}
    prices = set()
    for asked, answer in seen.answers:
        is_elsewhere = answer["provider"] != "one"
        of = elsewhere_vectors if is_elsewhere else vector_of
        vector = answer["data"][0]["embedding"]
        assert np.allclose(vector, of(asked["input"], 64), atol=1e-5)
        row = recorded[answer["id"]]
        number = 1
        if not is_elsewhere:
            call = calls[asked["input"]]
            number = int(call.body["model"].removeprefix("m"))
            assert call.headers["authorization"] == f"Bearer k{number}"
            prices.add(number)
        assert row["cost_nano_usd"] == row["tokens"] * number * 1000
    assert len(prices) > 15
    until(lambda: len(made.events("configuration reloaded")) > 20)


@pytest.mark.parametrize("what", REFUSED)
def test_broken(made: Reloadable, upstream: Upstream, what: str):
    """A configuration that is wrong anywhere changes nothing, and says what is wrong."""
    made.write(f"max_body_bytes = 10\n{REFUSED[what]}\n{provider('two', upstream)}")
    answer = made.post()
    assert answer.status_code == 400, what
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "stays in force" in answer.json()["error"]["message"]
    assert made.gateway.embed(model="one:m", input="a long text").status_code == 200
    assert made.gateway.embed(model="two:m", input="a").status_code == 404


def test_all_reasons(made: Reloadable):
    """Every section and setting that is wrong is named at once, without its secrets."""
    made.write(
        '[providers.a]\nkind = "x"\napi_key = "s3cret"\n[providers.b]\nkind = "y"\n'
        '[issuers.c]\nissuer = "ftp://x"\n'
    )
    message = made.post().json()["error"]["message"]
    assert all(each in message for each in ("providers.a", "providers.b", "issuers.c"))
    assert "s3cret" not in message
    made.write("prot = 1\nmax_items = 0\n")
    message = made.post().json()["error"]["message"]
    assert "prot" in message and "max_items" in message


def test_every_kind_of_change(made: Reloadable, upstream: Upstream):
    """The answer names each change, `dry_run` changes nothing, and what needs a restart waits."""
    base = provider("one", upstream)
    issuer = (
        '[issuers.corp]\nissuer = "https://login.example.com"\naudience = "a"\nproject = "{}"\n'
    )
    made.reload(
        'max_items = 5\ndurability = "process"\n' + base + provider("old", upstream)
        + '[aliases]\ndocs = "one:m"\n[models.m]\norder = ["one"]\n' + issuer.format("p")
    )  # fmt: skip
    made.write(
        f'max_items = 2\ndurability = "power"\npepper = "{"5a" * 32}"\n'
        + provider("one", upstream, key='api_key = "other"', price=2.5, more="max_in_flight = 3\n")
        + provider("new", upstream)
        + '[aliases]\ndocs = ["one:m", "new:m"]\nmore = "one:m"\n[models.m]\norder = ["new"]\n'
        + issuer.format("q")
    )
    foreseen = made.post(dry_run="true").json()
    assert foreseen["dry_run"]
    assert made.gateway.embed(model="one:m", input=["a"] * 3).status_code == 200
    changes = made.reload()
    assert changes == foreseen["changes"]
    found = {
        (each["kind"], each["name"], each["field"]): (each["before"], each["after"])
        for each in changes
        if not each["needs_restart"]
    }
    url = f"{upstream.url}/openai/v1"
    assert found == {
        ("setting", "max_items", None): ("5", "2"),
        ("provider", "old", None): (url, None),
        ("provider", "new", None): (None, url),
        ("provider", "one", "keys"): (None, "changed"),
        ("provider", "one", "max_in_flight"): (None, "3"),
        ("deployment", "one:m", "price_per_mtok_usd"): ("1", "2.5"),
        ("alias", "docs", None): ("one:m", "one:m, new:m"),
        ("alias", "more", None): (None, "one:m"),
        ("model", "m", "order"): ("one", "new"),
        ("issuer", "corp", "project"): ("p", "q"),
    }
    waiting = {
        each["name"]: (each["before"], each["after"]) for each in changes if each["needs_restart"]
    }
    assert waiting == {"durability": ("process", "power"), "pepper": (None, "changed")}
    assert made.gateway.embed(model="one:m", input=["a"] * 3).status_code == 400
    assert made.gateway.embed(model="more", input="a").status_code == 200
    assert [each["needs_restart"] for each in made.reload()] == [True, True]
    headers = {"authorization": f"Bearer {made.admin_key}"}
    audit = httpx.get(f"{made.gateway.url}/v1/organization/audit_logs", headers=headers)
    last = audit.json()["data"][0]
    assert last["type"] == "configuration.reloaded"
    assert last["configuration.reloaded"]["data"]["changes"][0]["name"] == "pepper"
    assert "5a" * 8 not in audit.text + made.gateway.log.read_text()


def test_rights(made: Reloadable, upstream: Upstream):
    """Only an admin key may reload or ask what a reload would change."""
    for query in ({}, {"dry_run": "true"}):
        url = made.gateway.url + RELOAD
        headers = {"authorization": f"Bearer {made.gateway.key}"}
        answer = httpx.post(url, headers=headers, params=query, verify=False)
        assert answer.status_code == 403
    assert made.post(dry_run="perhaps").status_code == 400


def test_settings_in_force(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """Bounds, origins of pages, audiences, the log's level and `drain_s` change in flight."""
    text = provider("one", upstream)
    gateway = new_gateway()
    del gateway.env["EMBEDWAY_DRAIN_S"]
    made = Reloadable(gateway, f'drain_s = 600\nlog_level = "warning"\n{text}')
    gateway.start()
    page = "https://app.example.com"

    def preflight() -> httpx.Response:
        headers = {"origin": page, "access-control-request-method": "POST"}
        return httpx.options(f"{made.gateway.url}/v1/embeddings", headers=headers, verify=False)

    assert preflight().status_code != 204
    made.reload(
        f'drain_s = 0\nmax_body_bytes = 100\nlog_level = "info"\ncors_origins = ["{page}"]\n{text}'
    )
    assert preflight().status_code == 204
    assert made.gateway.embed(model="one:m", input="a" * 100).status_code == 413
    assert made.gateway.embed(model="one:m", input="a").status_code == 200
    until(lambda: len(made.events("answered")) == 2)
    made.gateway.signal(signal.SIGTERM)
    assert made.gateway.wait() == 0


def test_hangup(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """SIGHUP reloads, logs what was wrong, and neither ends a start nor a gateway that drains."""
    made = Reloadable(new_gateway(), provider("one", upstream))
    made.gateway.start()
    made.write(provider("two", upstream))
    made.gateway.signal(signal.SIGHUP)
    until(lambda: made.events("configuration reloaded"))
    assert made.gateway.embed(model="two:m", input="a").status_code == 200
    made.write("port = ")
    made.gateway.signal(signal.SIGHUP)
    until(lambda: made.events("configuration not reloaded"))
    assert made.gateway.embed(model="two:m", input="a").status_code == 200
    made.write(provider("one", upstream))
    with upstream.holding(), ThreadPoolExecutor() as pool:
        asked = pool.submit(made.gateway.embed, model="two:m", input="b")
        until(lambda: upstream.running)
        made.gateway.signal(signal.SIGTERM)
        until(lambda: made.events("draining"))
        made.gateway.signal(signal.SIGHUP)
        until(lambda: len(made.events("configuration not reloaded")) == 2)
        upstream.release()
        assert asked.result().status_code == 200
    assert made.gateway.wait() == 0


def test_hangup_before_ready(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """A SIGHUP during the start waits until the gateway is ready, and then reloads."""
    gateway = new_gateway()
    made = Reloadable(gateway, provider("one", upstream))
    process = starting(gateway)
    gateway.process = process
    caught = Path(f"/proc/{process.pid}/status")
    hangup = 1 << (signal.SIGHUP - 1)
    until(lambda: int(caught.read_text().partition("SigCgt:")[2].split()[0], 16) & hangup)
    process.send_signal(signal.SIGHUP)
    until(gateway.ready)
    until(lambda: made.events("configuration reloaded"))
    assert gateway.embed(model="one:m", input="a").status_code == 200


def test_many_at_once(made: Reloadable, upstream: Upstream):
    """Reloads at the same time take turns: the last one leaves what the file has."""
    made.write(provider("two", upstream))
    with ThreadPoolExecutor(8) as pool:
        answers = [each.result() for each in [pool.submit(made.post) for _ in range(8)]]
    assert [each.status_code for each in answers] == [200] * 8
    assert sorted(bool(each.json()["changes"]) for each in answers) == [False] * 7 + [True]
    assert made.gateway.embed(model="two:m", input="a").status_code == 200


def test_requests_in_flight(made: Reloadable, upstream: Upstream):
    """A request that a provider is answering gets its answer, though the provider is removed."""
    with upstream.holding(), ThreadPoolExecutor() as pool:
        asked = pool.submit(made.gateway.embed, model="one:m", input="b")
        until(lambda: upstream.running)
        made.reload("")
        assert made.gateway.embed(model="one:m", input="a").status_code == 404
        upstream.release()
        assert asked.result().status_code == 200


def test_nothing_is_left_behind(made: Reloadable, upstream: Upstream):
    """50 reloads leave no connections, threads or files open."""

    def handles() -> tuple[int, int]:
        process = made.gateway.process
        folder = Path(f"/proc/{process.pid}")
        return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))

    with httpx.Client(verify=False, timeout=120) as client:

        def cycle(number: int) -> None:
            made.write(provider("one", upstream, key=f'api_key = "k{number}"'))
            headers = {"authorization": f"Bearer {made.admin_key}"}
            assert client.post(made.gateway.url + RELOAD, headers=headers).status_code == 200
            headers = {"authorization": f"Bearer {made.gateway.key}"}
            body = {"model": "one:m", "input": "a"}
            url = f"{made.gateway.url}/v1/embeddings"
            assert client.post(url, headers=headers, json=body).status_code == 200

        for number in range(10):
            cycle(number)
        before = handles()
        for number in range(50):
            cycle(number)
        until(lambda: all(now <= then + 1 for now, then in zip(handles(), before, strict=True)))


def test_a_key_in_a_file(made: Reloadable, upstream: Upstream, tmp_path: Path):
    """A key in a file is used once its link moves; a file that is gone or empty keeps the last."""
    for version, key in (("v1", "first"), ("v2", "second\n"), ("v3", " \n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(key)
    link = tmp_path / "..data"
    link.symlink_to("v1")
    (tmp_path / "key").symlink_to("..data/key")

    def move(version: str) -> None:
        (tmp_path / "new").symlink_to(version)
        (tmp_path / "new").replace(link)

    def used() -> str:
        made.gateway.embed(model="one:m", input="a")
        return upstream.calls[-1].headers["authorization"]

    made.reload(provider("one", upstream, key=f'api_key_file = "{tmp_path / "key"}"'))
    assert used() == "Bearer first"
    move("v2")
    until(lambda: used() == "Bearer second")
    for version in ("v3", "nowhere"):
        move(version)
        until(lambda: made.events("key not read"))
        assert used() == "Bearer second"
        assert made.post().status_code == 400
    move("v1")
    until(lambda: used() == "Bearer first")
    assert len(made.events("key not read")) == 1
    assert "second" not in made.gateway.log.read_text()


def test_providers_that_share_a_key_file(made: Reloadable, upstream: Upstream, tmp_path: Path):
    """A new key in a file goes to every provider that names the file."""
    file = tmp_path / "key"
    file.write_text("first")
    key = f'api_key_file = "{file}"'
    made.reload(provider("one", upstream, key=key) + provider("two", upstream, key=key))
    replaced = len(made.events("keys replaced"))
    file.write_text("second")
    until(lambda: len(made.events("keys replaced")) > replaced)
    for name in ("one", "two"):
        made.gateway.embed(model=f"{name}:m", input="a")
        assert upstream.calls[-1].headers["authorization"] == "Bearer second"


def test_a_new_key_ends_an_ejection(made: Reloadable, upstream: Upstream, tmp_path: Path):
    """A provider that refused its key is asked again at once when the file has another."""
    file = tmp_path / "key"
    file.write_text("revoked")
    upstream.admit(key="fresh")
    made.reload(provider("one", upstream, key=f'api_key_file = "{file}"'))
    assert made.gateway.embed(model="one:m", input="a").status_code == 502
    replaced = len(made.events("keys replaced"))
    file.write_text("fresh")
    until(lambda: len(made.events("keys replaced")) > replaced)
    assert made.gateway.embed(model="one:m", input="a").status_code == 200


def test_old_generations_are_freed(
    minilm: object, tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    """A generation goes once its last request is answered; a provider that stays the same stays."""

    async def reload_twice() -> None:
        monkeypatch.chdir(tmp_path)
        for name in clean_environment() ^ os.environ.keys():
            monkeypatch.delenv(name, raising=False)
        clocks = {"now_ms": clock.now_ms, "now_s": time.monotonic}
        async with in_process.running({}, folder=tmp_path, **clocks) as gateway:
            file = tmp_path / "embedway.toml"
            quiet = "local_servers = false\nproviders_from_environment = false\n"
            file.write_text(quiet + provider("one", upstream) + provider("two", upstream))
            await gateway.reload()
            first = weakref.ref(gateway.current.embedder)
            engines = gateway.current.providers
            kept, left = engines["one"], weakref.ref(engines["two"])
            file.write_text(quiet + provider("one", upstream, price=2))
            del engines
            await gateway.reload()
            await in_process.settled()
            assert gateway.current.providers == {"one": kept}
            gc.collect()
            assert (first(), left()) == (None, None)

    asyncio.run(reload_twice())


def test_a_closed_terminal_ends_it(new_gateway: Callable[..., Gateway]):
    """SIGHUP reloads while there is a terminal; when the terminal goes away, the gateway stops."""
    gateway = new_gateway()
    made = Reloadable(gateway, "")
    ours, terminal = os.openpty()
    with gateway.log.open("wb") as log:
        gateway.process = subprocess.Popen(
            [EMBEDWAY, "serve"], env=clean_environment() | gateway.env, cwd=gateway.folder,
            stdin=terminal, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
    os.close(terminal)
    until(gateway.ready)
    gateway.signal(signal.SIGHUP)
    until(lambda: made.events("configuration reloaded"))
    os.close(ours)
    assert gateway.wait() == 0
    assert made.events("draining")
