"""Each deployment's vectors are what the name of their space says, whatever its provider does.

A provider may pool otherwise, ignore what the vectors are for, or leave them at any length: the
gateway sends what cures that, or does it here, and refuses an answer that says otherwise.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import Gateway, Minilm

from embedway.core import vectors
from embedway.core.provider_error import ProviderError
from embedway.testing import Upstream, scaled, vector_of

TOML = """
[models.shared]
reference = "unit"

[providers.unit]
kind = "siliconflow"
base_url = "{unit}/siliconflow/v1"
api_key = "s"
[[providers.unit.models]]
id = "shared"
dimensions = 64
normalised = true

[providers.raw]
kind = "fireworks"
base_url = "{raw}/fireworks/inference/v1"
api_key = "f"
[[providers.raw.models]]
id = "shared"
dimensions = 64
normalised = true
[[providers.raw.models]]
id = "raw-alone"
dimensions = 64
"""
LENGTH = 21.7
"""How long the vectors are that Fireworks gave in a recorded reply."""


@pytest.fixture(scope="module")
def raw() -> Iterator[Upstream]:
    """A provider that leaves its vectors at the length the model gives them."""
    with Upstream(vectors=scaled(vector_of, LENGTH)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, raw: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose deployments are proven by canaries."""
    running = Gateway(tmp_path_factory.mktemp("vectors"), canaries=True)
    (running.folder / "embedway.toml").write_text(TOML.format(unit=upstream.url, raw=raw.url))
    running.start()
    yield running
    running.kill()


def test_lengths_are_made_one_before_vectors_are_compared(gateway: Gateway) -> None:
    """A provider of unnormalised vectors shares the space of one that normalises them."""
    answers = [gateway.embed(model=f"{name}:shared", input=["a", "b"]) for name in ("unit", "raw")]
    assert [each.status_code for each in answers] == [200, 200], answers[1].text
    spaces = {each.headers["x-embedway-space"] for each in answers}
    assert spaces == {"shared@unit/unstated-l2/prompt-none/64"}
    for answer in answers:
        for item, entry in zip("ab", answer.json()["data"], strict=True):
            assert np.allclose(entry["embedding"], vector_of(item, 64), atol=1e-6)


def test_other_lengths_stay(gateway: Gateway) -> None:
    """Vectors of a model that nobody says is normalised keep the length its provider gives them."""
    answer = gateway.embed(model="raw:raw-alone", input="a").json()
    assert np.linalg.norm(answer["data"][0]["embedding"]) == pytest.approx(LENGTH, rel=1e-5)


@pytest.mark.parametrize("length", [1e-30, 1e-3, 0.99, LENGTH, 1e30])
def test_length_one(length: float) -> None:
    """Vectors that must have length one get it, from whatever length that is not zero."""
    right = np.stack([vector_of("a"), vector_of("b")])
    given = (right.astype(np.float64) * length).astype(np.float32)
    assert np.allclose(vectors.check(given, items=2, dimensions=64, normalised=True), right)
    assert vectors.check(given, items=2, dimensions=64) is given


def test_length_one_already() -> None:
    """Vectors of length one, up to what half precision makes of it, are left to the bit."""
    right = np.stack([vector_of("a"), vector_of("b")])
    for given in (right, right.astype(np.float16).astype(np.float32)):
        assert vectors.check(given, items=2, dimensions=64, normalised=True) is given


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not a finite"), (np.inf, "not a finite"), (0, "of zeros")]
)
def test_no_length(value: float, reason: str) -> None:
    """A vector without a length stays an error, though vectors are brought to length one."""
    given = np.stack([vector_of("a"), np.full(64, value, np.float32)])
    with pytest.raises(ProviderError) as caught:
        vectors.check(given, items=2, dimensions=64, normalised=True)
    assert reason in caught.value.reason
