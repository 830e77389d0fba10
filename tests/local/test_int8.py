"""A gateway in int8 serves another model, in a space of its own, and the exact one not at all."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import Gateway, Minilm
from precisions import lacks_precision

from embedway.catalog import catalog
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import ModelTokenizer
from embedway.testing import Upstream

EXACT, INT8 = "all-minilm-l6-v2", "all-minilm-l6-v2-int8"
SPACE = "x-embedway-space"
TEXTS = ["The quick brown fox.", "No.", "Der Hund schläft."]
PROVIDER = """
[providers.rack]
kind = "openai"
base_url = "{url}/openai/v1"
api_key = "k"
[[providers.rack.models]]
id = "all-minilm-l6-v2"
dimensions = 384
pooling = "mean"
normalised = true
price_per_mtok_usd = "0"
"""


def vectors(answer) -> np.ndarray:
    """Return the vectors of an answer."""
    return np.array([each["embedding"] for each in answer.json()["data"]])


@pytest.fixture
def cpu_with_int8() -> None:
    """Skip the test if the CPU has no instructions for int8."""
    if reason := lacks_precision("int8"):
        pytest.skip(reason)


@pytest.mark.usefixtures("cpu_with_int8")
def test_a_model_of_its_own(new_gateway: Callable[..., Gateway]):
    """`auto` and the model's own id mean int8; whoever names the exact model is refused."""
    exact = new_gateway().start()
    before = exact.embed(model=EXACT, input=TEXTS)
    exact.kill()

    gateway = exact  # on the same data folder
    gateway.env["EMBEDWAY_PRECISION"] = "int8"
    gateway.start()
    for name in ("auto", INT8, f"embedway:{INT8}"):
        answer = gateway.embed(model=name, input=TEXTS)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-embedway-model"] == INT8
        assert answer.headers[SPACE].startswith(f"{INT8}@")
        assert answer.headers[SPACE] != before.headers[SPACE]
        found = (vectors(answer) * vectors(before)).sum(axis=1)
        assert 0.99 < found.min() < 0.9999
    for name in (EXACT, f"embedway:{EXACT}"):
        refused = gateway.embed(model=name, input=TEXTS)
        assert refused.status_code == 404
        assert INT8 in refused.json()["error"]["message"]
    with gateway.client() as client:
        listed = {each["id"] for each in client.get("/v1/models").json()["data"]}
    assert INT8 in listed
    assert EXACT not in listed
    refused = gateway.embed(model=INT8, input=TEXTS, allow_quantization=False)
    assert refused.status_code == 400
    assert "quantisation is int8" in refused.text


@pytest.mark.usefixtures("cpu_with_int8")
def test_an_exact_provider_stays_apart(
    new_gateway: Callable[..., Gateway], upstream: Upstream, minilm: Minilm
):
    """A provider's exact vectors are never those of int8, and int8 never stands in for them.

    The canaries could not tell: each has a cosine above 0.999 to its exact vector.
    """
    shape = catalog.load_catalog(eu_native=False).local_models()[0].weights.bert
    encoder = OpenVinoEncoder(minilm.weights, shape=shape, precision="f32", threads=1)
    tokenizer = ModelTokenizer(minilm.tokenizer)
    upstream.vectors = lambda text, _: encoder.encode(tokenizer.encode([text]))[0]
    gateway = new_gateway(precision="int8", canaries=True)
    (gateway.folder / "embedway.toml").write_text(PROVIDER.format(url=upstream.url))
    gateway.start()
    answer = gateway.embed(model=EXACT, input=TEXTS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-embedway-provider"] == "rack"
    assert answer.headers[SPACE].startswith(f"{EXACT}@rack/")
    assert gateway.embed(model="auto", input=TEXTS).headers[SPACE].startswith(f"{INT8}@")
    upstream.always("500")
    failed = gateway.embed(model=EXACT, input=TEXTS)
    upstream.reset()
    assert failed.status_code >= 500


def test_a_cpu_without_it(new_gateway: Callable[..., Gateway]):
    """It is refused at start, because it would be as slow as f32 and less exact."""
    if not lacks_precision("int8"):
        pytest.skip("this CPU has instructions for int8")
    refused = new_gateway(precision="int8").cli("serve")
    assert refused.returncode == 1
    assert "no instructions for 'int8'; use 'f32' or 'auto'" in refused.stderr


def test_an_alias_cannot_join_them(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """An alias of both is refused at start, as of any two spaces."""
    gateway = new_gateway(precision="int8")
    alias = f'[aliases]\nboth = ["{INT8}", "{EXACT}"]\n'
    (gateway.folder / "embedway.toml").write_text(alias + PROVIDER.format(url=upstream.url))
    refused = gateway.cli("models", "list")
    assert refused.returncode == 1
    assert "different vector spaces" in refused.stderr


def test_the_catalog_has_one_of_them():
    """By default nobody gets int8; with it, the model says that it is quantised."""
    for int8, id, quantisation in ((False, EXACT, "fp32"), (True, INT8, "int8")):
        models = catalog.load_catalog(eu_native=False, int8=int8)
        assert list(models.models) == [id]
        assert [each.id for each in models.find("auto").deployments] == [f"embedway:{id}"]
        assert models.models[id].deployments[0].quantisation == quantisation
