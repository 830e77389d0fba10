"""Third-party clients against a gateway with the local model and a provider."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import tiktoken
from compat.tiktoken_cache import fill_cache
from conftest import Gateway, Minilm
from langchain_openai import OpenAIEmbeddings
from mistralai.client import Mistral
from recording import Recorded, Recorder, recording

from embedway.testing import shorten_vector

LOCAL = "auto"
PROVIDER = "openai:text-embedding-3-small"
TEXTS = ["one text", "another of more words", "é 汉字 🙂", "def f(x):\n    return x"]
LONG = "The gateway answers what it is asked, and it says so when it cannot. " * 5


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiktoken.Encoding]:
    """LangChain's encoding in tiktoken's cache, so that no network is needed."""
    folder = tmp_path_factory.mktemp("tiktoken")
    fill_cache(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield tiktoken.get_encoding("cl100k_base")


@pytest.fixture(scope="module")
def upstream(encoding: tiktoken.Encoding) -> Iterator[Recorder]:
    """A stand-in for OpenAI that gives a text and its token ids the same vector."""

    def answer(call: Recorded) -> Any:
        body = call.body
        items = [each if isinstance(each, str) else encoding.decode(each) for each in body["input"]]
        say = packed if body.get("encoding_format") == "base64" else np.ndarray.tolist
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": say(vector(text, 1536)),
                }
                for index, text in enumerate(items)
            ],
            "model": body["model"],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }

    with recording(answer) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def fronted(
    minilm: Minilm, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in front of the stand-in."""
    folder: Path = tmp_path_factory.mktemp("fronted")
    (folder / "embedway.toml").write_text(
        f'[providers.openai]\nbase_url = "{upstream.url}/v1"\napi_key = "sk-upstream"\n'
    )
    gateway = Gateway(folder)
    try:
        yield gateway.start()
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def client(fronted: Gateway) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{fronted.url}/v1", api_key=fronted.key, max_retries=0) as client:
        yield client


def vector(text: str, width: int) -> np.ndarray:
    """Return the stand-in's vector of a text."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(width)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def embeddings(gateway: Gateway, model: str, **options: Any) -> OpenAIEmbeddings:
    """LangChain's class with its defaults, as in its documentation."""
    return OpenAIEmbeddings(
        model=model, base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, **options
    )


def langchain(gateway: Gateway, model: str, texts: list[str], **options: Any) -> list[list[float]]:
    """Return LangChain's vectors, on connections that are closed afterwards."""
    with openai.DefaultHttpxClient() as transport:
        return embeddings(gateway, model, http_client=transport, **options).embed_documents(texts)


def plain(
    client: openai.OpenAI, texts: list[str], model: str = LOCAL, **options: Any
) -> np.ndarray:
    """Return the vectors of `texts`, sent unchanged."""
    answer = client.embeddings.create(model=model, input=texts, **options)
    return np.array([each.embedding for each in answer.data], np.float32)


def assert_same(one: Any, other: np.ndarray) -> None:
    """Assert that the vectors differ only by rounding, as between different batches."""
    one = np.array(one, np.float32)
    assert one.shape == other.shape
    assert (np.sum(one * other, axis=1) >= 0.99999).all()


def test_langchain_upstream(
    fronted: Gateway, upstream: Recorder, encoding: tiktoken.Encoding
) -> None:
    """A provider whose model has that vocabulary gets the ids unchanged."""
    upstream.taken()
    vectors = langchain(fronted, PROVIDER, TEXTS, dimensions=64)
    (call,) = upstream.taken()
    assert call.target == "/v1/embeddings"
    assert call.headers["authorization"] == "Bearer sk-upstream"
    assert call.body == {
        "model": "text-embedding-3-small",
        "input": [encoding.encode_ordinary(text) for text in TEXTS],
        "encoding_format": "base64",
    }
    assert_same(vectors, np.array([shorten_vector(vector(text, 1536), 64) for text in TEXTS]))


@pytest.mark.parametrize("model", [LOCAL, PROVIDER])
def test_langchain_chunks(
    fronted: Gateway, client: openai.OpenAI, encoding: tiktoken.Encoding, model: str
) -> None:
    """Long texts that LangChain splits get the mean of their parts' vectors."""
    texts = [LONG, "short", LONG[20:]]
    means = []
    for text in texts:
        ids = encoding.encode_ordinary(text)
        cut = [ids[start : start + 20] for start in range(0, len(ids), 20)]
        parts = plain(client, [encoding.decode(part) for part in cut], model)
        mean = np.average(parts, axis=0, weights=[len(part) for part in cut])
        means.append(mean / np.linalg.norm(mean))
    vectors = langchain(fronted, model, texts, embedding_ctx_length=20, chunk_size=2)
    assert_same(vectors, np.array(means))


def test_langchain_too_long(fronted: Gateway, client: openai.OpenAI) -> None:
    """A text too long for the local model is refused, or truncated on request."""
    text = LONG * 20
    with pytest.raises(openai.BadRequestError) as caught:
        langchain(fronted, LOCAL, [text])
    assert caught.value.code == "context_length_exceeded"
    cutting = {"extra_body": {"truncate": "end"}}
    assert_same(
        langchain(fronted, LOCAL, [text], model_kwargs=cutting),
        plain(client, [text], **cutting),
    )


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"encoding_format": "float"}, {}),
        ({"encoding_format": "base64"}, {}),
        ({"dimensions": 64}, {}),  # shortened by the gateway
        ({"user": "u-1"}, {"user": "u-1"}),
        ({"extra_body": {"service_tier": "flex"}}, {"service_tier": "flex"}),
        ({"extra_body": {"metadata": {"team": "a"}, "zdr": False}}, {}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_openai_upstream(
    client: openai.OpenAI, upstream: Recorder, asked: dict, sent: dict
) -> None:
    """The fields of OpenAI's client reach the provider, with whole vectors in base64."""
    upstream.taken()
    answer = client.embeddings.create(model=PROVIDER, input=TEXTS, **asked)
    (call,) = upstream.taken()
    assert call.headers["authorization"] == "Bearer sk-upstream"
    assert call.body == {
        "model": "text-embedding-3-small",
        "input": TEXTS,
        "encoding_format": "base64",
        **sent,
    }
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7)
    vectors = [each.embedding for each in answer.data]
    expected = [vector(text, 1536) for text in TEXTS]
    if "dimensions" in asked:
        expected = [shorten_vector(each, 64) for each in expected]
    if asked.get("encoding_format") == "base64":
        assert vectors == [packed(each) for each in expected]
    else:
        assert np.array_equal(np.array(vectors, np.float32), np.array(expected))


@pytest.mark.parametrize("model", [LOCAL, PROVIDER])
def test_mistral(fronted: Gateway, client: openai.OpenAI, model: str) -> None:
    """Mistral's client, which reads only numbers, gets numbers."""
    with Mistral(api_key=fronted.key, server_url=fronted.url) as mistral:
        answer = mistral.embeddings.create(model=model, inputs=TEXTS)
    assert_same([each.embedding for each in answer.data], plain(client, TEXTS, model))
