"""What each kind of provider is sent and what is made of its replies, by files from its documents.

A file is `tests/wire/<row>/<case>.json`; what it may hold is `Case`.
"""

import importlib
import json
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
from msgspec import UNSET, UnsetType

from embedway.core.batch import Batch, Items
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import Billed, Kind, ProviderError
from embedway.core.request import InputType, Truncate
from embedway.providers.adapter import Adapter, Reply
from embedway.providers.registry import ROWS

FOLDER = Path(__file__).parent / "wire"
FILES = sorted(FOLDER.glob("*/*.json"))


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Has no field that is not read."""


class Asked(Strict):
    """What the gateway asks the adapter for."""

    model: str
    input: list[str | list[int]]
    base_model: str = ""
    dimensions: int | None = None
    input_type: InputType | None = None
    truncate: Truncate = "none"
    user: str | None = None
    extra_body: dict[str, Any] = {}


class Call(Strict):
    """What the adapter is to send."""

    path: str
    body: Any
    headers: dict[str, str] | None = None


class Answered(Strict):
    """What the provider answers: JSON, or a text that is none."""

    status: int
    headers: dict[str, str] = {}
    body: Any = UNSET
    text: str | UnsetType = UNSET


class Result(Strict):
    """What the adapter is to make of it."""

    vectors: list[list[float]]
    tokens: int | UnsetType | None = UNSET


class Failure(Strict):
    """Likewise, of a failure; only what is given is compared."""

    kind: Kind | UnsetType = UNSET
    billed: Billed | UnsetType = UNSET
    retry_after_s: float | UnsetType | None = UNSET
    item: int | UnsetType | None = UNSET
    of_tokens: bool | UnsetType = UNSET


class Case(Strict):
    """A file."""

    source: str
    request: Asked
    call: Call
    reply: Answered
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
    made = getattr(importlib.import_module(module), name)
    return made(row, {**row.defaults, **case.variables})


def batch_of(asked: Asked) -> Batch:
    return Batch(
        model=asked.model,
        base_model=asked.base_model,
        items=cast("Items", asked.input),
        tokens=[1] * len(asked.input),
        dimensions=asked.dimensions,
        input_type=asked.input_type,
        truncate=asked.truncate,
        user=asked.user,
        extra=asked.extra_body,
    )


def failure(adapter: Adapter, reply: Reply, batch: Batch) -> ProviderError:
    if not reply.ok:
        return adapter.error(reply)
    with pytest.raises(ProviderError) as caught:
        adapter.decode(reply, batch)
    return caught.value


def canonical(value: Any) -> str:
    """As text, in which `true` is not 1."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_file(path: Path) -> None:
    """A batch goes out, always in the same bytes, and its reply comes in, as the file says."""
    case = read(path)
    adapter, batch = adapter_of(path, case), batch_of(case.request)
    call = adapter.encode(batch)
    assert (call.method, call.path) == ("POST", case.call.path)
    assert canonical(json.loads(call.body)) == canonical(case.call.body)
    if case.call.headers is not None:
        assert call.headers == case.call.headers
    assert adapter_of(path, case).encode(batch_of(case.request)) == call
    text = case.reply.text
    body = msgspec.json.encode(case.reply.body) if text is UNSET else text.encode()
    headers = {name.lower(): value for name, value in case.reply.headers.items()}
    reply = Reply(status=case.reply.status, headers=headers, body=body)
    if case.error is not None:
        error = failure(adapter, reply, batch)
        expected = msgspec.structs.asdict(case.error)
        given = {name: value for name, value in expected.items() if value is not UNSET}
        assert {name: getattr(error, name) for name in given} == given
        return
    assert reply.ok
    result = adapter.decode(reply, batch)
    assert case.result is not None
    assert result.vectors.dtype == np.float32
    assert result.vectors.tolist() == case.result.vectors
    if case.result.tokens is not UNSET:
        assert result.tokens == case.result.tokens


@pytest.mark.parametrize("name", ROWS)
def test_each_kind_has_files(name: str) -> None:
    """Each kind of provider has a file of a result and one of an error."""
    cases = [read(path) for path in FILES if path.parent.name == name]
    assert any(case.result for case in cases)
    assert any(case.error for case in cases)


def test_each_file_is_read() -> None:
    """Everything below the folder is a file of some kind of provider."""
    assert set(FILES) == {path for path in FOLDER.rglob("*") if path.is_file()}
    assert {path.parent.name for path in FILES} <= ROWS.keys()


@pytest.mark.parametrize(
    "path", {path.parent: path for path in FILES}.values(), ids=lambda path: path.parent.name
)
@pytest.mark.parametrize("model", ["..", ".", "../m", "a/../../m", "m?a=b", "m#a", "m\r\n"])
def test_a_model_leads_nowhere_else(path: Path, model: str) -> None:
    """However a client calls a model, the call goes where it would go for any other, or nowhere."""
    case = read(path)
    adapter, batch = adapter_of(path, case), batch_of(case.request)
    usual = urlsplit(adapter.encode(batch).path)
    try:
        call = adapter.encode(msgspec.structs.replace(batch, model=model))
    except InvalidRequest:
        return
    found = urlsplit(call.path)
    assert (found.query, found.fragment) == (usual.query, "")
    assert {".", ".."}.isdisjoint(found.path.split("/"))
    assert call.path.isascii() and call.path.isprintable()
