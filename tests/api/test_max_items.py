"""A gateway whose operator lets a request have more items than OpenAI does."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from conftest import Gateway, Minilm

from embedway.testing import Upstream
from embedway.testing.vectors import WIDTH, vector_of

MOST = 4096
TOML = """
[providers.small]
kind = "openai"
base_url = "{url}/openai/v1"
api_key = "k"
[[providers.small.models]]
id = "cut"
dimensions = {width}
max_items = 700
price_per_mtok_usd = "1"
"""
WORDS = [f"{first} {second}" for first in ("cat", "dog", "sun") for second in ("red", "milk")]


@pytest.fixture(scope="module")
def generous(
    minilm: Minilm, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Gateway]:
    """A gateway that takes `MOST` items, and a provider that takes 700."""
    gateway = Gateway(tmp_path_factory.mktemp("generous"), max_items=MOST)
    (gateway.folder / "embedway.toml").write_text(TOML.format(url=upstream.url, width=WIDTH))
    yield gateway.start()
    gateway.kill()


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data], np.float32)


def test_the_built_in_model(generous: Gateway) -> None:
    """3,000 texts in one request get the vectors that each gets alone, and are counted once."""
    single = np.concatenate([vectors(generous.embed(input=word)) for word in WORDS])
    before = generous.usage()
    texts = [WORDS[number % len(WORDS)] for number in range(3000)]
    answer = generous.embed(input=texts)
    together = vectors(answer)
    assert (np.sum(together * np.tile(single, (500, 1)), axis=1) > 0.99999).all()
    tokens = answer.json()["usage"]["prompt_tokens"]
    assert tokens == 4 * 3000
    [then], [now] = before, generous.usage()
    assert now["requests"] - then["requests"] == 1
    assert now["items"] - then["items"] == 3000
    assert now["tokens"] - then["tokens"] == tokens


def test_a_provider_that_takes_fewer(generous: Gateway, upstream: Upstream) -> None:
    """The gateway cuts the request into calls, and joins their answers in order."""
    upstream.reset()
    texts = [f"text {number}" for number in range(3000)]
    answer = generous.embed(model="small:cut", input=texts)
    assert np.allclose(vectors(answer), [vector_of(text, WIDTH) for text in texts], atol=1e-6)
    assert sorted(len(call.body["input"]) for call in upstream.calls) == [200, 700, 700, 700, 700]


@pytest.mark.parametrize("item", ["a", [1]], ids=["texts", "tokens"])
def test_too_many(generous: Gateway, item: object) -> None:
    """One item more than the setting is refused; the message names number, limit and setting."""
    answer = generous.embed(input=[item] * (MOST + 1))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == ("input", "invalid_request_error")
    for part in ("'input'", "4097", "4096", "max_items"):
        assert part in error["message"]


def test_the_limit_is_told(generous: Gateway) -> None:
    """The models endpoint and the OpenAPI document have the operator's number."""
    with generous.client() as client:
        listed = client.get("/v1/embeddings/models").raise_for_status().json()["data"]
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {each["limits"]["max_batch_size"] for each in listed} == {MOST}
    input = schemas["EmbeddingsRequest"]["properties"]["input"]
    assert {each.get("maxItems") for each in input["anyOf"]} == {None, MOST, 100_000}
    assert "4,096" in input["description"]
