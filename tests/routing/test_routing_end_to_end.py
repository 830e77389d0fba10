"""Routing and failover, as the servers behind a gateway see them."""

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Gateway, Minilm
from raw_http import until
from test_drift import new_text

from embedway.testing import Item, Upstream, UpstreamReply, Vectors, space

TRUE = space("m")
WIDTH = 64
PRICES = {"a": "0.03", "b": "0.01", "c": "0.02"}
FACTS = {"a": "eu_native = true", "b": "zero_data_retention = true", "c": ""}
QUANTISATION = {"a": "fp32", "b": "int8", "c": "bf16"}
FAULTS = (
    *("reset before the head", "close in the body", "429", "500", "503", "too few vectors"),
    *("not JSON", "NaN", "401", "404", "never answers"),
)
# A model for each test: how a deployment fared in one is not to be seen in another.
POLICIES = {
    "cost": "",
    "speed": "",
    "balanced": "",
    "ties": "",
    "order": 'order = ["c", "a"]',
    "weights": "weights = { b = 0, c = 0 }",
    "only": 'only = ["b"]',
    "refused": 'order = ["gone"]',
    "caller": 'order = ["a"]',
    "chunks": 'order = ["a", "b"]',
    "limited": 'order = ["a", "b"]',
    "exhausted": 'only = ["a", "b"]',
    "ejected": 'only = ["a", "b"]\norder = ["a", "b"]',
    "extra": "",
    "filters": "",
    "keys": 'order = ["a"]',
    "dry": 'order = ["c"]',
    "together": "",
} | {f"fault-{at}": 'order = ["a", "b"]' for at in range(len(FAULTS))}
PRICED = {"cost", "balanced", "chunks", "filters", "dry"}


class World:
    """A gateway and whom it asks."""

    def __init__(
        self,
        gateway: Gateway,
        upstreams: Mapping[str, Upstream],
        close_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.gateway = gateway
        self.upstreams = upstreams
        self.close_gone = close_gone
        """Closes the server of the provider `gone`."""

    def proven(self, model: str, providers: Sequence[str] = ("a", "b", "c")) -> None:
        """Asks each by name, so that all are of the model's space."""
        for provider in providers:
            reply = self.gateway.embed(model=f"{provider}:{model}", input=new_text())
            assert reply.status_code == 200, reply.text
            assert f"{model}@{providers[0]}/" in reply.headers["x-embedway-space"]

    def ask(self, model: str, **fields: Any) -> tuple[httpx.Response, list[str]]:
        """The answer to a new text, and who received that."""
        text = new_text()
        reply = self.gateway.embed(model=model, input=text, **fields)
        if reply.status_code == 200:
            assert np.allclose(reply.json()["data"][0]["embedding"], TRUE(text, WIDTH), atol=1e-6)
        return reply, self.received(text)

    def first(self, model: str, times: int, **fields: Any) -> Counter[str]:
        """How often each is asked first."""
        return Counter(self.ask(model, **fields)[1][0] for _ in range(times))

    def received(self, text: str) -> list[str]:
        """The providers that this text reached, once for each call."""
        return [
            name
            for name, upstream in self.upstreams.items()
            for call in upstream.calls
            if text in each_of(call.body["input"])
        ]


def each_of(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def slow(seconds: float) -> Vectors:
    """The same vectors, later."""

    def late(item: Item, width: int) -> Any:
        time.sleep(seconds)
        return TRUE(item, width)

    return late


def section(name: str, upstream: Upstream, models: Sequence[str]) -> str:
    """A provider in embedway.toml."""
    lines = [
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "k"\n{FACTS.get(name, "")}'
    ]
    for model in models:
        price = PRICES.get(name, "0.01") if model in PRICED else "0.01"
        lines.append(
            f'[[providers.{name}.models]]\nid = "{model}"\ndimensions = {WIDTH}\n'
            f'price_per_mtok_usd = "{price}"\nquantisation = "{QUANTISATION.get(name, "unknown")}"'
        )
        if model == "chunks":
            lines.append("max_items = 2")
        if model == "dry":
            lines.append('tokenizer = "cl100k_base"')
    return "\n".join(lines)


@pytest.fixture(scope="module")
def running(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One gateway for all tests here, and four servers that have its models."""
    with contextlib.ExitStack() as open_now:
        upstreams = {name: open_now.enter_context(Upstream(vectors=TRUE)) for name in "abc"}
        gone_open = open_now.enter_context(contextlib.ExitStack())
        gone = gone_open.enter_context(Upstream(vectors=TRUE))
        folder = tmp_path_factory.mktemp("routing")
        gateway = Gateway(folder, canaries=True, request_timeout_s=4)
        sections = [
            section("gone", gone, ["refused"]),
            *(section(name, each, list(POLICIES)) for name, each in upstreams.items()),
            *(f'[models."{model}"]\n{said}' for model, said in POLICIES.items()),
        ]
        (folder / "embedway.toml").write_text("\n".join(sections))
        yield World(gateway.start(), upstreams | {"gone": gone}, gone_open.close)
        gateway.kill()


@pytest.fixture
def world(running: World) -> World:
    """The gateway, with fresh servers."""
    for upstream in running.upstreams.values():
        upstream.reset()
    return running


def test_cost_asks_the_cheapest(world: World) -> None:
    """With `cost` the lowest price is asked, and the next one when that fails."""
    world.proven("cost")
    assert world.first("cost", 10, preference="cost") == {"b": 10}
    world.upstreams["b"].script("500")
    reply, received = world.ask("cost", preference="cost")
    assert reply.headers["x-embedway-provider"] == "c"
    assert sorted(received) == ["b", "c"]


def test_speed_asks_the_fastest(world: World) -> None:
    """With `speed` the faster deployment gets all requests but the few that explore."""
    world.upstreams["a"].vectors = world.upstreams["c"].vectors = slow(0.1)
    world.proven("speed")
    for _ in range(3):
        for provider in "abc":
            world.ask(f"{provider}:speed")
    assert world.first("speed", 25, preference="speed")["b"] >= 20


def test_balanced_asks_neither_the_dearest_nor_the_slowest(world: World) -> None:
    """With `balanced`, which is the default, being cheap does not make up for being very slow."""
    world.upstreams["b"].vectors = slow(0.25)
    world.proven("balanced")
    for _ in range(3):
        for provider in "abc":
            world.ask(f"{provider}:balanced")
    assert world.first("balanced", 25)["b"] <= 5


def test_equals_take_turns(world: World) -> None:
    """Those that are alike share the requests."""
    world.proven("ties")
    shares = world.first("ties", 60, preference="cost")
    assert min(shares[each] for each in "abc") >= 6


def test_the_operators_order(world: World) -> None:
    """`order` comes before any preference, also when the first one fails."""
    world.proven("order")
    assert world.first("order", 8, preference="cost") == {"c": 8}
    world.upstreams["c"].script("500")
    assert world.ask("order")[0].headers["x-embedway-provider"] == "a"
    world.upstreams["c"].script("500")
    world.upstreams["a"].script("500")
    assert world.ask("order")[0].headers["x-embedway-provider"] == "b"


def test_the_operators_weights(world: World) -> None:
    """A deployment with weight 0 is called when no other is left."""
    world.proven("weights")
    assert world.first("weights", 15) == {"a": 15}
    world.upstreams["a"].script("500")
    assert world.ask("weights")[0].headers["x-embedway-provider"] in {"b", "c"}


def test_only_pins(world: World) -> None:
    """`only` holds for every name, and a request for another provider is refused."""
    world.ask("only")
    assert world.first("only", 10) == {"b": 10}
    reply, received = world.ask("a:only")
    assert (reply.status_code, received) == (400, [])
    assert "'only' removes a:only" in reply.json()["error"]["message"]


@pytest.mark.parametrize("at", range(len(FAULTS)), ids=FAULTS.__getitem__)
def test_who_fails_is_passed_over(world: World, at: int) -> None:
    """Whatever is its own fault: the next of the same space is asked, once, with the same text."""
    model = f"fault-{at}"
    world.proven(model)
    world.upstreams["a"].script(FAULTS[at])
    reply, received = world.ask(model)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-embedway-provider"] == "b"
    assert received == ["a", "b"]


def test_who_is_gone_is_passed_over(world: World) -> None:
    """A refused connection fails over to the next deployment."""
    world.proven("refused", ["gone", "a", "b", "c"])
    world.close_gone()
    for _ in range(3):
        reply, received = world.ask("refused")
        assert reply.status_code == 200
        assert received == [reply.headers["x-embedway-provider"]]


def test_the_callers_fault_goes_nowhere_else(world: World) -> None:
    """What one refuses as the caller's fault is not tried at another."""
    world.proven("caller")
    world.upstreams["a"].script("400")
    reply, received = world.ask("caller")
    assert (reply.status_code, received) == (400, ["a"])


def test_chunks_of_one_request_by_two_deployments(world: World) -> None:
    """If one fails in the middle, another does the rest; each is paid for what it did."""
    world.proven("chunks")
    world.upstreams["a"].script(None, *["503"] * 5)
    texts = [new_text() for _ in range(12)]
    reply = world.gateway.embed(model="chunks", input=texts)
    assert reply.status_code == 200, reply.text
    vectors = [entry["embedding"] for entry in reply.json()["data"]]
    assert np.allclose(vectors, [TRUE(text, WIDTH) for text in texts], atol=1e-6)
    assert set(reply.headers["x-embedway-provider"].split(",")) == {"a", "b"}
    # Two tokens a text: two texts at 0.03 USD per million tokens, ten at 0.01.
    cost = Decimal(4 * 3 + 20 * 1) / 10**8
    assert Decimal(reply.headers["x-embedway-cost-usd"]) == cost
    # And before, each was asked for one text to be proven.
    billed = {
        row["provider"]: (row["requests"], row["tokens"], Decimal(str(row["cost_usd"])) * 10**8)
        for row in world.gateway.usage("model,provider")
        if row["model"] == "chunks"
    }
    assert billed == {"a": (2, 4 + 2, 12 + 6), "b": (1, 20 + 2, 20 + 2), "c": (1, 2, 4)}


def test_a_rate_limit_is_obeyed(world: World) -> None:
    """A rate-limited deployment is not called before its time, with or without others."""
    world.proven("limited")
    limit = UpstreamReply(status=429, headers={"retry-after": "2"})
    world.upstreams["a"].script(limit)
    reply, received = world.ask("limited")
    assert (reply.headers["x-embedway-provider"], received) == ("b", ["a", "b"])
    assert world.first("limited", 10) == {"b": 10}
    reply, received = world.ask("a:limited")
    assert (reply.status_code, received) == (429, [])
    until(lambda: "a" in world.ask("limited")[1])


def test_who_waits_as_told_succeeds(world: World) -> None:
    """If all are rate-limited, the client learns for how long, and nothing is sent."""
    world.proven("exhausted", ["a", "b"])
    for name in "ab":
        world.upstreams[name].script(UpstreamReply(status=429, headers={"retry-after": "6"}))
    reply, received = world.ask("exhausted")
    assert (reply.status_code, sorted(received)) == (429, ["a", "b"])
    for _ in range(3):
        reply, received = world.ask("exhausted")
        assert (reply.status_code, received) == (429, [])
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(reply.headers["retry-after"]) >= int(reply.headers["retry-after-ms"]) / 1000
    time.sleep(int(reply.headers["retry-after-ms"]) / 1000)
    assert world.ask("exhausted")[0].status_code == 200


def test_who_fails_often_is_left_alone_and_tried_again(world: World) -> None:
    """After five failures in a row it is not asked for some seconds; then one request tries it."""
    world.proven("ejected", ["a", "b"])
    world.upstreams["a"].always("500")
    assert world.first("ejected", 5) == {"a": 5}
    assert world.first("ejected", 10) == {"b": 10}
    metrics = httpx.get(f"{world.gateway.url}/metrics").text
    assert 'embedway_ejections_total{deployment="a:ejected"} 1.0' in metrics
    # The first to try it again is one of many, and the others do not wait for what becomes of it.
    tries: list[str] = []

    def tried() -> bool:
        with ThreadPoolExecutor(8) as clients:
            asked = list(clients.map(lambda _: world.ask("ejected"), range(8)))
        assert all(reply.status_code == 200 for reply, _ in asked)
        tries.extend(name for _, received in asked for name in received if name == "a")
        return bool(tries)

    until(tried)
    assert len(tries) == 1
    assert world.first("ejected", 5) == {"b": 5}


def test_parameters_of_a_provider_stay_with_it(world: World) -> None:
    """`extra_body` is meant for the deployment that the name means, and goes to no other."""
    world.proven("extra")
    for _ in range(6):
        assert set(world.ask("extra", extra_body={"colour": "blue"})[1]) == {"a"}
    world.upstreams["a"].always("503")
    assert set(world.ask("extra", extra_body={"colour": "blue"})[1]) == {"a"}


def test_filters_that_leave_nobody(world: World) -> None:
    """The 400 lists each filter with whom it removed, and no text went anywhere."""
    world.proven("filters")
    assert world.first("filters", 4, eu_native=True) == {"a": 4}
    assert world.first("filters", 4, zdr=True) == {"b": 4}
    assert set(world.first("filters", 10, allow_quantization=False)) <= {"a", "c"}
    reply, received = world.ask("filters", eu_native=True, zdr=True, allowed_providers=["a", "b"])
    error = reply.json()["error"]
    assert (reply.status_code, received) == (400, [])
    assert error["type"] == "invalid_request_error"
    for filter, removed in (("allowed_providers", "c"), ("eu_native", "b"), ("zdr", "a")):
        assert f"{filter!r} removes {removed}:filters" in error["message"]


def test_restricted_keys(world: World) -> None:
    """A key for some models gets 403 for others; one for a provider never reaches another."""
    world.proven("keys")
    of_model = world.gateway.new_key("of-model", "--model", "keys")["key"]
    of_provider = world.gateway.new_key("of-provider", "--provider", "b")["key"]

    def ask(key: str, model: str, **fields: Any) -> tuple[httpx.Response, list[str]]:
        text = new_text()
        with world.gateway.client(headers={"authorization": f"Bearer {key}"}) as client:
            reply = client.post("/v1/embeddings", json={"model": model, "input": text} | fields)
        return reply, world.received(text)

    assert ask(of_model, "keys")[0].status_code == 200
    assert ask(of_model, "c:keys")[0].status_code == 200
    for model in ("cost", "a:cost"):
        reply, received = ask(of_model, model)
        assert (reply.status_code, received) == (403, [])
        assert reply.json()["error"]["code"] == "model_not_found"
    for _ in range(6):
        assert ask(of_provider, "keys")[1] == ["b"]
    world.upstreams["b"].script(*["503"] * 3)
    assert set(ask(of_provider, "keys")[1]) == {"b"}
    for model in ("a:keys", "auto"):
        reply, received = ask(of_provider, model)
        assert (reply.status_code, received) == (403, []), reply.text


def test_a_dry_run_asks_nobody(world: World) -> None:
    """It tells exact tokens, the price, and who would be asked in which order and why."""
    world.proven("dry")
    before = sum(len(each.calls) for each in world.upstreams.values())
    rows = world.gateway.usage()
    texts = ["hello world", "antidisestablishmentarianism"]
    with world.gateway.client() as client:
        reply = client.post(
            "/v1/embeddings?dry_run=true",
            json={"model": "dry", "input": texts, "preference": "cost", "allow_quantization": True},
        )
    told = reply.json()
    assert reply.status_code == 200, reply.text
    assert (told["tokens"], told["tokens_estimated"], told["items"]) == (8, False, 2)
    assert [each["id"] for each in told["candidates"]] == ["c:dry", "b:dry", "a:dry"]
    assert [each["cost_usd"] for each in told["candidates"]] == [
        format(Decimal(8) * Decimal(PRICES[each]) / 10**6, "f") for each in "cba"
    ]
    assert "order" in told["candidates"][0]["reason"]
    assert "cheapest" in told["candidates"][1]["reason"]
    assert sum(len(each.calls) for each in world.upstreams.values()) == before
    assert world.gateway.usage() == rows
    reply, received = world.ask("dry")
    assert received == ["c"]


def test_two_requests_at_once(world: World) -> None:
    """Each waits for its own provider only, and neither gets the other's vectors."""
    world.proven("together")
    with ThreadPoolExecutor(2) as clients, world.upstreams["a"].holding():
        held = clients.submit(world.ask, "a:together")
        until(lambda: world.upstreams["a"].running == 1)
        assert world.ask("b:together")[0].status_code == 200
        second = clients.submit(world.ask, "a:together")
        until(lambda: world.upstreams["a"].running == 2)
        assert not held.done()
        world.upstreams["a"].release()
        assert {each.result()[0].status_code for each in (held, second)} == {200}


def test_kill_9_in_the_middle_of_a_probe(new_gateway: Callable[..., Gateway]) -> None:
    """What was not proven yet is proven after the restart, and never taken for proven."""
    with Upstream(vectors=TRUE) as good, Upstream(vectors=space("other")) as bad:
        gateway = new_gateway(canaries=True)
        upstreams = {"a": good, "b": bad}
        sections = [section(name, each, ["m"]) for name, each in upstreams.items()]
        (gateway.folder / "embedway.toml").write_text("\n".join(sections))
        gateway.start()
        world = World(gateway, upstreams)
        with bad.holding():
            assert world.ask("m")[0].status_code == 200
            until(lambda: bad.running)
            gateway.signal(signal.SIGKILL)
            gateway.wait()
        gateway.start()
        for _ in range(10):
            reply, received = world.ask("m")
            assert (reply.status_code, received) == (200, ["a"])
        shown = gateway.cli("spaces", "status", "--json")
        states = {row["deployment"]: row["state"] for row in json.loads(shown.stdout)}
        assert states["a:m"] == "reference"
        assert states["b:m"] in {"differs", "unproven"}
