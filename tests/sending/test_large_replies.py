"""A large reply is decoded in turns, with the same result or the same error as a small one."""

import asyncio
import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_replies import BATCH, BODIES, MODELS, Replying, embedded, speaking

from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import ServiceOverloaded
from embedway.core.in_flight import reply_bytes
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, HttpReply
from embedway.providers.adapter import Adapter
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.credentials import StaticKeys
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS
from embedway.providers.reply_memory import BYTES_PER_NUMBER
from embedway.providers.split import LARGE_BYTES

PADDING = b" " * LARGE_BYTES
"""Makes any body a large one, and changes nothing in it."""
WIDTH = 160
"""Wide enough for a vector in base64 to be taken out of a large reply."""
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-9, 10**20)


def outcome(name: str, reply: HttpReply, batch: Batch = BATCH) -> Any:
    """Return what comes of a reply, in a form that can be compared."""
    batch = msgspec.structs.replace(batch, model=MODELS.get(name, "m"), width=None)
    result = embedded(speaking(name, Replying(reply)), batch)
    if isinstance(result, ProviderError):
        return result.kind, result.billed, result.status, result.item
    return result.vectors.shape, result.vectors.tobytes(), result.tokens, result.model


def agree(name: str, reply: HttpReply, batch: Batch = BATCH) -> Any:
    """Require the same outcome for a reply when it is large; return it."""
    small = outcome(name, reply, batch)
    large = outcome(name, msgspec.structs.replace(reply, body=PADDING + reply.body), batch)
    assert large == small
    return small


@st.composite
def values(draw: st.DrawFn, *, width: int) -> tuple[bytes, str]:
    """Draw one vector as JSON, and what it is."""
    kind = draw(st.sampled_from(("floats", "floats", "base64", "base64", "odd")))
    seed = draw(st.integers(0, 99))
    vector = np.random.default_rng(seed).standard_normal(width).astype("<f4")
    if kind == "floats":
        few = [*draw(st.lists(numbers, max_size=3)), *vector.tolist()][:width]
        gap = draw(st.sampled_from((", ", ",", " ,\n\t")))
        return f"[{gap.join(map(repr, few))}]".encode(), kind
    if kind == "base64":
        text = base64.b64encode(vector).decode()
        text = draw(st.sampled_from((text, text.replace("/", "\\/"), text.replace("+", "\\u002B"))))
        return f'"{text}"'.encode(), kind
    odd = (
        *("null", "[]", "[null]", "[NaN, 1.0]", "[1.0, [2.0]]", '[1.0, "a"]', "[1e999]", "[01]"),
        *("[[1.0, 2.0]]", "{}", "true", '"#0"', f'"{"é" * 600}"', f'"{"A" * 601}"'),
        *('"AACAPwAAgD8="', '"' + "a\\\\" * 400 + '"', "[1.0", "[0]", "[" * 9 + "]" * 9),
    )
    return draw(st.sampled_from(odd)).encode(), kind


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a body in OpenAI's shape, or nearly so."""
    width = draw(st.sampled_from((2, WIDTH)))
    same = draw(st.booleans())
    kinds: set[str] = set()
    entries: list[bytes] = []
    for index in range(draw(st.sampled_from((2, 2, 2, 1, 3)))):
        value, kind = draw(values(width=width))
        while same and len(kinds | {kind}) > 1:
            value, kind = draw(values(width=width))
        kinds.add(kind)
        shown = draw(st.sampled_from((index, index, index, 1 - index, 0, None)))
        fields = [b'"object":"embedding"', b'"index" : ' + json.dumps(shown).encode()]
        fields += [b'"embedding":' + value]
        extra = (b'"note":"]\\"[1.0]"', b'"span":[1,2]', b'"embedding":[1.0,2.0]', b'"x":{"y":[]}')
        fields += draw(st.lists(st.sampled_from(extra), max_size=2))
        entries.append(b"{" + b" ,".join(draw(st.permutations(fields))) + b"}")
    model = draw(st.sampled_from((b'"m"', b"[1.5]", b'"' + b"Q-" * 400 + b'"', b"null")))
    members = [b'"data":[' + b",\n".join(entries) + b"]", b'"model":' + model]
    members += [b'"usage":{"prompt_tokens":%d}' % draw(st.integers(0, 9))]
    body = b"{" + b",".join(draw(st.permutations(members))) + b"}"
    if draw(st.integers(0, 4)) == 0:  # broken somewhere
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.sampled_from((b"", b'"', b"]", b"\\", b"\xff", body[at + 1 :])))
    return body


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(("openai", "perplexity")), body=bodies())
def test_large_replies_of_one_shape(name: str, body: bytes) -> None:
    """Whatever the vectors and the order of the fields are, a large reply means the same."""
    agree(name, HttpReply(status=200, headers={}, body=body))


@settings(max_examples=150, deadline=None)
@example(name="huggingface", body=b"[[],[]]", status=200)
@example(name="tei", body=b"[[1.5, 2.5],[3.5, 4.5]]", status=200)
@given(name=st.sampled_from(sorted(ROWS)), body=BODIES, status=st.sampled_from((200, 400, 500)))
def test_large_replies_of_anything(name: str, body: bytes, status: int) -> None:
    """Whatever a body holds, it means the same when it is large, with every status."""
    agree(name, HttpReply(status=status, headers={}, body=body))


@pytest.mark.parametrize("base64_", [False, True], ids=["floats", "base64"])
def test_vectors_in_order(base64_: bool) -> None:
    """Each vector is in its place, though the reply lists them backwards and repeats texts."""
    vectors = np.random.default_rng(7).standard_normal((300, 200)).astype("<f4")
    data = [
        {
            "index": index,
            "text": f'quote " and [bracket] {index}, ' * 20,
            "embedding": base64.b64encode(row).decode() if base64_ else row.tolist(),
        }
        for index, row in reversed(list(enumerate(vectors)))
    ]
    batch = Batch(model="m", items=["a" * 600] * 300, tokens=[1] * 300, width=200)
    reply = HttpReply(status=200, headers={}, body=json.dumps({"data": data}, indent=1).encode())
    result = embedded(speaking("openai", Replying(reply)), batch)
    assert isinstance(result, BatchResult)
    assert np.array_equal(result.vectors, vectors)


HOSTILE = {
    "empty arrays": b'{"data":[' + b"[]," * 3_000_000 + b"[]]}",
    "empty objects": b'{"data":[' + b"{}," * 3_000_000 + b"{}]}",
    "deep": b'{"data":' + b"[" * 8_000_000,
    "deep, after numbers": b'{"data":' + b"[1," * 3_000_000,
    "short strings": b'{"data":[' + b'"a",' * 2_000_000 + b'""]}',
    "escaped strings": b'{"data":[' + b'"\\"",' * 2_000_000 + b'""]}',
    "one string": b'{"data":["' + b"\\u1234" * 2_000_000 + b'"]}',
    "no end of a string": b'{"data":["' + b"a" * 8_000_000,
    "names": b"{" + b'"a":1,' * 2_000_000 + b'"a":1}',
    "one array": b'{"data":[' + b"1," * 4_000_000 + b"1]}",
    "spaces": b" " * 8_000_000 + b"{}",
    "digits": b"1" * 8_000_000,
}


class Weighing:
    """An adapter for OpenAI's protocol that notes how much it has to decode."""

    def __init__(self) -> None:
        self._adapter = OpenAi(ROWS["openai"], {})
        self.most = 0

    def encode(self, batch: Batch) -> HttpCall:
        return self._adapter.encode(batch)

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        self.most = max(self.most, len(reply.body))
        return self._adapter.decode(reply, batch)

    def decode_error(self, reply: HttpReply) -> ProviderError:
        self.most = max(self.most, len(reply.body))
        return self._adapter.decode_error(reply)


def weighed(reply: HttpReply, adapter: Adapter) -> Provider:
    declared = ProviderConfig(name="openai", row=ROWS["openai"], base_url="http://x")
    return Provider(
        declared, adapter=adapter, credentials=StaticKeys(["k"]), transport=Replying(reply)
    )


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_replies(body: bytes, status: int) -> None:
    """A reply that would take long to decode is refused before an adapter decodes it."""
    batch = Batch(model="m", items=["a"] * 256, tokens=[1] * 256, width=1536)
    adapter = Weighing()
    result = embedded(weighed(HttpReply(status=status, headers={}, body=body), adapter), batch)
    assert isinstance(result, ProviderError)
    assert (result.kind, result.billed) == (
        ("malformed", "yes") if status == 200 else ("failed", "maybe")
    )
    assert adapter.most < 2**20


def test_the_event_loop_gets_turns() -> None:
    """While a large reply is decoded, other tasks run, and the adapter gets only a small rest."""
    vectors = np.random.default_rng(3).standard_normal((512, 1536)).astype("<f4")
    data = [{"index": index, "embedding": row.tolist()} for index, row in enumerate(vectors)]
    reply = HttpReply(status=200, headers={}, body=json.dumps({"data": data}).encode())
    batch = Batch(model="m", items=["a"] * 512, tokens=[1] * 512, width=1536)
    adapter = Weighing()

    async def embed() -> tuple[BatchResult, int]:
        turns = 0
        embedding = asyncio.ensure_future(weighed(reply, adapter).embed(batch))
        while not embedding.done():
            await asyncio.sleep(0)
            turns += 1
        return embedding.result(), turns

    result, turns = asyncio.run(embed())
    assert np.array_equal(result.vectors, vectors)
    assert adapter.most < LARGE_BYTES
    assert turns > 8  # one for each MB, at the very least


class Careless(Weighing):
    """An adapter that reads the vectors by itself."""

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        data = json.loads(reply.body)["data"]
        return BatchResult(vectors=np.array([each["embedding"] for each in data], np.float32))


def test_stand_ins_are_never_taken_for_vectors() -> None:
    """If an adapter reads the vectors by itself, a large reply fails, and a small one does not."""
    entries = [{"embedding": [0.5, 1.5]}, {"embedding": [2.5, 3.5]}]
    body = json.dumps({"data": entries}).encode()
    small = HttpReply(status=200, headers={}, body=body)
    large = HttpReply(status=200, headers={}, body=PADDING + body)
    assert isinstance(embedded(weighed(small, Careless()), BATCH), BatchResult)
    failed = embedded(weighed(large, Careless()), BATCH)
    assert isinstance(failed, ProviderError)
    assert failed.kind == "malformed"


class Counted:
    """Counts the bytes of replies, up to a limit for the first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.highest = 0

    def reserve(self, size: int) -> None:
        if size > self.most:
            raise ServiceOverloaded("No room.")
        self.change(size)

    def change(self, size: int) -> None:
        self.bytes += size
        self.highest = max(self.highest, self.bytes)


def test_replies_are_counted() -> None:
    """A reply counts as held from before the call; a failed one does not stay counted."""
    batch = Batch(model="m", items=["a"] * 64, tokens=[1] * 64, width=1536)
    row = json.dumps({"embedding": [0.123456789012345678] * 1536}).encode()
    body = b'{"data":[' + b",".join([row] * 64) + b"]}"
    expected = 64 * 1536 * BYTES_PER_NUMBER
    assert len(body) > expected
    calls = Replying(HttpReply(status=200, headers={}, body=body))
    counted = Counted(most=expected)
    reply_bytes.set(counted)
    assert isinstance(embedded(speaking("openai", calls), batch), BatchResult)
    assert (counted.bytes, counted.highest) == (len(body), len(body))
    failing = Replying(HttpReply(status=500, headers={}, body=b"{}"))
    assert isinstance(embedded(speaking("openai", failing), batch), ProviderError)
    assert (counted.bytes, counted.highest) == (len(body), len(body) + expected)
    reply_bytes.set(Counted(most=expected - 1))
    with pytest.raises(ServiceOverloaded):
        embedded(speaking("openai", calls), batch)
    assert calls.calls == 1
    reply_bytes.set(None)
