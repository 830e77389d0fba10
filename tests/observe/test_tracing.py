"""Traces and metrics, as a collector receives them."""

import base64
import json
import re
import signal
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from collector import Collector, ReceivedSpan
from conftest import Gateway, Minilm, get
from raw_http import Wire, until

from embedway.testing import Upstream, vector_of
from embedway.testing.misbehaviour import Misbehaviour

SECRET_TEXT = "the patient's name is Rumpelstiltskin"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
UNSET, ERROR = 0, 2
SERVER, CLIENT, INTERNAL = 2, 3, 1
CONFIG = """
[providers.first]
kind = "openai"
base_url = "{first}/openai/v1"
api_key = "sk-upstream-0123456789"
[[providers.first.models]]
id = "m"
dimensions = 64
price_per_mtok_usd = 1
[providers.second]
kind = "voyage"
base_url = "{second}/voyage/v1"
api_key = "sk-upstream-0123456789"
[[providers.second.models]]
id = "m"
dimensions = 64
price_per_mtok_usd = 1
[models.m]
order = ["first", "second"]
"""


class World:
    """A gateway with two providers, and the collector that it sends to."""

    def __init__(self, gateway: Gateway, first: Upstream, second: Upstream, to: Collector) -> None:
        self.gateway, self.first, self.second, self.collector = gateway, first, second, to
        self.proven: list[httpx.Response] = []
        """The first answer of each provider, for which canaries proved it."""

    def ask(self, model: str = "first:m", *, parent: str = "", **fields) -> httpx.Response:
        """Send a request, in a trace or not."""
        headers = {"traceparent": parent} if parent else {}
        with self.gateway.client(headers=headers) as client:
            return client.post(
                "/v1/embeddings", json={"model": model, "input": SECRET_TEXT, **fields}
            )

    def trace(self, reply: httpx.Response) -> tuple[ReceivedSpan, list[ReceivedSpan]]:
        """Return the span of an answered request, and those of its calls."""
        return self.collector.trace(reply.headers["x-request-id"])

    def dropped(self) -> int:
        """Return how many spans were dropped."""
        metrics = get(f"{self.gateway.url}/metrics").text
        return int(float(re.search(r"embedway_spans_dropped_total ([\d.e+]+)", metrics)[1]))

    def line(self, reply: httpx.Response) -> dict:
        """Wait for the log line of an answer, which is written after it; return it."""
        id = reply.headers["x-request-id"]
        until(lambda: id in [line["request_id"] for line in self.log("answered")])
        return next(line for line in self.log("answered") if line["request_id"] == id)

    def log(self, event: str) -> list[dict]:
        """Return the log lines of an event."""
        lines = self.gateway.log.read_text().splitlines()
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in logged if line["event"] == event]


def make(gateway: Gateway, first: Upstream, second: Upstream, to: Collector, **otel: str) -> World:
    """Start a gateway that sends to this collector."""
    config = gateway.folder / "embedway.toml"
    config.write_text(CONFIG.format(first=first.url, second=second.url))
    gateway.env |= {f"OTEL_{name}": each for name, each in otel.items()}
    gateway.start()
    return World(gateway, first, second, to)


@pytest.fixture(scope="module")
def shared(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run a gateway that all tests share."""
    with Upstream() as first, Upstream() as second, Collector() as collector:
        gateway = Gateway(
            tmp_path_factory.mktemp("traced"), otlp_endpoint=f"{collector.url}/", canaries=True
        )
        world = make(
            gateway, first, second, collector,
            EXPORTER_OTLP_HEADERS="x-key=sec%20ret", METRIC_EXPORT_INTERVAL="200",
            SERVICE_NAME="shop", RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        )  # fmt: skip
        world.proven = [world.ask(each) for each in ("first:m", "second:m")]
        yield world
        gateway.kill()


@pytest.fixture
def world(shared: World) -> World:
    """Return the shared world, with nothing scripted."""
    shared.first.reset()
    shared.second.reset()
    return shared


def test_one_request_is_one_trace(world: World) -> None:
    """The span of a request is the parent of its call's, and both have the conventions' names."""
    reply = world.ask(encoding_format="base64")
    request, [call] = world.trace(reply)
    assert (request.parent, call.parent) == ("", request.id)
    assert call.span.trace_id == request.span.trace_id
    assert request.span.name == "POST /v1/embeddings"
    assert (request.span.kind, request.span.status.code) == (SERVER, UNSET)
    usage, port = reply.json()["usage"], int(world.first.url.rpartition(":")[2])
    key, project = (world.line(reply)[name] for name in ("key", "project"))
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "url.path": "/v1/embeddings",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "first:m",
        "gen_ai.request.encoding_formats": ["base64"],
        "gen_ai.embeddings.dimension.count": 64,
        "embedway.request_id": reply.headers["x-request-id"],
        "embedway.key_id": key,
        "embedway.project_id": project,
        "embedway.items": 1,
        "embedway.tokens": usage["prompt_tokens"],
        "embedway.cost_usd": pytest.approx(float(reply.headers["x-embedway-cost-usd"])),
        "embedway.space": reply.headers["x-embedway-space"],
    }
    assert call.span.name == "embeddings m"
    assert (call.span.kind, call.span.status.code) == (CLIENT, UNSET)
    assert call.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.embeddings.dimension.count": 64,
        "server.address": "127.0.0.1",
        "server.port": port,
        "embedway.deployment": "first:m",
        "embedway.call": 1,
        "embedway.items": 1,
    }
    times = [
        request.span.start_time_unix_nano, call.span.start_time_unix_nano,
        call.span.end_time_unix_nano, request.span.end_time_unix_nano,
    ]  # fmt: skip
    assert times == sorted(times)
    about = world.collector.resource
    assert about["service.name"] == "shop"
    assert about["deployment.environment.name"] == "test"
    assert {"service.version", "service.instance.id"} <= about.keys()
    assert {headers["x-key"] for _, headers, _ in world.collector.received} == {"sec ret"}


def test_the_clients_trace_continues(world: World) -> None:
    """The request's span is a child of the client's, and the provider's server gets its call's."""
    headers = {"traceparent": SAMPLED, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}
    with world.gateway.client(headers=headers) as client:
        reply = client.post("/v1/embeddings", json={"model": "first:m", "input": "a"})
    request, [call] = world.trace(reply)
    assert (request.span.trace_id.hex(), request.parent) == (TRACE, PARENT)
    assert {request.span.trace_state, call.span.trace_state} == {headers["tracestate"]}
    [received] = world.first.calls
    assert received.headers["traceparent"] == f"00-{TRACE}-{call.id}-01"
    assert received.headers["tracestate"] == headers["tracestate"]
    assert world.line(reply)["trace_id"] == TRACE


def test_an_unsampled_trace_stays_so(world: World) -> None:
    """A client that does not sample gets no spans, and the provider's server learns so too."""
    reply = world.ask(parent=UNSAMPLED)
    [received] = world.first.calls
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", received.headers["traceparent"])
    assert "trace_id" not in world.line(reply)
    world.trace(world.ask())
    ids = [each.get("embedway.request_id") for each in world.collector.spans]
    assert reply.headers["x-request-id"] not in ids


@pytest.mark.parametrize(
    "parents",
    [
        ["nonsense"],
        [SAMPLED.upper()],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"{SAMPLED}-more"],
        [SAMPLED, SAMPLED],
        [f"{SAMPLED}\xff"],
    ],
)
def test_a_malformed_context_is_ignored(world: World, parents: list[str]) -> None:
    """A request whose trace context cannot be read begins a trace of its own."""
    body = json.dumps({"model": "first:m", "input": "a"}).encode()
    with Wire(world.gateway) as wire:
        wire.send_request(body, *(f"traceparent: {each}" for each in parents), "tracestate: a=b")
        reply = wire.reply()
    assert reply.status_code == 200
    request, _ = world.trace(reply)
    assert request.parent == ""
    assert request.span.trace_id.hex() != TRACE
    assert request.span.trace_state == ""


def test_requests_at_once_keep_apart(world: World) -> None:
    """Each of many requests at the same time has its own call, with its own trace at the server."""
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: world.ask(), range(64)))
    traces = [world.trace(reply) for reply in replies]
    assert all(call.parent == request.id for request, [call] in traces)
    sent = {each.headers["traceparent"].split("-")[1] for each in world.first.calls}
    assert sent == {request.span.trace_id.hex() for request, _ in traces}
    assert len(sent) == len(replies)


def test_probes_are_calls(world: World) -> None:
    """A probe is a call of the request that started it, and marked."""
    until(lambda: len(world.trace(world.proven[0])[1]) > 1)
    request, calls = world.trace(world.proven[0])
    [probe] = [each for each in calls if each.get("embedway.probe")]
    assert probe.parent == request.id
    assert probe["embedway.items"] > 1


def test_failover_is_two_calls(world: World) -> None:
    """A request that fails over has a failed call and a good one, in this order."""
    world.first.always("503")
    request, [failed, good] = world.trace(world.ask("m"))
    assert (failed["error.type"], failed["http.response.status_code"]) == ("overloaded", 503)
    assert (failed.span.status.code, good.span.status.code) == (ERROR, UNSET)
    assert (failed["embedway.deployment"], good["embedway.deployment"]) == ("first:m", "second:m")
    assert (good["gen_ai.provider.name"], good["embedway.items"]) == ("voyage", 1)
    assert {failed.parent, good.parent} == {request.id}
    assert request.span.status.code == UNSET


def test_retries_and_broken_replies(world: World) -> None:
    """Each retry is a call of its own; a reply that breaks off has its kind of failure."""
    world.first.script("close in the body")
    request, [broken, good] = world.trace(world.ask())
    assert (broken["error.type"], broken["embedway.call"]) == ("failed", 1)
    assert (good.get("error.type"), good["embedway.call"]) == (None, 2)
    assert request["http.response.status_code"] == 200


@pytest.mark.parametrize("tokens", [2**80, -1])
def test_impossible_reports(world: World, tokens: int) -> None:
    """A provider that reports an impossible number of tokens spoils no span."""
    world.first.script(Misbehaviour(tokens=lambda _: tokens))
    request, [call] = world.trace(world.ask())
    assert call.get("gen_ai.usage.input_tokens") is None
    assert (call["embedway.items"], request["embedway.items"]) == (1, 1)


def test_a_failed_request(world: World) -> None:
    """A request that no provider can serve is an error, with its reason."""
    world.first.always("401")
    request, [call] = world.trace(world.ask())
    assert (request["http.response.status_code"], request.span.status.code) == (502, ERROR)
    assert (request["error.type"], call["error.type"]) == ("upstream_refused", "credentials")
    assert request.get("embedway.items") is None


def test_refused_requests(world: World) -> None:
    """A request that is refused before any call has one span, which is no error of ours."""
    limited = world.gateway.new_key("limited", "--limit", "requests=1/minute")
    with world.gateway.client() as client:
        client.headers["authorization"] = f"Bearer {limited['key']}"
        client.post("/v1/embeddings", json={"model": "first:m", "input": "a"})
        over = client.post("/v1/embeddings", json={"model": "first:m", "input": "a"})
        client.headers["authorization"] = "Bearer sk-gateway-unknown0123456789"
        unknown = client.post("/v1/embeddings", json={"input": "a"})
        other = client.request("PURGE", "/v1/embeddings")
    for reply, status, reason in (
        (over, 429, "rate_limit_exceeded"),
        (unknown, 401, "invalid_api_key"),
        (other, 405, "method_not_allowed"),
    ):
        request, calls = world.trace(reply)
        assert (request["http.response.status_code"], request["error.type"]) == (status, reason)
        assert (request.span.status.code, calls) == (UNSET, [])
    assert world.trace(over)[0]["embedway.key_id"] == limited["id"]
    assert world.trace(other)[0].span.name == "_OTHER /v1/embeddings"


def test_a_client_that_leaves(world: World) -> None:
    """The spans of a request whose client left say so."""
    with world.first.holding():
        with Wire(world.gateway) as wire:
            body = json.dumps({"model": "first:m", "input": "a"}).encode()
            wire.send_request(body, "x-request-id: left")
            until(lambda: world.first.running)
        request, [call] = world.collector.trace("left")
    assert (request["http.response.status_code"], request["error.type"]) == (499, "client_left")
    assert call["error.type"] == "client_left"


def test_the_local_model(world: World) -> None:
    """A run of the local model is an internal span, without a server."""
    reply = world.ask("auto")
    request, [call] = world.trace(reply)
    assert call.span.kind == INTERNAL
    assert call["gen_ai.provider.name"] == "embedway"
    assert call.get("server.address") is None
    assert call["gen_ai.usage.input_tokens"] == reply.json()["usage"]["prompt_tokens"]
    assert request["gen_ai.embeddings.dimension.count"] == 384


def test_no_content_is_exported(world: World) -> None:
    """No message to the collector holds a text, a vector, a key or an end user."""
    world.first.echo = SECRET_TEXT
    world.trace(world.ask(user="mrs-end-user"))
    world.first.always("400")
    world.trace(world.ask(model="first:sk-proj-0123456789abcdefghij", user="mrs-end-user"))
    vector = vector_of(SECRET_TEXT, 64)
    secrets = [
        SECRET_TEXT.encode(), b"Rumpelstiltskin", b"mrs-end-user", b"sk-upstream", b"0123456789abc",
        world.gateway.key.encode(), world.gateway.key[11:].encode(),
        np.asarray(vector, "<f4").tobytes()[:16], base64.b64encode(vector.tobytes())[:20],
        struct.pack("<d", float(vector[0])),
    ]  # fmt: skip
    sent = b"".join(body for _, _, body in world.collector.received)
    assert len(sent) > 10_000
    assert [each for each in secrets if each in sent] == []


def test_metrics_arrive(world: World) -> None:
    """The collector gets every metric of /metrics with its value, and the calls as GenAI's."""
    assert world.ask().status_code == 200
    series = re.compile(
        r"^((?:embedway|process)_\w+?)(_bucket|_sum|_count)?(\{.*\})? (\S+)$", re.MULTILINE
    )

    def printed() -> dict[str, float]:
        page = get(f"{world.gateway.url}/metrics").text
        return {"".join(each[:3]): float(each[3]) for each in series.findall(page)}

    before = printed()
    seen = len(world.collector.received)
    until(lambda: any(path == "/v1/metrics" for path, _, _ in world.collector.received[seen + 1 :]))
    metrics = world.collector.metrics()
    page = get(f"{world.gateway.url}/metrics").text
    operations = metrics.pop("gen_ai.client.operation.duration")
    assert metrics.keys() == {name for name, *_ in series.findall(page)}
    [answers] = [
        point.as_double
        for labels, point in metrics["embedway_requests_total"].items()
        if "'200'" in labels
    ]
    assert answers == before['embedway_requests_total{route="/v1/embeddings",status="200"}']
    [latency] = metrics["embedway_request_seconds"].values()
    assert latency.count == before["embedway_request_seconds_count"] == sum(latency.bucket_counts)
    assert latency.sum == pytest.approx(before["embedway_request_seconds_sum"])
    assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
    [calls] = [point for labels, point in operations.items() if "'openai'" in labels]
    assert calls.count == before['embedway_provider_seconds_count{provider="first"}']


@pytest.fixture
def collector(world: World) -> Iterator[Collector]:
    """Return the collector; afterwards it behaves again."""
    yield world.collector
    world.collector.status, world.collector.rejected, world.collector.reply = 200, 0, b""
    world.trace(world.ask())


def test_a_collector_that_refuses(world: World, collector: Collector) -> None:
    """Requests are answered while the collector refuses; spans that it never takes are counted."""
    collector.status = 400
    lost = world.ask()
    until(lambda: world.log("collector unavailable"))
    until(lambda: world.dropped() >= 2)
    collector.status = 503
    kept = world.ask()
    refused = collector.refused
    until(lambda: collector.refused > refused)
    collector.status = 200
    assert (lost.status_code, kept.status_code) == (200, 200)
    world.trace(kept)
    ids = [each.get("embedway.request_id") for each in collector.spans]
    assert lost.headers["x-request-id"] not in ids
    until(lambda: world.log("collector available again"))


def test_a_collector_that_takes_a_part(world: World, collector: Collector) -> None:
    """Spans that the collector says it rejected are counted; a reply of garbage says nothing."""
    before = world.dropped()
    collector.reply = b"\xff garbage"
    world.trace(world.ask())
    assert world.dropped() == before
    collector.reply, collector.rejected = b"", 7
    world.trace(world.ask())
    until(lambda: world.dropped() > before)
    assert (world.dropped() - before) % 7 == 0


def test_the_end(new_gateway: Callable[..., Gateway]) -> None:
    """Spans that wait at SIGTERM arrive; those of clients that sample are there at any ratio."""
    with Upstream() as first, Collector() as collector:
        world = make(
            new_gateway(), first, first, collector,
            EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces",
            TRACES_SAMPLER="parentbased_traceidratio", TRACES_SAMPLER_ARG="0",
        )  # fmt: skip
        replies = [world.ask(), world.ask(parent=SAMPLED)]
        world.gateway.signal(signal.SIGTERM)
        assert world.gateway.wait() == 0
        requests = [each for each in collector.spans if each.is_request]
        assert [each["embedway.request_id"] for each in requests] == [
            replies[1].headers["x-request-id"]
        ]
        assert {path for path, _, _ in collector.received} == {"/v1/traces"}


def test_a_collector_that_hangs(new_gateway: Callable[..., Gateway]) -> None:
    """A collector that answers nothing delays no request, and the end by no more than 2 s."""
    with Upstream() as first, Collector() as collector:
        collector.free.clear()
        world = make(new_gateway(otlp_endpoint=collector.url), first, first, collector)
        assert [world.ask().status_code for _ in range(5)] == [200] * 5
        world.gateway.signal(signal.SIGTERM)
        assert world.gateway.wait() == 0
        [lost] = world.log("spans lost")
        assert lost["count"] == 2 * 5
        assert collector.received == []
