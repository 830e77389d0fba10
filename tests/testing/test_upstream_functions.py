"""The vectors that a scripted upstream answers with: of a space, near to it, or of another."""

import gc
import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from embedway.testing import (
    Upstream,
    Vectors,
    noisy,
    other_pooling,
    scaled,
    shorten_vector,
    space,
    vector_of,
)

TEXTS = [f"text {at}" for at in range(40)]
WIDE = "text-embedding-3-small"
WIDTH = 1536
Change = Callable[[Vectors], Vectors]


@pytest.fixture
def own() -> Iterator[Upstream]:
    """An upstream that is a model of its own."""
    with Upstream(vectors=space("one")) as upstream:
        yield upstream


def post(upstream: Upstream, path: str, **body: object) -> dict[str, Any]:
    reply = httpx.post(
        f"{upstream.url}{path}", json=body, headers={"authorization": "Bearer k"}, trust_env=False
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


def embed(upstream: Upstream, text: str = "a", **fields: object) -> np.ndarray:
    answer = post(upstream, "/openai/v1/embeddings", **{"model": WIDE, "input": text, **fields})
    return np.array(answer["data"][0]["embedding"], np.float32)


def cosines(one: Vectors, other: Vectors) -> list[float]:
    pairs = [(one(text, WIDTH), other(text, WIDTH)) for text in TEXTS]
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]


def test_spaces_are_their_own() -> None:
    """A seed is a space: the same again, of length one, another for each item and each seed."""
    one, again, other = space("one"), space("one"), space("other")
    for item in ["a", [1, 2]]:
        assert np.array_equal(one(item, 64), again(item, 64))
        assert np.linalg.norm(one(item, 64)) == pytest.approx(1)
    assert not np.array_equal(one("a", 64), one([1, 2], 64))
    for unlike in (other, vector_of):
        assert max(map(abs, cosines(one, unlike))) < 0.2


@pytest.mark.parametrize(
    ("change", "lowest", "highest"),
    [
        (partial(scaled, by=3.5), 1 - 1e-6, 1 + 1e-6),
        (noisy, 0.99, 0.999),
        (partial(noisy, bits=8), 0.9999, 1 - 1e-7),
        (other_pooling, 0.85, 0.95),
    ],
    ids=["scaled", "four bits", "eight bits", "other pooling"],
)
def test_changes_are_as_far_as_they_say(change: Change, lowest: float, highest: float) -> None:
    """Each change of a space is told by its cosine, or by its length alone."""
    one = space("one")
    changed = change(one)
    assert all(lowest < each < highest for each in cosines(one, changed))
    lengths = [float(np.linalg.norm(changed(text, WIDTH))) for text in TEXTS]
    assert lengths == pytest.approx([3.5 if lowest > 0.99999 else 1.0] * len(TEXTS))


def test_upstreams_are_told_apart(own: Upstream) -> None:
    """Two upstreams answer the same call with the function that each was made with."""
    with Upstream() as usual:
        assert np.array_equal(embed(own), space("one")("a", WIDTH))
        assert np.array_equal(embed(usual), vector_of("a", WIDTH))


def test_functions_change_while_it_runs(own: Upstream) -> None:
    """The next call is answered with what was set, until a reset."""
    own.vectors = space("two")
    assert np.array_equal(embed(own), space("two")("a", WIDTH))
    own.reset()
    assert np.array_equal(embed(own), space("one")("a", WIDTH))


@pytest.mark.parametrize("change", [noisy, other_pooling])
def test_short_vectors_are_the_start(own: Upstream, change: Change) -> None:
    """Fewer dimensions give the start of the whole vector, brought to length one."""
    own.vectors = change(own.vectors)
    whole, short = embed(own), embed(own, dimensions=256)
    assert np.array_equal(short, shorten_vector(whole, 256))
    assert np.linalg.norm(short) == pytest.approx(1)
    assert np.array_equal(embed(own, dimensions=WIDTH), whole)


def test_short_vectors_of_the_usual_function() -> None:
    """Without a function of its own it answers `vector_of` the width asked for, to the bit."""
    with Upstream() as usual:
        assert np.array_equal(embed(usual, dimensions=256), vector_of("a", 256))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/openai/v1/embeddings", {"model": "m", "input": "a"}),
        ("/ollama/api/embed", {"model": "m", "input": "a"}),
        ("/nomic/v1/embedding/text", {"model": "m", "texts": ["a"]}),
    ],
)
def test_the_model_that_is_echoed(own: Upstream, path: str, body: dict[str, object]) -> None:
    """An answer names the model asked for, or the one that it is told to, with the same vector."""
    usual = post(own, path, **body)
    own.echo = "m-v2"
    told = post(own, path, **body)
    assert (usual.pop("model"), told.pop("model")) == ("m", "m-v2")
    assert usual == told
    own.reset()
    assert post(own, path, **body)["model"] == "m"


@pytest.mark.parametrize(
    ("path", "body", "field", "query", "document"),
    [
        (
            "/cohere/v2/embed",
            {"model": "m", "texts": ["a"]},
            "input_type",
            "search_query",
            "search_document",
        ),
        (
            "/nvidia/v1/embeddings",
            {"model": "m", "input": "a"},
            "input_type",
            "query",
            "passage",
        ),
        ("/jina/v1/embeddings", {"model": "m", "input": "a"}, "task", "query", "passage"),
        (
            "/nomic/v1/embedding/text",
            {"model": "m", "texts": ["a"]},
            "task_type",
            "search_query",
            "search_document",
        ),
        (
            "/vertex/v1/projects/p/locations/l/publishers/google/models/m:predict",
            {"instances": [{"content": "a"}]},
            "task_type",
            "RETRIEVAL_QUERY",
            "RETRIEVAL_DOCUMENT",
        ),
    ],
)
def test_purposes_have_functions(
    own: Upstream, path: str, body: dict[str, object], field: str, query: str, document: str
) -> None:
    """A function for one purpose answers what is said to be for it, and nothing else."""

    def asked(purpose: str) -> str:
        if "instances" in body:
            return json.dumps(post(own, path, instances=[{"content": "a", field: purpose}]))
        return json.dumps(post(own, path, **body, **{field: purpose}))

    assert asked(query) == asked(document)
    before = asked(document)
    own.purposes = {query: space("other prompt")}
    assert asked(document) == before
    assert asked(query) != before


def test_a_connection_made_at_the_end() -> None:
    """A connection that arrives while the upstream stops is closed too."""
    for _ in range(20):
        with Upstream() as upstream:
            address = urlsplit(upstream.url)
            late = socket.create_connection((address.hostname, address.port))
        late.close()
    gc.collect()  # what is not closed warns, and a warning fails the test
