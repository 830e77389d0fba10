"""No misbehaviour of an upstream ends in a wrong vector, a hang, a 500 or a leaked secret."""

import base64
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Gateway, Minilm, free_port
from raw_http import until

from embedway.testing import MISBEHAVIOURS, Upstream, vector_of

CASES = 700
"""Deployments of openai. A limited or failed one is ejected, so each case has its own."""
WIDTH = 1536
OTHERS = ("cohere", "dashscope", "gemini", "ollama", "pinecone", "snowflake", "tei")
OTHER_WIDTH = 64
TIMEOUT_S = 1.5
ENOUGH_S = 15
"""A generous timeout, because the tests only require that a reply comes."""

# No known prefix or length marks this as a secret.
PLAIN = "plain.secret.words:Tr0ub4dor"
SHORT = "hunter2"
LONG = "sk-upstream-SECRET-7f3a9c51d2e84b60a1c4e7f2"
FORMS = [
    LONG[::-1],  # PLAIN reversed could not be recognised as a secret
    *(
        form
        for secret in (PLAIN, LONG)
        for form in (
            secret,
            base64.b64encode(secret.encode()).decode(),
            base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
            secret.encode().hex(),
        )
    ),
]
LEAST_SHOWN = 9
"""The shortest run of a secret's characters that must not appear."""

NUMBERS = itertools.count()
TURNS = itertools.count()

RIGHT = (
    *("shuffled indices", "no indices", "missing index", "index 0 left out", "null index"),
    *("floats", "no usage", "null usage", "usage negative", "usage zero", "usage absurd"),
    *("usage enormous", "usage as string", "usage with a point", "usage fractional", "usage NaN"),
    *("usage as list", "usage as empty list", "usage as number"),
    *("unknown fields", "white space", "content type text/plain", "no content type"),
    *("201", "206", "no content-length", "chunked", "1xx first", "gzip", "deflate", "HTTP/1.0"),
    *("answers twice", "sets a cookie", "reset of no calendar"),
)
EITHER: dict[str, set[int]] = {
    # The HTTP library decides whether it accepts a reply that other parsers would refuse.
    "float index": {502},
    "content-length too short": {502},
    "HTTP/2": {200, 502},
    "HTTP/0.9": {200, 502},
    "status 999": {400, 502},
    "endless head": {502, 504},
    "endless header": {502, 504},
    "endless refusal": {400, 502, 504},
    "408": {502, 504},
    "304": {502},
    "405": {400, 502},
    "418": {400, 502},
    "409": {502},
    "1e39": {502},
    "invalid UTF-8": {200, 502},
    "rate limit with 200": {429, 502},
    "200 that repeats the key": {400, 502},
    "400 that repeats the key": {400, 502},
    "400 that repeats the key at its end": {400, 502},
    "400 that repeats the key far behind": {400, 502},
    "400 that repeats the key in every form": {400, 502},
    "400 that repeats the key in pieces": {400, 502},
    "400 that repeats the head": {400, 502},
    "422 that repeats the body": {400, 502},
    "400 that repeats the key in a header": {400},
    "400 of a megabyte": {400, 502},
    "404 HTML": {404},
    "deep JSON as an error": {400},
    "enormous code": {400},
    "64 MB of spaces": {502},
    "insufficient quota": {502},
    "402": {502},
    "403": {502},
    "413": {400},
    "424": {502},
    "529": {502},
    "404": {404},
    "504": {504},
}
STALLS = (
    *("never answers", "stalls in the head", "stalls after the head", "stalls in the body"),
    *("slow drip", "1xx forever"),
)


def expected(name: str) -> set[int]:
    """Return the statuses that a misbehaviour may lead to."""
    if name in EITHER:
        return EITHER[name]
    refused = name.startswith("4") or name.endswith("in an error")
    cases = (
        (name in RIGHT, 200),
        (name in STALLS, 504),
        (name.startswith("401"), 502),
        (name.startswith("429"), 429),
        (refused, 400),
    )
    return {next((status for holds, status in cases if holds), 502)}


def declared(provider: str) -> Iterator[str]:
    """A provider's deployments, all of one model."""
    name, width = "text-embedding-3-small", WIDTH
    if provider != "openai":
        name, width = f"{provider}-model", OTHER_WIDTH
    for case in range(CASES):
        tokenizer = ', tokenizer = "cl100k_base"' if provider == "openai" else ""
        yield f'{{id = "case-{case}", name = "{name}", dimensions = {width}{tokenizer}}}'


def model_of(provider: str) -> str:
    """Return a deployment of this provider that was not called yet."""
    return f"{provider}:case-{next(TURNS)}"


@pytest.fixture
def known() -> str:
    """Return a deployment of openai that was not called yet."""
    return model_of("openai")


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in front of the upstream, which stands in for several providers."""
    folder = tmp_path_factory.mktemp("misbehaviour")
    paths = {"openai": "/v1", "cohere": "/v2", "dashscope": "/api/v1", "gemini": "/v1beta"}
    paths |= {"ollama": "", "pinecone": "", "snowflake": "/api/v2/cortex", "tei": ""}
    sections = [
        f'[providers.{name}]\nbase_url = "{upstream.url}/{name}{path}"\napi_key = "{LONG}"\n'
        + (
            f"models = [{', '.join(declared(name))}]\n"
            if name == "openai" or name in OTHERS
            else ""
        )
        for name, path in paths.items()
    ]
    sections.append(
        f'[providers.plain]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "{PLAIN}"\n'
    )
    sections.append(
        f'[providers.short]\nkind = "vllm"\nbase_url = "{upstream.url}/vllm/v1"\n'
        f'api_key = "{SHORT}"\n'
    )
    sections.append(
        f'[providers.small]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "{LONG}"\nmax_items = 1\n'
    )
    sections.append(
        f'[providers.gone]\nkind = "openai"\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n'
        f'api_key = "{LONG}"\n'
    )
    (folder / "embedway.toml").write_text("\n".join(sections))
    running = Gateway(folder, request_timeout_s=TIMEOUT_S, log_level="debug").start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def checked(gateway: Gateway) -> Iterator["CheckedClient"]:
    with gateway.client() as client:
        yield CheckedClient(gateway, client)


@pytest.fixture(autouse=True)
def fresh(upstream: Upstream) -> None:
    upstream.reset()


class CheckedClient:
    """Sends requests to a gateway and checks everything it answers and logs."""

    def __init__(self, gateway: Gateway, client: httpx.Client) -> None:
        self.gateway = gateway
        self.client = client
        self.answered = 0
        self.refused = 0
        self.tokens = 0
        self._read = 0
        self._lock = threading.Lock()

    def ask(self, **fields: object) -> httpx.Response:
        reply = self.client.post("/v1/embeddings", json=fields, timeout=ENOUGH_S)
        with self._lock:
            self.answered += reply.status_code == 200
            self.refused += reply.status_code != 200
            if reply.status_code == 200:
                self.tokens += reply.json()["usage"]["total_tokens"]
        assert_no_secret(reply.text, *reply.headers.values())
        assert reply.status_code != 500, reply.text
        if reply.status_code != 200:
            error = reply.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert 0 < len(error["message"]) < 1000
        return reply

    def quiet(self) -> None:
        """Assert that nothing is in flight and that no secret was logged."""
        until(lambda: self._gauges()["embedway_requests_in_flight"] == 0)
        with Path(self.gateway.log).open(errors="replace") as log:
            log.seek(self._read)
            text = log.read()
            self._read = log.tell()
        assert_no_secret(text)
        assert "Traceback" not in text, text

    def _gauges(self) -> dict[str, float]:
        page = self.client.get("/metrics").text
        assert_no_secret(page)
        lines = (line.rpartition(" ") for line in page.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}


PARTS = {
    form[start : start + LEAST_SHOWN]
    for form in FORMS
    for start in range(len(form) - LEAST_SHOWN + 1)
}


def assert_no_secret(*texts: str) -> None:
    """Assert that no text contains a part of a secret."""
    leaks = [each for each in texts for part in PARTS if part in each]
    assert not leaks, f"{leaks[0][:2000]} leaks a secret"


def vectors(reply: httpx.Response) -> list[np.ndarray]:
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    return [
        np.frombuffer(base64.b64decode(each["embedding"]), "<f4")
        if isinstance(each["embedding"], str)
        else np.array(each["embedding"], np.float32)
        for each in data
    ]


def assert_right(reply: httpx.Response, texts: list[str], width: int = WIDTH) -> None:
    got = vectors(reply)
    assert len(got) == len(texts)
    for text, vector in zip(texts, got, strict=True):
        assert np.array_equal(vector, vector_of(text, width)), text


def some_texts(count: int = 3) -> list[str]:
    return [f"text {next(NUMBERS)} of {count}" for _ in range(count)]


def misbehaves(
    checked: CheckedClient,
    upstream: Upstream,
    name: str,
    *,
    model: str,
    width: int,
    form: str = "float",
) -> httpx.Response:
    """Send a request while the upstream misbehaves, and another when it does not."""
    texts = some_texts()
    upstream.always(name)
    reply = checked.ask(model=model, input=texts, encoding_format=form)
    if reply.status_code == 200:
        assert_right(reply, texts, width)
        most = sum(4 * len(text) + 64 for text in texts)
        assert 0 < reply.json()["usage"]["total_tokens"] <= most
    assert 1 <= len(upstream.calls) <= 12
    upstream.reset()
    again = checked.ask(model=model, input=texts)
    if "retry-after" in reply.headers and reply.status_code in {429, 502}:
        # It may still be left alone, as it requested.
        assert again.status_code in {429, 200}
    else:
        assert_right(again, texts, width)
    checked.quiet()
    return reply


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_one_provider(checked: CheckedClient, upstream: Upstream, name: str, known: str) -> None:
    """Whatever the upstream does, the answer is right or a clear error."""
    reply = misbehaves(checked, upstream, name, model=known, width=WIDTH)
    assert reply.status_code in expected(name), reply.text


@pytest.mark.parametrize(
    "name", [*RIGHT, "too few vectors", "zeros", "NaN", "not base64", "base64 of NaN", "429"]
)
def test_base64(checked: CheckedClient, upstream: Upstream, name: str, known: str) -> None:
    """In base64 the client gets the same vectors, or the same error."""
    reply = misbehaves(checked, upstream, name, model=known, width=WIDTH, form="base64")
    assert reply.status_code in expected(name), reply.text


OF_VECTORS = (
    *("too few vectors", "too many vectors", "no vectors", "short vectors", "one vector shorter"),
    *("one empty vector", "empty vectors", "NaN", "1e999", "1e39", "zeros", "vanishing numbers"),
    *("null number", "numbers as strings", "booleans", "nested vectors", "null embedding"),
    *("embedding as object", "data null", "data as object", "empty object", "bare string"),
    *("truncated JSON", "very deep JSON", "HTML with 200", "empty body", "error string with 200"),
    *("OpenAI's error with 200", "not base64", "number of 5000 digits"),
)
OF_ALL = (
    *("usage negative", "usage absurd", "usage enormous", "usage as string", "usage with a point"),
    *("usage fractional", "usage NaN", "usage as list"),
    *("401", "401 empty", "429 of seconds", "500", "503"),
    *("404 HTML", "close in the body", "reset before the head", "gzip", "chunked"),
    *("401 that repeats the key", "400 that repeats the key in every form"),
)


@pytest.mark.parametrize("provider", OTHERS)
@pytest.mark.parametrize("name", [*OF_VECTORS, *OF_ALL])
def test_other_protocols(
    checked: CheckedClient, upstream: Upstream, name: str, provider: str
) -> None:
    """The same holds for providers with other protocols."""
    model = model_of(provider)
    reply = misbehaves(checked, upstream, name, model=model, width=OTHER_WIDTH)
    assert reply.status_code in expected(name), reply.text


@pytest.mark.parametrize("name", [name for name in MISBEHAVIOURS if "repeats" in name])
def test_a_key_that_looks_like_none(checked: CheckedClient, upstream: Upstream, name: str) -> None:
    """A key that does not look like one is not leaked either, whole or in part."""
    misbehaves(checked, upstream, name, model="plain:text-embedding-3-small", width=WIDTH)


def test_a_short_key(checked: CheckedClient, upstream: Upstream) -> None:
    """A short key, as for a private server, is not leaked either."""
    for name in ("400 that repeats the key", "400 that repeats the key in pieces"):
        upstream.always(name)
        reply = checked.ask(model="short:any", input="alone")
        assert SHORT not in reply.text
    checked.quiet()
    assert SHORT not in Path(checked.gateway.log).read_text()


def test_an_unknown_width(checked: CheckedClient, upstream: Upstream) -> None:
    """The vectors of an undeclared model must at least have the same width."""
    for name, statuses in (("one vector longer", {502}), ("empty vectors", {502})):
        upstream.always(name)
        assert checked.ask(model="openai:any", input=some_texts()).status_code in statuses
    upstream.always("one vector longer")
    reply = checked.ask(model="small:any", input=some_texts(1))
    assert reply.status_code == 200
    upstream.reset()
    upstream.script("short vectors", None)
    assert checked.ask(model="small:any", input=some_texts(2)).status_code == 502


# Retries


@pytest.mark.parametrize("name", ["500", "503", "429", "504", "529", "close before the head"])
def test_once_more(checked: CheckedClient, upstream: Upstream, name: str, known: str) -> None:
    """A transient failure is retried, unseen by the client."""
    texts = some_texts()
    upstream.script(name, None)
    assert_right(checked.ask(model=known, input=texts), texts)
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    "name", ["too few vectors", "zeros", "NaN", "not JSON", "400", "401", "404", "gzip bomb", "402"]
)
def test_never_again(checked: CheckedClient, upstream: Upstream, name: str, known: str) -> None:
    """A call that was answered, even wrongly, or refused for good is not retried."""
    upstream.script(name)
    assert checked.ask(model=known, input="alone").status_code != 200
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("name", "calls"), [("503", 3), ("429", 3), ("500", 2), ("close in the body", 2)]
)
def test_not_for_ever(
    checked: CheckedClient, upstream: Upstream, name: str, calls: int, known: str
) -> None:
    """A call that costs nothing is tried three times, one that may be billed twice."""
    upstream.always(name)
    assert checked.ask(model=known, input="alone").status_code in {429, 502}
    assert len(upstream.calls) == calls


@pytest.mark.parametrize(
    ("name", "least_s", "most_s"),
    [
        ("429 of seconds", 20, 23),
        ("429 of a fraction", 20, 23),
        ("429 of milliseconds", 20, 23),
        ("429 of a date", 20, 34),
        ("429 of a reset", 360, 400),
        ("429 of a reset in seconds", 20, 23),
        ("429 in words", 20, 23),
    ],
)
def test_a_long_wait(
    checked: CheckedClient, upstream: Upstream, name: str, least_s: int, most_s: int, known: str
) -> None:
    """A long wait is passed on to the client, in each form it comes in."""
    upstream.always(name)
    reply = checked.ask(model=known, input="alone")
    assert reply.status_code == 429
    assert least_s <= int(reply.headers["retry-after"]) <= most_s
    assert least_s * 1000 <= int(reply.headers["retry-after-ms"]) <= most_s * 1000
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("name", ["429 absurd", "429 of ages", "429 negative", "429 garbage"])
def test_a_wait_that_is_none(
    checked: CheckedClient, upstream: Upstream, name: str, known: str
) -> None:
    """A senseless wait is replaced by a sensible one."""
    upstream.always(name)
    reply = checked.ask(model=known, input="alone")
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["retry-after"]) <= 2
    assert 0 < int(reply.headers["retry-after-ms"]) <= 2000


def test_a_busy_upstream_says_when(checked: CheckedClient, upstream: Upstream, known: str) -> None:
    """An overload with a Retry-After is not retried before then, and the client is leaks."""
    upstream.always("503 with Retry-After")
    reply = checked.ask(model=known, input="alone")
    assert reply.status_code == 502
    assert 20 <= int(reply.headers["retry-after"]) <= 23
    assert len(upstream.calls) == 1


def test_nobody_there(checked: CheckedClient) -> None:
    """A port without a listener gives a 502 after a few tries."""
    reply = checked.ask(model="gone:any", input="alone")
    assert reply.status_code == 502
    assert "gone" in reply.json()["error"]["message"]
    checked.quiet()


@pytest.mark.parametrize("name", ["redirect to itself", "301", "302 to the cloud's own"])
def test_redirects_lead_nowhere(
    checked: CheckedClient, upstream: Upstream, name: str, known: str
) -> None:
    """Redirects are not followed, because they would send the key and texts elsewhere."""
    upstream.always(name)
    assert checked.ask(model=known, input="alone").status_code == 502
    assert len(upstream.calls) == 1


def test_no_cookies(checked: CheckedClient, upstream: Upstream, known: str) -> None:
    """Cookies of an upstream are not kept, because requests come from different clients."""
    upstream.script("sets a cookie")
    for _ in range(2):
        assert checked.ask(model=known, input="alone").status_code == 200
    assert not any("cookie" in call.headers for call in upstream.calls)


def test_many_at_once_are_not_many_more(
    checked: CheckedClient, upstream: Upstream, known: str
) -> None:
    """While everything fails, retries stay within a fifth of the calls, and no fewer than three."""
    upstream.always("503")
    with upstream.holding(), ThreadPoolExecutor(40) as clients:
        asked = [clients.submit(checked.ask, model=known, input="alone") for _ in range(40)]
        until(lambda: upstream.running == 40)
        upstream_calls = len(upstream.calls)
        assert upstream_calls == 40
        upstream.release()
        statuses = {each.result().status_code for each in asked}
    assert statuses == {502}
    # Eight requests may retry in parallel, each twice.
    assert 40 < len(upstream.calls) <= 40 + 2 * 8
    checked.quiet()


def test_calls_of_one_request_at_a_time(checked: CheckedClient, upstream: Upstream) -> None:
    """The parallel calls of one request stay within the provider's limit."""
    texts = some_texts(20)
    with upstream.holding(), ThreadPoolExecutor(1) as client:
        asked = client.submit(checked.ask, model="small:any", input=texts)
        until(lambda: upstream.running == 8)
        upstream.release()
        assert_right(asked.result(), texts, OTHER_WIDTH)
    assert upstream.most_at_once == 8
    assert len(upstream.calls) == 20


# Faulty items


@pytest.mark.parametrize("at", [0, 1, 31, 32, 63])
def test_the_item_at_fault(checked: CheckedClient, upstream: Upstream, at: int, known: str) -> None:
    """If a batch is refused because of one item, few calls find that item."""
    texts = some_texts(64)
    upstream.refuse(texts[at])
    reply = checked.ask(model=known, input=texts)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input"
    assert f"'input[{at}]'" in reply.json()["error"]["message"]
    assert len(upstream.calls) <= 9
    checked.quiet()


def test_the_item_at_fault_in_a_later_part(checked: CheckedClient, upstream: Upstream) -> None:
    """In a request of several calls, the item is named by its index in the request."""
    texts = some_texts(5)
    upstream.refuse(texts[3])
    reply = checked.ask(model="small:any", input=texts)
    assert reply.status_code == 400
    assert "'input[3]'" in reply.json()["error"]["message"]


def test_no_item_at_fault(checked: CheckedClient, upstream: Upstream, known: str) -> None:
    """If a whole batch is refused, no item is blamed."""
    upstream.always("400")
    reply = checked.ask(model=known, input=some_texts(64))
    assert reply.status_code == 400
    assert "input[" not in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] is None
    assert len(upstream.calls) <= 3


def test_two_items_at_fault(checked: CheckedClient, upstream: Upstream, known: str) -> None:
    """If two items are at fault, one of them or none is named, never another."""
    texts = some_texts(64)
    upstream.refuse(texts[3], texts[60])
    reply = checked.ask(model=known, input=texts)
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    named = [each for each in range(64) if f"'input[{each}]'" in message]
    assert named in ([], [3], [60])
    assert len(upstream.calls) <= 12


@pytest.mark.parametrize("most", [8, 16, 63])
def test_a_batch_too_large(
    checked: CheckedClient, upstream: Upstream, most: int, known: str
) -> None:
    """A batch too large for the upstream is sent in halves, and the order is kept."""
    texts = some_texts(64)
    upstream.limit(most)
    assert_right(checked.ask(model=known, input=texts), texts)
    checked.quiet()


def test_a_batch_far_too_large(checked: CheckedClient, upstream: Upstream, known: str) -> None:
    """A declared limit that is far too high ends in an error soon, not in hundreds of calls."""
    upstream.limit(1)
    reply = checked.ask(model=known, input=some_texts(64))
    assert reply.status_code == 400
    assert len(upstream.calls) <= 8


def test_a_failure_in_one_part_ends_the_request(checked: CheckedClient, upstream: Upstream) -> None:
    """If one of several calls fails, the request fails with its error."""
    upstream.script(None, "zeros", None)
    reply = checked.ask(model="small:any", input=some_texts(3))
    assert reply.status_code == 502
    checked.quiet()


def test_clients_that_leave(
    gateway: Gateway, checked: CheckedClient, upstream: Upstream, known: str
) -> None:
    """A call whose client left is cancelled and recorded, as its provider may charge for it."""
    upstream.always("never answers")
    before = failed_calls(gateway)
    with pytest.raises(httpx.ReadTimeout), gateway.client() as client:
        client.post("/v1/embeddings", json={"model": known, "input": "alone"}, timeout=0.3)
    until(lambda: len(upstream.calls) == 1 and upstream.running == 0)
    until(lambda: failed_calls(gateway) == before + 1)
    checked.refused += 1
    checked.quiet()


def failed_calls(gateway: Gateway) -> int:
    return sum(row["failed_calls"] for row in gateway.usage())


def test_misbehaviour_has_names(upstream: Upstream) -> None:
    """An unknown misbehaviour is refused when it is set, not when it is used."""
    say: list[Callable[[str], None]] = [upstream.script, upstream.always]
    for each in say:
        with pytest.raises(KeyError):
            each("no such misbehaviour")


def test_the_bill(gateway: Gateway, checked: CheckedClient, known: str) -> None:
    """After all of this, the bill matches the answers: requests, errors and tokens."""
    assert_right(checked.ask(model=known, input=["the end"]), ["the end"])
    rows = gateway.usage()
    assert sum(row["requests"] for row in rows) == checked.answered
    assert sum(row["errors"] for row in rows) == checked.refused
    assert sum(row["tokens"] for row in rows) == checked.tokens
