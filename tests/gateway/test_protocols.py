"""Every provider's protocol through a real gateway, and the joining of several calls."""

import asyncio
import base64
import contextlib
import json
import time
import urllib.parse
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
import pytest
from attempts import FunctionAttempt, send_to
from conftest import Gateway, Minilm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.core.batch import Batch, BatchLimits, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.providers.adapter import ProviderRow
from embedway.providers.registry import ROWS
from embedway.testing import SPOKEN, Upstream, vector_of
from embedway.tokenizing.cl100k import Cl100kTokenizer

KEY = "sk-upstream-SECRET-7f3a9c51d2e84b60a1c4e7f2"
SIGNING_KEY = f"AKIATESTTESTTEST1234:{KEY}"
MODELS = {"bedrock": "amazon.titan-embed-text-v2:0"}
"""Model names for providers whose protocol depends on the model."""
TRAINED = {"bedrock": 256, "cohere": 256, "foundry": 256}
"""Dimensions for providers that accept only certain ones."""
VARIABLES = {"project_id": "p", "account_id": "a", "project": "p", "region": "eu-west-1"}
"""Settings that some rows need besides an address."""
DIMENSIONS = 32
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile"
PROFILES = f"""
[providers.profiles]
kind = "bedrock"
base_url = "{{url}}/bedrock"
api_key = "{{key}}"
[[providers.profiles.models]]
id = "titan-embed-text-v2"
name = "{PROFILE}/team1"
[[providers.profiles.models]]
id = "profiled"
name = "{PROFILE}/team2"
base_model = "amazon.titan-embed-text-v2:0"
[[providers.profiles.models]]
id = "unsaid"
name = "{PROFILE}/team3"
"""


def base_url(row: ProviderRow, upstream: Upstream) -> str:
    """Return the upstream's URL for a provider, with the path of the provider's own address."""
    usual = row.base_url.format_map({name: f"{{{name}}}" for name in row.variables} | row.defaults)
    path = urllib.parse.urlsplit(usual).path if "//" in usual else usual.partition("}")[2]
    for name, value in VARIABLES.items():
        path = path.replace(f"{{{name}}}", value)
    return f"{upstream.url}/{row.name}{path}"


def section(row: ProviderRow, upstream: Upstream, folder: Path) -> str:
    lines = [f"[providers.{row.name}]", f'base_url = "{base_url(row, upstream)}"']
    fields = {
        name: value
        for name, value in VARIABLES.items()
        if name in row.variables and f"{{{name}}}" not in row.path
    }
    if "iam_url" in row.defaults:
        fields["iam_url"] = upstream.url
    lines += [f'{name} = "{value}"' for name, value in fields.items()]
    key = str(account(upstream, folder)) if "GOOGLE" in "".join(row.key_variables[:1]) else KEY
    if row.name == "gemini":
        key = KEY
    lines.append(f'api_key = "{key}"')
    if row.limits.max_items > 32:
        # So that a request of a few more items takes several calls.
        lines.append("max_items = 20")
    return "\n".join(lines)


def account(upstream: Upstream, folder: Path) -> Path:
    """A service account file, with tokens issued by the upstream."""
    path = folder / "account.json"
    if not path.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "p",
                    "private_key_id": "0",
                    "private_key": pem.decode(),
                    "client_email": "tests@p.iam.gserviceaccount.com",
                    "token_uri": f"{upstream.url}/token",
                }
            )
        )
    return path


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with every provider that the upstream stands in for."""
    folder = tmp_path_factory.mktemp("protocols")
    sections = [section(row, upstream, folder) for row in ROWS.values() if row.name in SPOKEN]
    sections.append(
        f'[providers.signed]\nkind = "bedrock"\nbase_url = "{upstream.url}/bedrock"\n'
        f'api_key = "{SIGNING_KEY}"\nregion = "eu-west-1"'
    )
    sections.append(PROFILES.format(url=upstream.url, key=KEY))
    (folder / "embedway.toml").write_text("\n\n".join(sections))
    running = Gateway(folder).start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def fresh(upstream: Upstream) -> None:
    upstream.reset()


def vectors(reply: httpx.Response) -> list[np.ndarray]:
    assert reply.status_code == 200, reply.text
    return [
        np.frombuffer(base64.b64decode(each["embedding"]), "<f4")
        if isinstance(each["embedding"], str)
        else np.array(each["embedding"], np.float32)
        for each in reply.json()["data"]
    ]


def assert_of(got: list[np.ndarray], items: list[str], row: ProviderRow) -> None:
    """Assert that each vector is that of its item, as precisely as the protocol allows."""
    assert len(got) == len(items)
    for item, vector in zip(items, got, strict=True):
        wanted = vector_of(item, len(vector))
        likeness = vector @ wanted / np.linalg.norm(vector)
        # Perplexity's numbers have eight bits.
        assert likeness > (0.999 if row.name == "perplexity" else 1 - 1e-6), item


@cache
def token_ids(*texts: str) -> list[list[int]]:
    """Return the texts' token ids for OpenAI's models."""
    with contextlib.closing(Cl100kTokenizer()) as codec:
        return asyncio.run(codec.encode(texts))


def model(row: ProviderRow) -> str:
    return f"{row.name}:{MODELS.get(row.name, 'some-model')}"


each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@each_row
def test_texts(gateway: Gateway, upstream: Upstream, row: ProviderRow) -> None:
    """One text, a few, or more than a call allows: each gets its own vector, in order."""
    assert row.name in SPOKEN, "the upstream does not speak it yet"
    for count in (1, 3, 45):
        upstream.reset()
        texts = [f"text {at} of {count} for {row.name}" for at in range(count)]
        reply = gateway.embed(model=model(row), input=texts)
        assert_of(vectors(reply), texts, row)
        assert reply.json()["usage"]["total_tokens"] > 0
        calls = [call for call in upstream.calls if not call.path.endswith("token")]
        most = min(row.limits.max_items, 20 if row.limits.max_items > 32 else 32)
        assert len(calls) == -(-count // most)


@each_row
def test_encodings(gateway: Gateway, row: ProviderRow) -> None:
    """base64 and float give the same vectors, to the bit."""
    texts = ["a first text", "and a second", '\N{GRINNING FACE} caf\u00e9 \u4f60\u597d \u2028 \\ "']
    answers = [
        vectors(gateway.embed(model=model(row), input=texts, encoding_format=form))
        for form in ("float", "base64")
    ]
    assert_of(answers[0], texts, row)
    assert np.array_equal(answers[0], answers[1])


@each_row
def test_dimensions(gateway: Gateway, row: ProviderRow) -> None:
    """A width is requested with the provider's own field, or refused if it has none."""
    wanted = TRAINED.get(row.name, DIMENSIONS)
    reply = gateway.embed(model=model(row), input=["a", "b"], dimensions=wanted)
    if row.fields.dimensions is None:
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "dimensions"
    else:
        got = vectors(reply)
        assert {len(each) for each in got} == {wanted}
        assert_of(got, ["a", "b"], row)


@each_row
def test_token_ids(gateway: Gateway, row: ProviderRow) -> None:
    """Token ids as LangChain sends them give the vector of their text."""
    texts = ["hello world, this is one", "and another \u00fc"]
    ids = token_ids(*texts)
    assert_of(vectors(gateway.embed(model=model(row), input=ids)), texts, row)


def test_token_ids_of_a_model_that_has_them(gateway: Gateway, upstream: Upstream) -> None:
    """Token ids of the model's own vocabulary are passed on unchanged."""
    ids = token_ids("hello world", "and another")
    got = vectors(gateway.embed(model="openai:text-embedding-3-small", input=ids))
    assert [call.body["input"] for call in upstream.calls] == [ids]
    for item, vector in zip(ids, got, strict=True):
        assert np.array_equal(vector, vector_of(item, 1536))


@each_row
def test_purposes(gateway: Gateway, row: ProviderRow) -> None:
    """Each input type is sent in a word that the provider knows, or not at all."""
    for purpose in ("query", "document", "classification", "clustering"):
        reply = gateway.embed(model=model(row), input=["a"], input_type=purpose)
        assert_of(vectors(reply), ["a"], row)


@each_row
def test_users(gateway: Gateway, row: ProviderRow) -> None:
    """The end user's id is sent only to providers that accept one."""
    assert_of(vectors(gateway.embed(model=model(row), input=["a"], user="u-1")), ["a"], row)


@each_row
def test_refusals(gateway: Gateway, upstream: Upstream, row: ProviderRow) -> None:
    """A refused text is named, whatever form the provider's refusal has."""
    texts = ["good", "bad", "good too"]
    upstream.refuse("bad")
    reply = gateway.embed(model=model(row), input=texts)
    assert reply.status_code == 400, reply.text
    assert "'input[1]'" in reply.json()["error"]["message"], reply.text


@each_row
def test_no_secret_is_asked_for(gateway: Gateway, upstream: Upstream, row: ProviderRow) -> None:
    """The key is sent where the protocol expects it, and never in the URL or body."""
    assert gateway.embed(model=model(row), input=["a"]).status_code == 200
    for call in upstream.calls:
        if call.path.endswith("token"):
            continue
        assert KEY not in call.path + str(call.query) + call.content.decode()
        assert sum(KEY in value for value in call.headers.values()) <= 1


@pytest.mark.parametrize(
    ("name", "width"), [("amazon.titan-embed-text-v2:0", 1024), ("cohere.embed-english-v3", 1024)]
)
def test_signed_calls(gateway: Gateway, upstream: Upstream, name: str, width: int) -> None:
    """Calls to Bedrock are signed and do not contain the signing secret."""
    texts = ["one", "two", "three"]
    got = vectors(gateway.embed(model=f"signed:{name}", input=texts))
    assert [len(each) for each in got] == [width] * len(texts)
    assert_of(got, texts, ROWS["bedrock"])
    for call in upstream.calls:
        assert call.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIATEST")
        assert "/eu-west-1/bedrock/aws4_request" in call.headers["authorization"]
        assert KEY not in str(call.headers) + call.content.decode()


@pytest.mark.parametrize("name", ["gemini-embedding-001", "gemini-embedding-2"])
def test_several_of_gemini_on_vertex(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """Several texts for a Gemini model take one call to Vertex AI."""
    texts = ["one", "two", "three"]
    got = vectors(gateway.embed(model=f"vertex:{name}", input=texts))
    assert_of(got, texts, ROWS["vertex"])
    paths = [call.path for call in upstream.calls if not call.path.endswith("token")]
    assert [path.rpartition(":")[2] for path in paths] == ["batchEmbedContents"]


@pytest.mark.parametrize("model", ["titan-embed-text-v2", "profiled"])
def test_inference_profiles(gateway: Gateway, upstream: Upstream, model: str) -> None:
    """A profile's ARN is called with the protocol of the model that its declaration names."""
    answer = gateway.embed(model=f"profiles:{model}", input="a", input_type="query")
    assert len(vectors(answer)[0]) == 1024
    # Titan has no input types, so its space does not name one.
    assert "prompt-none" in answer.headers["x-embedway-space"]
    [call] = upstream.calls
    assert "application-inference-profile" in call.path
    assert call.body == {"inputText": "a", "normalize": True, "embeddingTypes": ["float"]}


def test_profile_of_an_unknown_model(gateway: Gateway, upstream: Upstream) -> None:
    """A profile of an unknown model is refused with what to declare, without a call."""
    error = gateway.embed(model="profiles:unsaid", input="a").json()["error"]
    assert (error["param"], upstream.calls) == ("model", [])
    assert "have base_model set" in error["message"]


# Joining several calls


async def sent(
    texts: list[str],
    tokens: list[int],
    limits: BatchLimits,
    order: list[int],
    refused_over: int | None,
) -> np.ndarray:
    """Send with calls that are answered in the order of `order`, as far as possible."""
    turns = cycle(order)

    async def call(batch: Batch) -> BatchResult:
        for _ in range(next(turns)):
            await asyncio.sleep(0)
        if refused_over is not None and len(batch.items) > refused_over:
            raise ProviderError("batch_too_large")
        assert len(batch.items) == len(batch.tokens)
        assert all(isinstance(item, str) for item in batch.items)
        return BatchResult(vectors=np.stack([vector_of(item, 8) for item in batch.items]))

    batch = Batch(model="m", items=texts, tokens=tokens, exact=False, width=8)
    function = FunctionAttempt(call, batch, limits=limits)
    vectors = await send_to([function], deadline_s=time.monotonic() + 60)
    assert function.attempt.tokens == sum(tokens)
    return vectors


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_parts_join_in_order(data: st.DataObject) -> None:
    """Any texts, limits and order of answers join to the vectors of the texts."""
    texts = data.draw(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40))
    size = st.integers(1, 50)
    tokens = data.draw(st.lists(size, min_size=len(texts), max_size=len(texts)))
    limits = BatchLimits(
        max_items=data.draw(st.integers(1, 45)),
        max_tokens=data.draw(st.none() | st.integers(1, 120)),
        max_parallel=data.draw(st.integers(1, 9)),
    )
    order = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    # Each part is halved at most three times.
    refused_over = data.draw(st.none() | st.integers(-(-limits.max_items // 8), limits.max_items))
    got = asyncio.run(sent(texts, tokens, limits, order, refused_over))
    assert np.array_equal(got, np.stack([vector_of(text, 8) for text in texts]))
