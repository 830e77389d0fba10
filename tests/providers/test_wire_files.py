"""Checks each kind of provider's calls and replies against files from its documentation.

A file is `tests/providers/wire/<row>/<case>.json` and contains a `Case`. Every kind has the cases
in `REFUSALS`. If a provider's own words are unknown, the file's `source` begins with "not found",
and its reply has the provider's shape with words of ours. `NOT_FOUND` lists these files.
"""

import datetime as dt
import importlib
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
from msgspec import UNSET, UnsetType

from embedway.catalog.catalog import read_packaged
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.batch import Batch, EngineAbilities, Items
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import Billable, FailureKind, ProviderError
from embedway.core.request import InputType, Truncate
from embedway.http.call import HttpReply
from embedway.providers.adapter import Adapter
from embedway.providers.registry import ROWS

BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{16})*[A-Za-z0-9+/]{11}=")
"""Two float32 in base64, the width of all vectors in these files."""
FOLDER = Path(__file__).parent / "wire"
FILES = sorted(FOLDER.glob("*/*.json"))

REFUSALS: dict[str, set[FailureKind]] = {
    "too_long": {"item_too_long"},
    "too_many_items": {"batch_too_large"},
    "bad_key": {"credentials"},
    # Google's and Amazon's quotas are per period, and reset.
    "quota": {"quota", "rate_limit"},
    "rate_limit": {"rate_limit"},
    "no_model": {"model"},
    # Some answer 429.
    "overloaded": {"overloaded", "rate_limit"},
}
"""The refusals that each kind of provider has a file for, with the possible kinds of failure."""
OWN = {"too_long", "no_model", "overloaded"}
"""The refusals of servers that users run. Those with a key also have `bad_key`."""
NEVER = {
    ("tei", "no_model"): "Calls name no model.",
    ("infinity", "too_long"): "It cuts long texts.",
    ("nomic", "too_long"): "It returns the mean of a long text's parts.",
}

NOT_FOUND = {
    "azure": "overloaded quota",
    "bedrock": "too_many_items",
    "cloudflare": "rate_limit too_long too_many_items",
    "cohere": "overloaded payment",
    "dashscope": "overloaded",
    "databricks": "no_model overloaded quota rate_limit too_long too_many_items",
    "deepinfra": "bad_key no_model quota rate_limit too_long too_many_items",
    "fireworks": "overloaded rate_limit too_long too_many_items",
    "foundry": "no_model overloaded quota too_long too_many_items",
    "gemini": "too_long",
    "huggingface": "rate_limit too_many_items",
    "infinity": "no_model",
    "llamacpp": "no_model too_long",
    "lmstudio": "bad_key no_model no_such_route overloaded too_long",
    "mistral": "quota too_long unknown_field",
    "mixedbread": "bad_key no_model overloaded quota too_long too_many_items",
    "nebius": "bad_key invalid no_model overloaded quota rate_limit too_long too_many_items",
    "nim": "bad_key no_model overloaded",
    "nomic": "bad_key no_model overloaded quota rate_limit too_many_items",
    "novita": "overloaded rate_limit too_long too_many_items",
    "nvidia": "overloaded quota too_many_items",
    "openrouter": "too_long too_many_items",
    "ovh": "bad_key no_model overloaded quota rate_limit too_long too_many_items",
    "perplexity": "overloaded quota rate_limit too_long too_many_items",
    "pinecone": "no_model overloaded too_long too_many_items",
    "scaleway": "overloaded quota too_long too_many_items",
    "siliconflow": "too_long too_many_items",
    "snowflake": "too_many_items",
    "ollama": "too_long_with_500",
    "tei": "no_such_prompt too_many_characters",
    "together": "overloaded rate_limit too_long too_many_items",
    "venice": "too_many_items",
    "vercel": "bad_key too_long",
    "vertex": "overloaded too_long",
    "vllm": "no_model overloaded",
    "voyage": "overloaded quota",
    "watsonx": "bad_key no_model overloaded rate_limit too_many_items",
    "xinference": "too_long",
}
"""The cases of each kind whose real words are unknown."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Allows no unknown fields."""


class Request(Strict):
    """The request that becomes a batch."""

    model: str = "m"
    input: list[str | list[int]] = msgspec.field(default_factory=lambda: ["first"])
    base_model: str = ""
    dimensions: int | None = None
    input_type: InputType | None = None
    truncate: Truncate = "none"
    user: str | None = None
    extra_body: dict[str, Any] = {}


class Call(Strict):
    """The call that the adapter must send."""

    path: str
    body: Any
    headers: dict[str, str] | None = None


class Reply(Strict):
    """The provider's reply, as JSON or as a text."""

    status: int
    headers: dict[str, str] = {}
    body: Any = UNSET
    text: str | UnsetType = UNSET


class Result(Strict):
    """The result that the adapter must return."""

    vectors: list[list[float]]
    tokens: int | UnsetType | None = UNSET


class Failure(Strict):
    """The failure that the adapter must return. Only fields that are set are compared."""

    kind: FailureKind | UnsetType = UNSET
    billed: Billable | UnsetType = UNSET
    retry_after_s: float | UnsetType | None = UNSET
    item: int | UnsetType | None = UNSET
    of_tokens: bool | UnsetType = UNSET


class Case(Strict):
    """The content of a file."""

    source: str
    """Where this is documented. Begins with "not found" or "made up" if nowhere."""
    reply: Reply
    date: dt.date | None = None
    """When the source was published, or else read; None without a source."""
    request: Request = Request()
    call: Call | None = None
    """None if the file has only a reply."""
    variables: dict[str, str] = {}
    result: Result | None = None
    error: Failure | None = None


def read(path: Path) -> Case:
    case = msgspec.json.decode(path.read_bytes(), type=Case)
    assert (case.result is None) != (case.error is None)
    assert (case.reply.body is UNSET) != (case.reply.text is UNSET)
    return case


def adapter_of(path: Path, case: Case) -> Adapter:
    row = ROWS[path.parent.name]
    module, _, name = row.adapter.partition(":")
    adapter = getattr(importlib.import_module(module), name)
    return adapter(row, {**row.defaults, **case.variables})


def deployment_of(kind: str, name: str) -> Deployment:
    """Return the catalog's deployment of this name at this kind of provider, or a new one."""
    deployments = (
        Deployment(model, each)
        for model in read_packaged()
        for each in model.deployments
        if each.provider == kind
    )
    new = Deployment(Model(id=name), DeploymentSpec(provider=kind))
    return next((each for each in deployments if each.upstream_name == name), new)


def batch_of(path: Path, request: Request) -> Batch:
    """Return the batch that the gateway makes of a request for this deployment."""
    deployment = deployment_of(path.parent.name, request.model)
    words = ROWS[path.parent.name].fields.input_types
    abilities = EngineAbilities(token_ids=True, input_types=frozenset(words))
    input_type = deployment.effective_input_type(request.input_type, abilities)
    prompt = deployment.prompt(input_type)
    items = [prompt + each if isinstance(each, str) else each for each in request.input]
    return Batch(
        model=request.model,
        base_model=request.base_model,
        items=cast("Items", items),
        tokens=[1] * len(request.input),
        dimensions=request.dimensions,
        input_type=deployment.forwarded_input_type(input_type),
        input_types=deployment.spec.input_types,
        truncate=request.truncate,
        user=request.user,
        extra={**deployment.spec.parameters, **request.extra_body},
    )


def failure(adapter: Adapter, reply: HttpReply, batch: Batch) -> ProviderError:
    if not reply.is_success:
        return adapter.decode_error(reply)
    with pytest.raises(ProviderError) as caught:
        adapter.decode(reply, batch)
    return caught.value


def canonical(value: Any) -> str:
    """Return JSON text, in which `true` differs from 1."""
    return json.dumps(value, sort_keys=True)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_file(path: Path) -> None:
    """The adapter sends the file's call, always with the same bytes, and reads its reply."""
    case = read(path)
    adapter, batch = adapter_of(path, case), batch_of(path, case.request)
    call = adapter.encode(batch)
    if case.call is not None:
        assert (call.method, call.path) == ("POST", case.call.path)
        assert canonical(json.loads(call.body)) == canonical(case.call.body)
        if case.call.headers is not None:
            assert call.headers == case.call.headers
    assert adapter_of(path, case).encode(batch_of(path, case.request)) == call
    text = case.reply.text
    body = msgspec.json.encode(case.reply.body) if text is UNSET else text.encode()
    headers = {name.lower(): value for name, value in case.reply.headers.items()}
    reply = HttpReply(status=case.reply.status, headers=headers, body=body)
    if case.error is not None:
        error = failure(adapter, reply, batch)
        expected = msgspec.structs.asdict(case.error)
        expected = {name: value for name, value in expected.items() if value is not UNSET}
        assert {name: getattr(error, name) for name in expected} == expected
        return
    assert reply.is_success
    result = adapter.decode(reply, batch)
    assert case.result is not None
    assert result.vectors.dtype == np.float32
    assert result.vectors.tolist() == case.result.vectors
    if case.result.tokens is not UNSET:
        assert result.tokens == case.result.tokens


def required(name: str) -> set[str]:
    row = ROWS[name]
    cases = OWN | {"bad_key"} if row.own_server and row.key_variables else OWN
    return {case for case in (cases if row.own_server else REFUSALS) if (name, case) not in NEVER}


@pytest.mark.parametrize("name", ROWS)
def test_each_kind_has_files(name: str) -> None:
    """Each kind has files for a batch, for each of its input types and for each refusal."""
    cases = {path.stem: read(path) for path in FILES if path.parent.name == name}
    results = [case for case in cases.values() if case.result]
    assert any(case.result and len(case.result.vectors) > 1 for case in results)
    types = {case.request.input_type for case in results}
    assert ROWS[name].fields.input_types.keys() <= types
    for refusal in required(name):
        error = cases[refusal].error
        assert error is not None, refusal
        assert error.kind in REFUSALS[refusal], refusal


def test_sources() -> None:
    """Each file names its source and its date, or is listed in `NOT_FOUND`."""
    unseen: dict[str, set[str]] = {}
    for path in FILES:
        case = read(path)
        if case.source.startswith("not found"):
            unseen.setdefault(path.parent.name, set()).add(path.stem)
        has_no_source = case.source.startswith(("not found", "made up"))
        assert (case.date is None) == has_no_source, path
        assert case.date is None or case.date > dt.date(2020, 1, 1), path
    assert unseen == {name: set(cases.split()) for name, cases in NOT_FOUND.items()}


def batches(name: str) -> list[tuple[Adapter, Batch, Reply, Result]]:
    """Return the adapter, batch, reply and result of each file that has a result."""
    cases = [(path, read(path)) for path in FILES if path.parent.name == name]
    return [
        (adapter_of(path, case), batch_of(path, case.request), case.reply, case.result)
        for path, case in cases
        if case.result
    ]


def numbers(value: Any) -> Any:
    """Return the same JSON with vectors as numbers instead of base64."""
    if isinstance(value, dict):
        # Cohere's protocol names the encoding.
        return {
            "float" if name == "base64" else name: numbers(each) for name, each in value.items()
        }
    if isinstance(value, list):
        return [numbers(each) for each in value]
    if isinstance(value, str) and BASE64.fullmatch(value):
        return np.frombuffer(b64decode(value), "<f4").tolist()
    return value


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.fields.base64])
def test_base64_and_numbers(name: str) -> None:
    """A provider that is asked for base64 may answer with base64 or with numbers."""
    files = batches(name)
    assert any(numbers(reply.body) != reply.body for _, _, reply, _ in files)
    for adapter, batch, reply, result in files:
        body = msgspec.json.encode(numbers(reply.body))
        headers = {each.lower(): value for each, value in reply.headers.items()}
        decoded = adapter.decode(HttpReply(status=200, headers=headers, body=body), batch)
        assert decoded.vectors.tolist() == result.vectors


@pytest.mark.parametrize("name", ROWS)
def test_a_broken_body(name: str) -> None:
    """A reply that breaks off anywhere is malformed and billed."""
    adapter, batch, reply, _ = batches(name)[0]
    body = msgspec.json.encode(reply.body)
    for end in range(len(body)):
        error = failure(adapter, HttpReply(status=200, headers={}, body=body[:end]), batch)
        assert (error.kind, error.billed) == ("malformed", "yes")


def test_each_file_is_read() -> None:
    """Every file in the folder belongs to a kind of provider."""
    assert set(FILES) == {path for path in FOLDER.rglob("*") if path.is_file()}
    assert {path.parent.name for path in FILES} <= ROWS.keys()


@pytest.mark.parametrize(
    "path", {path.parent: path for path in FILES}.values(), ids=lambda path: path.parent.name
)
@pytest.mark.parametrize("model", ["..", ".", "../m", "a/../../m", "m?a=b", "m#a", "m\r\n"])
def test_a_model_leads_nowhere_else(path: Path, model: str) -> None:
    """No name of a model can redirect a call to another path."""
    case = read(path)
    adapter, batch = adapter_of(path, case), batch_of(path, case.request)
    usual = urlsplit(adapter.encode(batch).path)
    try:
        call = adapter.encode(msgspec.structs.replace(batch, model=model))
    except InvalidRequest:
        return
    found = urlsplit(call.path)
    assert (found.query, found.fragment) == (usual.query, "")
    assert {".", ".."}.isdisjoint(found.path.split("/"))
    assert call.path.isascii() and call.path.isprintable()
