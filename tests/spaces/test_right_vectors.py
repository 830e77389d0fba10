"""Each deployment's vectors are what the name of their space says, whatever its provider does.

A provider may pool otherwise, ignore what the vectors are for, or leave them at any length: the
gateway sends what cures that, or does it here, and refuses an answer that says otherwise.
"""

import re
import time
from collections.abc import Iterator

import httpx
import msgspec
import numpy as np
import pytest
from conftest import Gateway, Minilm

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.config.providers import enabled_providers
from embedway.config.settings import ConfigError, LoadedSettings, Settings
from embedway.core import vectors
from embedway.core.provider_error import ProviderError
from embedway.providers.provider_config import fingerprinter
from embedway.spaces.canaries import CANARIES
from embedway.testing import (
    Misbehaviour,
    Upstream,
    UpstreamCall,
    UpstreamReply,
    other_pooling,
    scaled,
    space,
    vector_of,
)

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

[providers.cloudflare]
base_url = "{unit}/cloudflare/client/v4/accounts/a/ai"
api_key = "c"

[providers.gemini]
base_url = "{unit}/gemini/v1beta"
api_key = "g"

[providers.jina]
base_url = "{unit}/jina/v1"
api_key = "j"

[providers.deepinfra]
base_url = "{unit}/deepinfra/v1"
api_key = "d"

[providers.dashscope]
base_url = "{unit}/dashscope/api/v1"
api_key = "a"

[providers.vllm]
base_url = "{unit}/vllm/v1"
[[providers.vllm.models]]
id = "prompted"
dimensions = 64
token_ids = "native"
prompts = {{ query = "query: " }}
apply_prompts = true
parameters = {{ add_special_tokens = false }}
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


@pytest.fixture(autouse=True)
def fresh(upstream: Upstream) -> None:
    upstream.reset()


def vectors_of(reply: httpx.Response) -> list[np.ndarray]:
    assert reply.status_code == 200, reply.text
    return [np.array(each["embedding"], np.float32) for each in reply.json()["data"]]


def calls_with(upstream: Upstream, words: str) -> list[UpstreamCall]:
    """The calls that hold these words; canaries, which go out when they may, hold others."""
    return [call for call in upstream.calls if words.encode() in call.content]


def prompt_in(reply: httpx.Response) -> str:
    """The part of the answer's space that says what is put before texts."""
    return reply.headers["x-embedway-space"].split("/")[2]


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
    """Vectors of a model not declared as normalised keep their length."""
    answer = gateway.embed(model="raw:raw-alone", input="a").json()
    assert np.linalg.norm(answer["data"][0]["embedding"]) == pytest.approx(LENGTH, rel=1e-5)


@pytest.mark.parametrize("length", [1e-30, 1e-3, 0.99, LENGTH, 1e30])
def test_length_one(length: float) -> None:
    """Vectors that must have length one get it, from whatever length that is not zero."""
    right = np.stack([vector_of("a"), vector_of("b")])
    given = (right.astype(np.float64) * length).astype(np.float32)
    assert np.allclose(vectors.check_vectors(given, items=2, dimensions=64, normalised=True), right)
    assert vectors.check_vectors(given, items=2, dimensions=64) is given


def test_length_one_already() -> None:
    """Vectors of length one, up to what half precision makes of it, are left to the bit."""
    right = np.stack([vector_of("a"), vector_of("b")])
    for given in (right, right.astype(np.float16).astype(np.float32)):
        assert vectors.check_vectors(given, items=2, dimensions=64, normalised=True) is given


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not a finite"), (np.inf, "not a finite"), (0, "of zeros")]
)
def test_no_length(value: float, reason: str) -> None:
    """A vector without a length stays an error, though vectors are brought to length one."""
    given = np.stack([vector_of("a"), np.full(64, value, np.float32)])
    with pytest.raises(ProviderError) as caught:
        vectors.check_vectors(given, items=2, dimensions=64, normalised=True)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("model", "width"),
    [("bge-small-en-v1.5", 384), ("bge-base-en-v1.5", 768), ("bge-large-en-v1.5", 1024)],
)
def test_pooling_is_asked_for(gateway: Gateway, upstream: Upstream, model: str, width: int) -> None:
    """A call to Cloudflare, which pools by mean by default, names the model's pooling."""
    upstream.purposes = {"mean": other_pooling(vector_of), "cls": vector_of}
    reply = gateway.embed(model=f"cloudflare:{model}", input=["a"])
    assert np.allclose(vectors_of(reply), [vector_of("a", width)], atol=1e-6)
    assert "/cls-l2/" in reply.headers["x-embedway-space"]
    calls = [call for call in upstream.calls if call.path.endswith(model)]
    assert {call.body["pooling"] for call in calls} == {"cls"}


def test_pooling_is_checked(gateway: Gateway, upstream: Upstream) -> None:
    """An answer that says that its vectors are pooled otherwise is none."""
    assert gateway.embed(model="cloudflare:bge-base-en-v1.5", input="a").status_code == 200
    upstream.echo = "mean"
    reply = gateway.embed(model="cloudflare:bge-base-en-v1.5", input="a")
    assert reply.status_code == 502, reply.text


@pytest.mark.parametrize("field", ["pooling", "Pooling"])
def test_what_a_deployment_fixes_cannot_be_changed(
    gateway: Gateway, upstream: Upstream, field: str
) -> None:
    """A client cannot replace a field that makes vectors what their space says."""
    reply = gateway.embed(
        model="cloudflare:bge-base-en-v1.5", input="not sent", extra_body={field: "mean"}
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
    assert "pooling is 'cls'" in reply.json()["error"]["message"]
    assert calls_with(upstream, "not sent") == []


def test_a_refusal_of_what_a_deployment_fixes(gateway: Gateway, upstream: Upstream) -> None:
    """A provider that refuses such a field failed: the client did not send it."""

    def refused(_: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
        body = b'{"error": {"message": "Unrecognized request argument supplied: pooling"}}'
        return msgspec.structs.replace(right, status=400, body=body)

    upstream.always(Misbehaviour(reply=refused))
    reply = gateway.embed(model="cloudflare:bge-base-en-v1.5", input="refused")
    assert (reply.status_code, reply.json()["error"]["param"]) == (502, None)
    assert "pooling" not in reply.text


@pytest.mark.parametrize("field", ["queries", "documents"])
def test_texts_are_not_sent_beside_the_input(
    gateway: Gateway, upstream: Upstream, field: str
) -> None:
    """A client cannot have texts embedded that are not counted."""
    reply = gateway.embed(
        model="cloudflare:qwen3-embedding-0.6b", input="not billed", extra_body={field: ["more"]}
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
    assert calls_with(upstream, "not billed") == []


PROMPTS = {
    "query": ("task: search result | query: ", "prompt-retrieval"),
    "document": ("title: none | text: ", "prompt-retrieval"),
    "classification": ("task: classification | query: ", "prompt-classification"),
    "clustering": ("task: clustering | query: ", "prompt-clustering"),
    None: ("", "prompt-none"),
}


@pytest.mark.parametrize("input_type", PROMPTS)
@pytest.mark.parametrize("ids", [False, True], ids=["texts", "token ids"])
def test_prompts_are_put_before_texts(
    gateway: Gateway, upstream: Upstream, input_type: str | None, ids: bool
) -> None:
    """gemini-embedding-2 ignores the task field, so its text carries the task."""
    texts = ["hello world", "and another"]
    sent = [[15339, 1917], [438, 2500]] if ids else texts
    prompt, space = PROMPTS[input_type]
    reply = gateway.embed(model="gemini:gemini-embedding-2", input=sent, input_type=input_type)
    wanted = [vector_of(prompt + text, 3072) for text in texts]
    assert np.allclose(vectors_of(reply), wanted, atol=1e-6)
    assert prompt_in(reply) == space
    assert reply.json()["usage"]["prompt_tokens"] == sum(len((prompt + t).split()) for t in texts)
    (call,) = calls_with(upstream, "hello world")
    for request, text in zip(call.body["requests"], texts, strict=True):
        assert request["content"] == {"parts": [{"text": prompt + text}]}
        assert "taskType" not in request


def test_a_prompt_is_counted(gateway: Gateway, upstream: Upstream) -> None:
    """The tokens of a prompt count before the call, with those of each text."""
    counts = []
    for input_type in (None, "query"):
        with gateway.client() as client:
            told = client.post(
                "/v1/embeddings?dry_run=true",
                json={
                    "model": "gemini:gemini-embedding-2",
                    "input": ["not sent", "not sent"],
                    "input_type": input_type,
                },
            )
        counts.append(told.json()["tokens"])
    assert counts[1] - counts[0] == 2 * 7
    assert calls_with(upstream, "not sent") == []


def test_prompts_of_a_server_of_ones_own(gateway: Gateway, upstream: Upstream) -> None:
    """An operator can have prompts and fields sent to a server that does not know them itself.

    Canaries are sent in the same way, or they would prove another space.
    """
    for input_type, prompt in (("query", "query: "), ("document", "")):
        reply = gateway.embed(model="vllm:prompted", input="a", input_type=input_type)
        assert np.allclose(vectors_of(reply), [vector_of(prompt + "a", 64)], atol=1e-6)
        assert prompt_in(reply) == "prompt-retrieval"
    deadline = time.monotonic() + 60
    while not calls_with(upstream, f'"query: {CANARIES[1]}"'):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    calls = [call for call in upstream.calls if call.path.startswith("/vllm")]
    assert all(call.body["add_special_tokens"] is False for call in calls)
    reply = gateway.embed(model="vllm:prompted", input="a", input_type="clustering")
    assert prompt_in(reply) == "prompt-none"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "not sent", "truncate": "start"}, "truncate"),
        ({"input": [[7654321]]}, "input"),
    ],
    ids=["cut from its start", "token ids of its own"],
)
def test_a_prompt_is_not_lost(
    gateway: Gateway, upstream: Upstream, fields: dict, param: str
) -> None:
    """What would leave a text without its prompt is refused."""
    reply = gateway.embed(model="vllm:prompted", input_type="query", **fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert calls_with(upstream, "not sent") + calls_with(upstream, "7654321") == []


@pytest.mark.parametrize(
    ("model", "input_type", "task"),
    [
        ("jina-embeddings-v2-base-en", "query", None),
        ("jina-clip-v2", "document", None),
        ("jina-embeddings-v4", "query", "retrieval.query"),
        ("jina-embeddings-v4", "clustering", None),
        ("jina-embeddings-v3", "clustering", "separation"),
    ],
)
def test_input_types_of_a_model(
    gateway: Gateway, upstream: Upstream, model: str, input_type: str, task: str | None
) -> None:
    """The input type goes to models that use it, and into the space's name."""
    reply = gateway.embed(model=f"jina:{model}", input="a text", input_type=input_type)
    assert reply.status_code == 200, reply.text
    assert [call.body.get("task") for call in calls_with(upstream, "a text")] == [task]
    retrieval = {"query": "retrieval", "document": "retrieval"}.get(input_type, input_type)
    assert prompt_in(reply) == f"prompt-{retrieval if task else 'none'}"


def test_a_field_that_is_not_there_makes_no_space(gateway: Gateway, upstream: Upstream) -> None:
    """DeepInfra has no field for what vectors are for: they are of the texts alone."""
    reply = gateway.embed(model="deepinfra:some-model", input="a text", input_type="query")
    assert prompt_in(reply) == "prompt-none"
    (call,) = calls_with(upstream, "a text")
    assert "input_type" not in call.body


def test_dashscope_tells_queries_from_documents(gateway: Gateway, upstream: Upstream) -> None:
    """DashScope's native protocol carries the input type."""
    upstream.purposes = {"query": space("query"), "document": space("document")}
    for input_type in ("query", "document"):
        reply = gateway.embed(
            model="dashscope:text-embedding-v4", input=["a", "b"], input_type=input_type
        )
        wanted = [space(input_type)(text, 1024) for text in "ab"]
        assert np.allclose(vectors_of(reply), wanted, atol=1e-6)
        assert prompt_in(reply) == "prompt-retrieval"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"dashscope": {"base_url": "https://dashscope.aliyuncs.com/compatible-mode/v1"}},
            "Write it as 'https://dashscope.aliyuncs.com/api/v1'",
        ),
        (
            {"tei": {"models": [{"id": "m", "parameters": {"Prompt-Name": 1}}]}},
            "parameters cannot set Prompt-Name",
        ),
        (
            {"vllm": {"models": [{"id": "m", "parameters": {"dimensions": 64}}]}},
            "parameters cannot set dimensions",
        ),
        ({"vllm": {"models": [{"id": "m", "apply_prompts": True}]}}, "Set prompts too."),
        (
            {"vllm": {"models": [{"id": "m", "input_types": {"query": "query"}}]}},
            "input_types cannot be said to a provider of kind 'vllm'",
        ),
    ],
    ids=[
        *("address of another protocol", "field of the kind", "field of every kind", "no prompts"),
        "no field for input types",
    ],
)
def test_settings_that_cannot_be(section: dict, said: str) -> None:
    """What an operator sets that would not reach the provider is refused, with the cure."""
    origins = {"providers": "embedway.toml"}
    settings = Settings.model_validate({"providers": section}, context=origins)
    with pytest.raises(ConfigError, match=re.escape(said)):
        enabled_providers(LoadedSettings(settings, origins, [], {}))


def test_what_a_deployment_is_told_is_part_of_its_proof() -> None:
    """A proof is void once a field that the vectors depend on changes."""
    model = Model(id="m", prompts={"query": "query: "})
    deployments = [
        DeploymentSpec(provider="p"),
        DeploymentSpec(provider="p", parameters={"pooling": "cls"}),
        DeploymentSpec(provider="p", input_types={"query": "q"}),
        DeploymentSpec(provider="p", apply_prompts=True),
    ]
    of = fingerprinter([])
    assert len({of(Deployment(model, each)) for each in deployments}) == len(deployments)
