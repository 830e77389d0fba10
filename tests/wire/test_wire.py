"""Properties of decoding, encoding, cutting and costs, for any input."""

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial

import httpx
import msgspec
import numpy as np
import pytest
from conftest import Gateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.core import money
from embedway.core.errors import InvalidRequest
from embedway.core.request import DEFAULT_MAX_ITEMS, MAX_CHARACTERS, EmbedRequest, normalise_name
from embedway.tokenizing.truncate import truncate_ids
from embedway.wire import decode as wire_decode
from embedway.wire import error as wire_error
from embedway.wire.decode import PROTECTED
from embedway.wire.encode import SLICE_VALUES, ResponseHead, encode

decode = partial(wire_decode.decode, max_items=DEFAULT_MAX_ITEMS)

steady = settings(derandomize=True, deadline=None, max_examples=100)
few = settings(steady, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Any characters, including NUL and halves of surrogate pairs.
text = st.text(st.characters(exclude_categories=()), max_size=12)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 2**64, 10**400, 10**4299, -(10**4299), -0.0]),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)
token_lists = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4)
inputs = st.one_of(
    st.text(min_size=1, max_size=8),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4),
    token_lists,
    st.lists(token_lists, min_size=1, max_size=3),
)
OPTIONAL = {
    "model": st.sampled_from(["auto", "all-minilm-l6-v2", "openai:text-embedding-3-small"]),
    "encoding_format": st.sampled_from(["float", "base64", None]),
    "dimensions": st.one_of(st.none(), st.integers(1, 4096)),
    "user": st.one_of(st.none(), st.just("u1")),
    "metadata": st.dictionaries(st.sampled_from(["a", "b"]), st.just("c")),
    "extra_body": st.dictionaries(st.sampled_from(["task", "late"]), st.just([{"a": 0.5}])),
    "preference": st.sampled_from(["balanced", "speed", "cost"]),
    "allowed_providers": st.one_of(st.none(), st.just(["embedway"])),
    "eu_native": st.booleans(),
    "allow_quantization": st.booleans(),
    "zdr": st.booleans(),
    "fallbacks": st.sampled_from([[], ["auto"]]),
    "input_type": st.sampled_from([None, "query", "document"]),
    "truncate": st.sampled_from(["none", "end", "start"]),
}
requests = st.fixed_dictionaries({"input": inputs}, optional=OPTIONAL)
# One field, known or not, is replaced by any value.
near_requests = st.builds(
    lambda request, name, value: request | {name: value},
    requests,
    st.one_of(st.sampled_from([*EmbedRequest.__struct_fields__, *PROTECTED]), text),
    anything,
)
# Literals that JSON allows but no number or text type can hold, in any place.
literals = st.sampled_from(
    [
        *(b"1e999", b"-1e999", b"1" * 400, b"1" * 5000, b"-0", b"1e-999", b"NaN", b"01"),
        *(rb'"\ud800"', rb'"\u0000"', b'"', b"\xff", b'{"a":1,"a":2}'),
        *(b"[" * 2000, b"[" * 2000 + b"]" * 2000),
    ]
)
PLACE = "@place@"
places = st.recursive(
    st.just(PLACE),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(["a", PLACE]), inner, min_size=1),
    ),
    max_leaves=2,
)
bodies = st.one_of(
    st.builds(
        lambda value, literal: json.dumps(value).encode().replace(f'"{PLACE}"'.encode(), literal),
        st.one_of(
            places,
            st.builds(
                lambda request, name, value: request | {name: value},
                requests,
                st.sampled_from([*EmbedRequest.__struct_fields__, "task", PLACE]),
                places,
            ),
        ),
        literals,
    ),
    st.binary(max_size=200),
    st.builds(lambda value: json.dumps(value).encode(), st.one_of(anything, near_requests)),
    st.builds(
        lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"),
        near_requests,
    ),
    st.builds(
        lambda value, at, byte: (
            (body := json.dumps(value).encode())[: at % len(body)]
            + byte
            + body[at % len(body) + 1 :]
        ),
        requests,
        st.integers(0, 1000),
        st.binary(max_size=2),
    ),
)


def assert_error(body: bytes) -> None:
    """Assert that the body is a short error of the usual shape."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000


@steady
@given(bodies)
def test_decode(body: bytes) -> None:
    """Any bytes give a request within all limits or a 400 of the usual shape."""
    try:
        request = decode(body)
    except InvalidRequest as error:
        assert_error(wire_error.encode_error(error))
        return
    assert 1 <= len(request.items) <= DEFAULT_MAX_ITEMS
    assert len({type(item) for item in request.items}) == 1
    assert all(1 <= len(item) <= MAX_CHARACTERS for item in request.items)
    assert not PROTECTED & {name.lower() for name in request.extra_body}
    stored = [request.model, request.user or "", *request.metadata, *request.metadata.values()]
    assert not any("\0" in value for value in stored)
    assert msgspec.json.encode(decode(msgspec.json.encode(request))) == msgspec.json.encode(request)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"1e999", "a number"),
        (b"\n -1e999 ", "a number"),
        (b"9" * 400, "a number"),
        (b"-1", "a number"),
        (b"0.5", "a number"),
        (b'\t"a"', "a string"),
        (b"[1e999]", "an array"),
        (b"true", "a boolean"),
        (b"false", "a boolean"),
        (b"null", "null"),
    ],
)
def test_no_object(client: httpx.Client, body: bytes, kind: str) -> None:
    """A JSON body that is not an object is refused, with the kind of value it is."""
    answer = client.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert f"must be a JSON object, not {kind}." in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"input":"a","input":"b"}', "input"),
        (b'{"input":"a","input":"a"}', "input"),
        (b'{ "input" : "a" , "model" : "auto" , "inp\\u0075t" : "a" }', "input"),
        (b'{"x":{"x":1},"input":"a","x":{"x":1}}', "x"),
        (b'{"input":"a","user":null,"user":"u"}', "user"),
        (b'{"input":"a","extra_body":{"\\"":1,"task":1,"\\"":2}}', '"'),
        (b'{"input":"a","metadata":{"team":"a","team":"b"}}', "team"),
    ],
)
def test_sent_twice(client: httpx.Client, body: bytes, name: str) -> None:
    """A repeated field is refused by name, with and without spaces and escapes."""
    answer = client.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"][-26:]) == (name, "is there twice. Send it once."[-26:])


@pytest.mark.parametrize("inside", [False, True], ids=["top level", "extra_body"])
def test_fields_for_the_provider(inside: bool) -> None:
    """At most 64 fields are sent on to a provider."""

    def body(fields: int) -> bytes:
        extra = {f"field_{number}": number for number in range(fields)}
        return json.dumps({"input": "a", **({"extra_body": extra} if inside else extra)}).encode()

    assert len(decode(body(64)).extra_body) == 64
    with pytest.raises(InvalidRequest, match="65 fields are too many"):
        decode(body(65))


@steady
@given(
    fields=st.dictionaries(st.text(min_size=1, max_size=12), anything, max_size=4),
    spaces=st.sampled_from([None, 2, "\t"]),
)
def test_sent_once(fields: dict, spaces: int | str | None) -> None:
    """However an object is formatted, fields that are there once are accepted."""
    body = json.dumps({"input": "a", "extra_body": fields}, indent=spaces).encode()
    try:
        request = decode(body)
    except InvalidRequest as error:
        assert "twice" not in error.message  # noqa: PT017  # it may be refused for another reason
    else:
        assert request.extra_body.keys() == fields.keys()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *(("modle", "model"), ("models", "model"), ("model_id", "model"), ("modelName", "model")),
        *(("inputs", "input"), ("imput", "input"), ("Input", "input"), ("dimension", "dimensions")),
        *(("dimention", "dimensions"), ("encoding_formt", "encoding_format"), ("usr", "user")),
        *(("encodingFormat", "encoding_format"), ("input_typ", "input_type"), ("users", "user")),
        *(("inputType", "input_type"), ("truncated", "truncate"), ("metdata", "metadata")),
        *(("fallback", "fallbacks"), ("extraBody", "extra_body"), ("preferences", "preference")),
        *(("eu-native", "eu_native"), ("allow_quantisation", "allow_quantization")),
        *(("zero_data_retention", "allow_zero_data_retention"), ("ZDR", "zdr")),
    ],
)
def test_near_names(name: str, ours: str) -> None:
    """A mistyped name of ours is refused at top level, but passed on inside `extra_body`."""
    with pytest.raises(InvalidRequest) as refused:
        decode(json.dumps({"input": "a", name: 1}).encode())
    assert refused.value.param == name
    assert f"Did you mean {ours!r}? " in refused.value.message
    assert "send it inside 'extra_body'" in refused.value.message
    if normalise_name(name) not in PROTECTED:
        sent = decode(json.dumps({"input": "a", "extra_body": {name: 1}}).encode())
        assert name in sent.extra_body


@pytest.mark.parametrize(
    "name",
    [
        *("add_special_tokens", "autoTruncate", "auto_truncate", "cache_salt"),
        *("dimensionality", "embed_dtype", "embedding_type", "embedding_types"),
        *("endianness", "fail_fast", "images", "instruct", "instruction", "keep_alive"),
        *("late_chunking", "long_text_mode", "max_batch", "max_tokens"),
        *("max_tokens_per_text", "modality", "normalize", "normalized", "options"),
        *("outputDimensionality", "output_dimension", "output_dtype", "padding"),
        *("parameters", "pooling", "priority", "prompt_cache_key", "prompt_name"),
        *("prompt_template", "provider", "query", "request_id", "return_dense"),
        *("return_logits", "return_multivector", "return_sparse", "safety_identifier"),
        *("service_tier", "store", "task", "taskType", "task_type", "text_type", "timeout"),
        *("title", "truncate_dim", "truncate_inputs", "truncate_prompt_tokens"),
        *("truncation", "truncation_direction", "truncation_side", "use_activation"),
        *("uses_embed_content", "wait_for_model"),
    ],
)
def test_names_of_providers(name: str) -> None:
    """Providers' own fields are not taken for mistyped fields of ours."""
    assert name in decode(json.dumps({"input": "a", name: 1}).encode()).extra_body


def test_fields_are_bounded() -> None:
    """Very many unknown fields are refused quickly."""
    with pytest.raises(InvalidRequest, match="100001 fields are too many"):
        decode(json.dumps({"input": "a", **dict.fromkeys(map(str, range(100_000)), 1)}).encode())


@steady
@given(requests)
def test_decode_valid(fields: dict) -> None:
    """A valid request decodes to what was sent."""
    request = decode(json.dumps(fields).encode())
    for name, value in fields.items():
        understood = getattr(request, name)
        if name == "extra_body":  # passed on undecoded
            understood = {key: json.loads(bytes(raw)) for key, raw in understood.items()}
        assert value is None or understood == value


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client with a valid key."""
    with gateway.client() as client:
        yield client


@few
@given(bodies)
def test_gateway_survives(client: httpx.Client, body: bytes) -> None:
    """Whatever is sent, the gateway answers with vectors or a 4xx."""
    answer = client.post("/v1/embeddings", content=body)
    if answer.status_code == 200:
        assert answer.json()["data"]
    else:
        assert answer.status_code in {400, 404}
        assert_error(answer.content)


# Vectors on the wire


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    """Generate finite float32 vectors with any bits, in numbers around the slice size."""
    dimensions = draw(st.sampled_from([1, 3, 384, 4096, SLICE_VALUES, SLICE_VALUES + 1]))
    step = max(1, SLICE_VALUES // dimensions)
    most = 3 if dimensions == 1 else 2 * step + 1
    items = draw(st.sampled_from([1, 2, step - 1 or 1, step, step + 1, most]))
    bits = np.random.default_rng(draw(st.integers(0, 2**32))).integers(
        0, 2**32, items * dimensions, np.uint32
    )
    edges = draw(st.lists(st.sampled_from([0, 1, 2**31, 2**31 + 1, 0x7F7FFFFF, 0x00800000])))
    bits[: len(edges)] = edges[: len(bits)]
    values = bits.view(np.float32).reshape(-1, dimensions)
    return np.where(np.isfinite(values), values, np.float32(0.5))


@settings(steady, max_examples=20)
@given(vectors())
def test_encode(sent: np.ndarray) -> None:
    """Both formats carry every bit of every vector, in order."""
    head = ResponseHead(
        id="embd_1", created=1, model="auto", provider="p", usage={"prompt_tokens": 1}
    )
    for encoding_format in ("float", "base64"):
        body = json.loads(b"".join(encode(head, sent, encoding_format=encoding_format)))
        data = body.pop("data")
        assert body == {"object": "list", **msgspec.structs.asdict(head)}
        assert [item["index"] for item in data] == list(range(len(sent)))
        for item, row in zip(data, sent, strict=True):
            got = item["embedding"]
            raw = (
                base64.b64decode(got, validate=True)
                if encoding_format == "base64"
                else np.array(got, np.float32).tobytes()
            )
            assert raw == row.astype("<f4").tobytes()


# Limits, money


@steady
@given(st.integers(2, 300), st.integers(1, 300), st.sampled_from(["end", "start"]))
def test_cut(limit: int, over: int, drop: str) -> None:
    """A truncated item has exactly `limit` ids: its special tokens and an unbroken part between."""
    ids = list(range(limit + over))
    kept = truncate_ids(ids, limit=limit, drop=drop, has_special_tokens=True)
    assert len(kept) == limit
    assert (kept[0], kept[-1]) == (ids[0], ids[-1])
    inner = ids[1:-1]
    assert kept[1:-1] == (inner[: limit - 2] if drop == "end" else inner[len(inner) - limit + 2 :])


tokens = st.integers(0, 10**12)
prices = st.decimals(0, 1000, places=9)
amounts = st.integers(0, 10**18)


@steady
@given(tokens, tokens, prices, prices)
def test_cost(few: int, many: int, low: Decimal, high: Decimal) -> None:
    """A cost is rounded up to a nano-dollar, and never falls when tokens or price rise."""
    cost = money.cost(many, price_per_mtok=high)
    exact = Fraction(high) * many * 1000
    assert exact <= cost < exact + 1
    fewer, more = sorted((few, many))
    cheap, dear = sorted((low, high))
    assert money.cost(fewer, price_per_mtok=cheap) <= money.cost(more, price_per_mtok=dear)


@steady
@given(amounts, amounts)
def test_dollars(one: int, other: int) -> None:
    """Dollars are printed in full, without an exponent, and their sums are exact."""
    assert set(money.format_usd(one)) <= set("0123456789.")
    assert Fraction(money.format_usd(one)) == Fraction(one, 10**9)
    total = Fraction(money.format_usd(one)) + Fraction(money.format_usd(other))
    assert Fraction(money.format_usd(one + other)) == total
