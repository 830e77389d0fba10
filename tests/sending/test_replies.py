"""Any reply of a provider, and any failure before a call, ends in vectors or a clear failure."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedway.core import vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import Transport
from embedway.providers import provider
from embedway.providers.credentials import Credentials, StaticKeys
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

VARIABLES = {"project_id": "p", "account_id": "a", "project": "p", "region": "eu-west-1"}
MODELS = {"bedrock": "cohere.embed-english-v3"}
BATCH = Batch(model="m", items=["a", "b"], tokens=[1, 1], width=2)
WORDS = (
    *("data", "embedding", "embeddings", "values", "float", "index", "usage", "total_tokens"),
    *("prompt_tokens", "error", "message", "code", "status", "errors", "detail", "predictions"),
    *("result", "results", "object", "model", "meta", "billed_units", "input_tokens", "type"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**18, 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "AACAPwAAgD8=", "rate_limit", *WORDS])
    | st.text(max_size=8),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(WORDS), each, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=60) | JSON.map(json.dumps).map(str.encode)
VALUES = st.text(max_size=20) | st.sampled_from(
    ["0", "9" * 5000, "-1", "1e999", "nan", "Sat, 01 Jan 100000000000 00:00:00 GMT", "6m0s"]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        (
            *("retry-after", "retry-after-ms", "x-compute-tokens", "x-amzn-errortype"),
            *("x-ratelimit-remaining", "x-ratelimit-reset", "x-amzn-bedrock-input-token-count"),
        )
    ),
    VALUES,
)
REPLIES = st.builds(HttpReply, status=st.integers(200, 599), headers=HEADERS, body=BODIES)


class Replying:
    """A transport that always gives the same reply."""

    def __init__(self, reply: HttpReply) -> None:
        self.reply = reply
        self.calls = 0

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        self.calls += 1
        return self.reply

    async def aclose(self) -> None:
        """Close nothing."""


class Broken:
    """Credentials that fail with an unexpected exception."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        raise self.failure

    def refused(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        return False

    async def aclose(self) -> None:
        """Close nothing."""


def speaking(name: str, transport: Transport, signer: Credentials | None = None) -> Provider:
    """Build the provider, with another transport."""
    row = ROWS[name]
    variables = {each: VARIABLES[each] for each in row.variables if each in VARIABLES}
    declared = ProviderConfig(
        name=name, row=row, keys=["k"], base_url="http://x", variables=variables
    )
    return Provider(
        declared,
        adapter=provider.load_object(row.adapter)(row, declared.values),
        credentials=signer or StaticKeys(["k"]),
        transport=transport,
    )


def embedded(engine: Provider, batch: Batch) -> BatchResult | ProviderError:
    try:
        return asyncio.run(engine.embed(batch))
    except ProviderError as error:
        return error


def asked(engine: Provider, batch: Batch = BATCH) -> BatchResult | ProviderError:
    """Embed a batch and check the vectors, which shows no status."""
    result = embedded(engine, batch)
    if isinstance(result, ProviderError):
        return result
    try:
        vectors.check_vectors(result.vectors, items=len(batch.items), dimensions=batch.width)
    except ProviderError as error:
        return error
    return result


@settings(max_examples=150, deadline=None)
@example(name="huggingface", reply=HttpReply(status=200, headers={}, body=b"[[],[]]"))
@given(name=st.sampled_from(sorted(ROWS)), reply=REPLIES)
def test_replies_of_anything(name: str, reply: HttpReply) -> None:
    """Any status, headers and body end in the requested vectors or in a `ProviderError`."""
    batch = msgspec.structs.replace(BATCH, model=MODELS.get(name, "m"))
    engine = speaking(name, Replying(reply))
    result = embedded(engine, batch)
    if isinstance(result, ProviderError):
        assert result.status == reply.status
    outcome = asked(engine, batch)
    if isinstance(outcome, ProviderError):
        assert outcome.was_sent
        assert outcome.client_error(model="m").status in range(400, 600)


class Odd:
    """A third-party adapter with a defect."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def encode(self, batch: Batch) -> HttpCall:
        return HttpCall(path="/x")

    def decode(self, reply: HttpReply, batch: Batch) -> Any:
        raise self.failure

    def decode_error(self, reply: HttpReply) -> Any:
        raise self.failure


FAILURES = [
    OverflowError("year"), KeyError("x"), RecursionError(), RuntimeError(), MemoryError(),
    AssertionError(), InvalidRequest("no such field"), Exception("anything"),
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(("status", "billed"), [(200, "yes"), (429, "maybe"), (500, "maybe")])
def test_an_adapter_that_breaks(failure: Exception, status: int, billed: str) -> None:
    """A reply that breaks the adapter counts as malformed and fails over."""
    reply = HttpReply(status=status, headers={}, body=b"{}")
    declared = ProviderConfig(name="openai", row=ROWS["openai"], base_url="http://x")
    engine = Provider(
        declared, adapter=Odd(failure), credentials=StaticKeys(["k"]), transport=Replying(reply)
    )
    outcome = asked(engine)
    assert isinstance(outcome, ProviderError)
    assert (outcome.kind, outcome.billed, outcome.can_fail_over) == ("malformed", billed, True)
    assert outcome.__cause__ is failure


@pytest.mark.parametrize(
    "failure", [OverflowError("year"), RuntimeError(), ProviderError("timeout")]
)
def test_credentials_that_cannot_be_had(failure: Exception) -> None:
    """Without credentials nothing is sent, and the request may fail over."""
    transport = Replying(HttpReply(status=200, headers={}, body=b"{}"))
    outcome = asked(speaking("openai", transport, Broken(failure)))
    assert isinstance(outcome, ProviderError)
    assert (outcome.was_sent, outcome.can_fail_over) == (False, True)
    assert transport.calls == 0


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_be_said(name: str) -> None:
    """Fields that the gateway decides are refused before anything is sent."""
    transport = Replying(HttpReply(status=200, headers={}, body=b"{}"))
    batch = msgspec.structs.replace(BATCH, model=MODELS.get(name, "m"), extra={"stream": True})
    with pytest.raises(InvalidRequest, match="'stream'"):
        asked(speaking(name, transport), batch)
    assert transport.calls == 0


def test_what_is_nested_too_deeply() -> None:
    """A value too deeply nested to encode is refused, and nothing is sent."""
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    transport = Replying(HttpReply(status=200, headers={}, body=b"{}"))
    batch = msgspec.structs.replace(BATCH, extra={"a": deep})
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        asked(speaking("openai", transport), batch)
    assert transport.calls == 0
