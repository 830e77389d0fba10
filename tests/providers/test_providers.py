"""What a provider gets and what the gateway does itself, through a gateway to a server."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Gateway, Minilm, embedway, free_port

from embedway.testing import Upstream, UpstreamReply, vector_of

SECTIONS = """
[providers.openai]
base_url = "{url}/openai/v1"
api_keys = ["sk-key-a", "sk-key-b"]

[providers.vllm]
base_url = "{url}/vllm/v1"
[[providers.vllm.models]]
id = "own-ids"
dimensions = 8
token_ids = "native"
[[providers.vllm.models]]
id = "other-ids"
dimensions = 8

[providers.together]
base_url = "{url}/together/v1"
api_key = "t"
[[providers.together.models]]
id = "shortenable"
dimensions = 64
trained_dimensions = [4]
[[providers.together.models]]
id = "cheap"
dimensions = 64
price_per_mtok_usd = "2"

[providers.cohere]
base_url = "{url}/cohere/v2"
api_key = "c"
[[providers.cohere.models]]
id = "of-purposes"
name = "embed-v4.0"
dimensions = 1536

[providers.tei]
base_url = "{url}/tei"

[providers.watsonx]
base_url = "{url}/watsonx"
project_id = "p"
iam_url = "http://127.0.0.1:{closed}"
api_key = "w"
[[providers.watsonx.models]]
id = "of-a-cloud"
dimensions = 8
price_per_mtok_usd = "2"
"""


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("providers")
    (folder / "embedway.toml").write_text(SECTIONS.format(url=upstream.url, closed=free_port()))
    running = Gateway(folder).start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def fresh(upstream: Upstream) -> None:
    upstream.reset()


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)


def refusal(answer: httpx.Response, status: int = 400) -> dict:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_ids_of_the_models_own(gateway: Gateway, upstream: Upstream) -> None:
    """Models with `token_ids` get token ids unchanged; others get their text."""
    ids = [[15339, 1917]]  # "hello world" in cl100k_base
    gateway.embed(model="vllm:own-ids", input=ids)
    gateway.embed(model="vllm:other-ids", input=ids)
    assert [call.body["input"] for call in upstream.calls] == [ids, ["hello world"]]


def test_an_estimate_says_so(gateway: Gateway, upstream: Upstream) -> None:
    """Without a provider's count, tokens are an estimate in the answer and in the report."""
    answer = gateway.embed(model="together:cheap", input="hello world", user="estimated")
    assert answer.json()["usage"]["prompt_tokens"] == 2
    assert float(answer.headers["x-embedway-cost-usd"]) == 4e-6
    [row] = [each for each in gateway.usage("user") if each["user"] == "estimated"]
    assert (row["tokens"], row["estimated_tokens"], row["unpriced_tokens"]) == (2, 2, 0)


def test_the_providers_count_settles(gateway: Gateway, upstream: Upstream) -> None:
    """The provider's count is billed, and reports mark models without a price."""
    counted = gateway.embed(model="openai:nobody-declared-this", input="a b c", user="counted")
    assert counted.json()["usage"]["prompt_tokens"] > 0
    assert counted.headers["x-embedway-cost-usd"] == "0"
    [row] = [each for each in gateway.usage("user") if each["user"] == "counted"]
    assert row["tokens"] == row["unpriced_tokens"] == counted.json()["usage"]["prompt_tokens"]
    assert row["estimated_tokens"] == 0


def test_keys_in_turn(gateway: Gateway, upstream: Upstream) -> None:
    """Keys are used in turn. If one is refused it rests, and another is used at once."""
    for _ in range(4):
        vectors(gateway.embed(model="openai:text-embedding-3-small", input="a"))
    used = [call.headers["authorization"].removeprefix("Bearer sk-") for call in upstream.calls]
    assert used in (["key-a", "key-b"] * 2, ["key-b", "key-a"] * 2)
    upstream.reset()
    upstream.script("401")
    for _ in range(3):
        vectors(gateway.embed(model="openai:text-embedding-3-small", input="a"))
    refused, *rest = [call.headers["authorization"] for call in upstream.calls]
    assert len(rest) == 3
    assert refused not in rest


def test_shortened_here(gateway: Gateway, upstream: Upstream) -> None:
    """If the provider cannot shorten vectors, the gateway does, for models trained for it."""
    answer = gateway.embed(model="together:shortenable", input="a", dimensions=4)
    assert upstream.calls[0].body == {"model": "shortenable", "input": ["a"]}
    cut = vector_of("a", 64)[:4]
    assert np.allclose(vectors(answer)[0], cut / np.linalg.norm(cut), atol=1e-6)
    assert answer.headers["x-embedway-space"].endswith("/4")
    for model, dimensions in (("shortenable", 5), ("shortenable", 65), ("cheap", 4), ("any", 4)):
        error = refusal(gateway.embed(model=f"together:{model}", input="a", dimensions=dimensions))
        assert error["param"] == "dimensions"
        assert str(dimensions) in error["message"]


@pytest.mark.parametrize(
    ("model", "width"),
    [("together:cheap", 64), ("together:shortenable", 64), ("cohere:of-purposes", 1536)],
)
def test_own_width(gateway: Gateway, upstream: Upstream, model: str, width: int) -> None:
    """The model's own width is always accepted, and not sent to the provider."""
    plain = gateway.embed(model=model, input="a")
    answer = gateway.embed(model=model, input="a", dimensions=width)
    assert (vectors(answer) == vectors(plain)).all()
    assert answer.headers["x-embedway-space"] == plain.headers["x-embedway-space"]
    first, second = (call.body for call in upstream.calls)
    assert first == second


def test_mistyped_fields(gateway: Gateway, upstream: Upstream) -> None:
    """A field with a name similar to ours reaches the provider only through `extra_body`."""
    error = refusal(gateway.embed(model="openai:any", input="a", modle="b"))
    assert (error["param"], upstream.calls) == ("modle", [])
    gateway.embed(model="openai:any", input="a", extra_body={"modle": "b", "eu_nativ": True})
    assert [call.body["modle"] for call in upstream.calls] == ["b"]


def test_more_dimensions_than_there_are(gateway: Gateway, upstream: Upstream) -> None:
    """More dimensions than a known model has are refused without a call."""
    error = refusal(
        gateway.embed(model="openai:text-embedding-3-small", input="a", dimensions=1537)
    )
    assert (error["param"], upstream.calls) == ("dimensions", [])


def test_what_a_provider_cannot_be_told(gateway: Gateway, upstream: Upstream) -> None:
    """A `truncate` that the provider lacks is refused, not ignored."""
    error = refusal(gateway.embed(model="together:cheap", input="a", truncate="end"))
    assert error["param"] == "truncate"
    assert "together does not support" in error["message"]
    assert upstream.calls == []


def test_cutting_what_is_counted(gateway: Gateway, upstream: Upstream) -> None:
    """OpenAI cannot truncate, so the gateway cuts and sends token ids."""
    text = "word " * 9000
    error = refusal(gateway.embed(model="openai:text-embedding-3-small", input=["a", text]))
    assert error["code"] == "context_length_exceeded"
    assert "item 1" in error["message"]
    gateway.embed(model="openai:text-embedding-3-small", input=["a", text], truncate="end")
    [call] = upstream.calls
    assert [len(item) for item in call.body["input"]] == [1, 8192]


def test_what_the_client_adds(gateway: Gateway, upstream: Upstream) -> None:
    """Fields for the provider arrive unchanged, and change the name of the space."""
    extra = {"service_tier": "flex", "deep": {"a": [1, None, 1e30, "\u00e9"]}}
    plain = gateway.embed(model="cohere:of-purposes", input="a")
    added = gateway.embed(
        model="cohere:of-purposes", input="a", priority=3, extra_body={"max_tokens": 5}
    )
    first, second = upstream.calls
    assert second.body == first.body | {"priority": 3, "max_tokens": 5}
    assert plain.headers["x-embedway-space"] != added.headers["x-embedway-space"]
    upstream.reset()
    gateway.embed(model="openai:any", input="a", **extra)
    assert {name: upstream.calls[0].body[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai:any", "api-Key"),
        ("openai:any", "base_url"),
        ("openai:any", "extra_headers"),
        ("openai:any", "Input"),
        ("openai:any", "outputDimension"),
        ("openai:any", "output_dtype"),
        ("cohere:of-purposes", "texts"),
        ("cohere:of-purposes", "embedding_types"),
        ("cohere:of-purposes", "embeddingTypes"),
        ("tei:any", "inputs"),
    ],
)
def test_what_nobody_may_replace(
    gateway: Gateway, upstream: Upstream, model: str, name: str
) -> None:
    """No spelling of a field overrides what the gateway decides."""
    for fields in ({name: "x"}, {"extra_body": {name: "x"}}):
        error = refusal(gateway.embed(model=model, input="a", **fields))
        assert error["param"] == name
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "together:cheap", "extra_body": {"stream": True}}, 400),
        ({"model": "watsonx:of-a-cloud"}, 502),
    ],
    ids=["a field that it may not have", "credentials that cannot be had"],
)
def test_what_was_not_sent_costs_nothing(
    gateway: Gateway, upstream: Upstream, fields: dict, status: int
) -> None:
    """A request that is refused before any call costs nothing."""
    reply = gateway.embed(input=["a", "b"], **fields)
    refusal(reply, status)
    assert upstream.calls == []
    with contextlib.closing(sqlite3.connect(gateway.folder / "data" / "embedway.db")) as database:
        lines = database.execute(
            "SELECT status, calls, failed_calls, upstream_cost_nano_usd FROM usage "
            "WHERE request_id = ?",
            (reply.headers["x-request-id"],),
        ).fetchall()
    assert lines == [(status, 0, 0, 0)]


def test_spaces_of_purposes(gateway: Gateway, upstream: Upstream) -> None:
    """Queries and documents share a space, if the provider distinguishes them."""

    def space(model: str, purpose: str) -> str:
        answer = gateway.embed(model=model, input="a", input_type=purpose)
        return answer.headers["x-embedway-space"]

    assert space("cohere:of-purposes", "query") == space("cohere:of-purposes", "document")
    assert space("cohere:of-purposes", "query") != space("cohere:of-purposes", "clustering")
    assert space("openai:any", "query") == space("openai:any", "clustering")


@pytest.mark.parametrize(("reply", "status"), [("401", 502), ("403", 502), ("429 of seconds", 429)])
def test_servers_without_a_key(
    gateway: Gateway, upstream: Upstream, reply: str, status: int
) -> None:
    """A server without a declared key may refuse calls, which is not a defect."""
    upstream.always(reply)
    assert gateway.embed(model="tei:any", input="a").status_code == status


def test_shortened_to_nothing(gateway: Gateway, upstream: Upstream) -> None:
    """A vector that is zero after shortening is refused, and the refusal is recorded."""
    vector = [0.0] * 4 + [1.0] * 60
    body = {"data": [{"index": 0, "embedding": vector}], "usage": {"prompt_tokens": 1}}
    upstream.always(UpstreamReply(body=json.dumps(body).encode()))
    answer = gateway.embed(model="together:shortenable", input="a", dimensions=4, user="nothing")
    assert refusal(answer, 502)["type"] == "upstream_error"
    [row] = [each for each in gateway.usage("user,model,provider") if each["user"] == "nothing"]
    assert (row["errors"], row["model"], row["provider"]) == (1, "shortenable", "together")


def test_a_refusal_of_one_item_blames_nobody(gateway: Gateway, upstream: Upstream) -> None:
    """With a single item, the reason may be in the rest of the request."""
    upstream.always("400")
    error = refusal(gateway.embed(model="openai:any", input="a", odd=1))
    assert error["param"] is None
    assert "at fault" not in error["message"]


def test_odd_names(gateway: Gateway, upstream: Upstream) -> None:
    """An odd model name is sent unchanged, and breaks no header."""
    name = 'm\u00f6del "x"\r\nx-evil: 1 \u6f22'
    answer = gateway.embed(model=f"openai:{name}", input="a")
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    assert upstream.calls[0].body["model"] == name
    assert "x-evil" not in httpx.get(f"{gateway.url}/metrics").text


def test_other_spaces_are_no_fallback(gateway: Gateway) -> None:
    """Unproven providers of one model are not failover targets of each other."""
    error = refusal(gateway.embed(model="together:cheap", input="a", fallbacks=["openai:cheap"]))
    assert error["param"] == "fallbacks"


def test_trying_one(gateway: Gateway, upstream: Upstream) -> None:
    """`providers test` embeds one text and shows the result or the failure."""
    done = gateway.cli("providers", "test", "cohere", "--model", "of-purposes", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["model"], shown["dimensions"]) == ("embed-v4.0", 1536)
    upstream.always("401")
    done = gateway.cli("providers", "test", "cohere", "--model", "of-purposes")
    assert done.returncode == 1
    assert "it refuses the key (HTTP 401). The key is from embedway.toml." in done.stderr


def test_a_package_brings_one(upstream: Upstream, tmp_path: Path) -> None:
    """A package's kind of provider works like any other."""
    packages = tmp_path / "packages"
    meta = packages / "acme_provider-1.0.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-provider\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[embedway.providers]\nacme = acme_provider:ROW\n")
    (packages / "acme_provider.py").write_text(
        "from embedway.providers.adapter import ProviderRow\n"
        "from embedway.providers.adapters.openai import OpenAi\n"
        "class Acme(OpenAi):\n"
        "    'Speaks as OpenAI does, but shouts.'\n"
        "    def build_body(self, batch):\n"
        "        return {'model': batch.model, 'input': [each.upper() for each in batch.items]}\n"
        "ROW = ProviderRow(name='acme', title='Acme', adapter='acme_provider:Acme', source='us',\n"
        "          base_url='{endpoint}', variables={'endpoint': 'ACME_ENDPOINT'},\n"
        "          key_variables=('ACME_KEY',))\n"
    )
    env = {
        "PYTHONPATH": str(packages),
        "ACME_KEY": "k",
        "ACME_ENDPOINT": f"{upstream.url}/openai/v1",
    }
    done = embedway("providers", "test", "acme", "--model", "m", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert upstream.calls[0].body["input"][0].startswith("THE QUICK")


def test_too_large_for_many_at_once(gateway: Gateway, upstream: Upstream) -> None:
    """Batches that are too large are halved for concurrent requests too."""
    upstream.limit(8)
    texts = [f"text {n}" for n in range(64)]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(gateway.embed, model="together:cheap", input=texts) for _ in range(4)]
    for each in asked:
        assert np.array_equal(vectors(each.result()), [vector_of(text, 64) for text in texts])


def test_an_answer_that_says_nothing(gateway: Gateway, upstream: Upstream) -> None:
    """A 200 without vectors is billed, so the call is not repeated."""
    upstream.always(UpstreamReply(body=b"{}"))
    assert refusal(gateway.embed(model="openai:any", input="a"), 502)["type"] == "upstream_error"
    assert len(upstream.calls) == 1
