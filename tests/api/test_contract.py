"""Every row of the contract's request and error tables, on every path of a real gateway."""

import base64
import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from conftest import Gateway
from raw_http import until

from embedway.core.request import EmbedRequest
from embedway.organization import key_secret

MKA1, CORTECS = "/api/v1/llm/embeddings", "/api/v1/models/serverless/embeddings"
PATHS = ("/v1/embeddings", MKA1, CORTECS)
MODEL = "all-minilm-l6-v2"
NAMES = ("auto", MODEL, f"embedway:{MODEL}")
MAX_BODY_BYTES = 16 * 2**20
SECRET = "the quick brown fox ate my homework"
# Each is one token of the model, so a text of n words has n + 2 tokens.
WORDS = ("cat", "dog", "sun", "red", "tree", "milk", "road", "king")

every_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client with a valid key."""
    with gateway.client() as client:
        yield client


@pytest.fixture(scope="module")
def stranger(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


def words(count: int, start: int = 0) -> str:
    """Return a text of `count` + 2 tokens."""
    return " ".join(
        WORDS[(index * index + index // 7) % 8] for index in range(start, start + count)
    )


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


def embed(client: httpx.Client, input: object, **fields: object) -> np.ndarray:
    return vectors(client.post(PATHS[0], json={"input": input, **fields}))


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    """Assert that the vectors differ only by rounding, as between different batches."""
    assert (np.sum(one * other, axis=1) > 0.99999).all()


def refusal(
    answer: httpx.Response,
    status: int,
    *,
    param: str | None = None,
    code: str | None = None,
    type: str = "invalid_request_error",
) -> str:
    """Assert that the answer is this error, and return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    message = error.pop("message")
    assert error == {"type": type, "param": param, "code": code}
    assert isinstance(message, str)
    assert message.endswith((".", "?"))
    return message


def exchange(gateway: Gateway, request: bytes) -> httpx.Response:
    """Send these exact bytes and return the answer."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def head(gateway: Gateway, *lines: str, path: str = PATHS[0]) -> bytes:
    """Return the head of a POST with a valid key."""
    key = f"authorization: Bearer {gateway.key}"
    return "\r\n".join((f"POST {path} HTTP/1.1", "host: x", key, *lines, "", "")).encode("latin-1")


# Answers


@every_path
def test_answer(client: httpx.Client, path: str) -> None:
    """An answer has exactly the documented fields and headers; the cortecs path adds one field."""
    answer = client.post(path, json={"input": ["a", "b"]}, headers={"x-request-id": "mine-1"})
    body = answer.json()
    assert set(body) == {"object", "data", "model", "usage", "id", "created", "provider"}
    assert body["object"] == "list"
    assert [set(item) for item in body["data"]] == [{"object", "index", "embedding"}] * 2
    assert [(item["object"], item["index"]) for item in body["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    assert body["usage"] == (usage | {"completion_tokens": 0} if path == CORTECS else usage)
    assert (body["model"], body["provider"]) == ("auto", "embedway")
    assert body["id"].startswith("embd_")
    assert isinstance(body["created"], int)
    headers = answer.headers
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-embedway-model"] == MODEL
    assert headers["x-embedway-provider"] == "embedway"
    assert headers["x-embedway-space"].startswith(f"{MODEL}@")
    assert "x-embedway-cache" not in headers  # there is no cache
    assert float(headers["x-embedway-cost-usd"]) == 0
    assert int(headers["openai-processing-ms"]) >= 0
    assert float(headers["x-embedway-overhead-ms"]) >= 0


@every_path
@pytest.mark.parametrize("name", [*NAMES, None])
def test_model_names(client: httpx.Client, path: str, name: str | None) -> None:
    """Every name of the model selects it, and is echoed as requested."""
    answer = client.post(path, json={"input": "a", "model": name})
    assert answer.json()["model"] == (name or "auto")
    assert answer.headers["x-embedway-model"] == MODEL
    assert_same(vectors(answer), embed(client, "a"))


@every_path
@pytest.mark.parametrize("field", [*EmbedRequest.__struct_fields__[1:], "unknown"])
def test_null(client: httpx.Client, path: str, field: str) -> None:
    """Null means the default, for every field but the input."""
    answer = client.post(path, json={"input": "a", field: None})
    assert_same(vectors(answer), embed(client, "a"))


ACCEPTED = [
    {"input": "\0"},
    {"input": " "},
    {"input": "👩‍👩‍👧 שלום \u202e \ufffe"},
    {"encoding_format": "float"},
    {"dimensions": 384},  # its own width
    {"user": "u" * 256},
    {"user": ""},
    {"metadata": {f"{index:064}": "v" * 512 for index in range(16)}},
    {"metadata": {"": ""}},
    {"extra_body": {}},
    *({"preference": value} for value in ("balanced", "speed", "cost")),
    {"allowed_providers": ["embedway"]},
    {"allowed_providers": ["mistral", "embedway"]},
    {"eu_native": False},
    {"allow_quantization": False},
    {"allow_zero_data_retention": True},
    {"zdr": True},
    {"enable_model_fallback": False},
    {"fallbacks": []},
    {"fallbacks": list(NAMES)},
    *({"input_type": value} for value in ("query", "document", "classification", "clustering")),
    *({"truncate": value} for value in ("none", "end", "start")),
]


@every_path
@pytest.mark.parametrize("fields", ACCEPTED, ids=str)
def test_accepted(client: httpx.Client, path: str, fields: dict) -> None:
    """Values at a field's limits are accepted and do not change the vector."""
    answer = client.post(path, json={"input": "a", **fields})
    assert_same(vectors(answer), embed(client, fields.get("input", "a")))


@every_path
def test_base64(client: httpx.Client, path: str) -> None:
    """base64 holds the same numbers as float, as little-endian float32 bytes."""
    texts = [words(n) for n in (1, 9, 30)]
    floats = vectors(client.post(path, json={"input": texts}))
    coded = client.post(path, json={"input": texts, "encoding_format": "base64"}).json()["data"]
    raw = [base64.b64decode(item["embedding"], validate=True) for item in coded]
    assert raw == [row.astype("<f4").tobytes() for row in floats]


def test_order(client: httpx.Client) -> None:
    """Vectors come in the order of their texts, with their index, whatever the lengths."""
    texts = [words(length, start) for start, length in enumerate((200, 1, 90, 3, 250, 1, 17, 90))]
    answer = client.post(PATHS[0], json={"input": texts})
    assert [item["index"] for item in answer.json()["data"]] == list(range(len(texts)))
    assert_same(vectors(answer), np.concatenate([embed(client, text) for text in texts]))


# Limits


def test_most_items(client: httpx.Client) -> None:
    """2048 items get one vector each, and equal texts get equal vectors."""
    found = embed(client, ["a", "b"] * 1024)
    assert found.shape == (2048, 384)
    assert_same(found, np.tile(embed(client, ["a", "b"]), (1024, 1)))


@every_path
@pytest.mark.parametrize("item", ["a", [1]], ids=["texts", "tokens"])
def test_too_many_items(client: httpx.Client, path: str, item: object) -> None:
    """2049 items are refused, with their number and the maximum."""
    answer = client.post(path, json={"input": [item] * 2049})
    message = refusal(answer, 400, param="input")
    assert "2049" in message and "2048" in message


@every_path
def test_characters(client: httpx.Client, path: str) -> None:
    """A text may have 100,000 characters, counted as code points; one more is refused."""
    client.post(path, json={"input": "é" * 100_000, "truncate": "end"}).raise_for_status()
    answer = client.post(path, json={"input": ["a", "é" * 100_001], "truncate": "end"})
    message = refusal(answer, 400, param="input")
    assert "input[1]" in message and "100001" in message and "100000" in message


@every_path
def test_tokens_of_an_item(client: httpx.Client, path: str) -> None:
    """An item may have 256 tokens; the refusal has OpenAI's wording and names the item."""
    answer = client.post(path, json={"input": words(254)})
    assert answer.json()["usage"]["prompt_tokens"] == 256
    answer = client.post(path, json={"input": ["a", words(255)]})
    message = refusal(answer, 400, param="input", code="context_length_exceeded")
    assert message.startswith(
        "This model's maximum context length is 256 tokens, however you requested 257 tokens"
    )
    assert "item 1 " in message


@every_path
@pytest.mark.parametrize("truncate", ["none", "end"])
def test_tokens_of_a_request(client: httpx.Client, path: str, truncate: str) -> None:
    """A request may have 300,000 tokens, counted after truncation."""
    texts = [words(254)] * 1171 + [words(223)]  # 256 * 1171 + 225 = 300,001
    if truncate == "end":
        texts[0] = words(400)
    answer = client.post(path, json={"input": texts, "truncate": truncate})
    kind = "max_tokens_per_request"
    message = refusal(answer, 400, param="input", code=kind, type=kind)
    assert message.startswith("Requested 300001 tokens, max 300000 tokens per request")


@pytest.mark.parametrize(("truncate", "kept"), [("end", 0), ("start", 46)])
def test_truncate(client: httpx.Client, truncate: str, kept: int) -> None:
    """A truncated text has the vector and the tokens of what is left."""
    answer = client.post(
        PATHS[0],
        json={"input": ["a", words(300)], "truncate": truncate, "encoding_format": "float"},
    )
    assert answer.json()["usage"]["prompt_tokens"] == 3 + 256
    assert_same(vectors(answer), embed(client, ["a", words(254, kept)]))


# Refusals

LONG = "n" * 65
REFUSED = [
    ({"input": None}, "input", "missing"),
    ({"input": ""}, "input", "empty"),
    ({"input": []}, "input", "empty list"),
    ({"input": ["a", ""]}, "input", "'input[1]' is empty"),
    ({"input": [[1], []]}, "input", "'input[1]' is empty"),
    ({"input": 1}, "input", "`int`"),
    ({"input": True}, "input", "`bool`"),
    ({"input": {"text": "a"}}, "input", "`object`"),
    ({"input": ["a", None]}, "input", "input[1]"),
    ({"input": ["a", 1.5]}, "input", "input[1]"),
    ({"input": [["a"]]}, "input", "input[0][0]"),
    ({"input": [[[1]]]}, "input", "input[0][0]"),
    ({"input": [-1]}, "input", ">= 0"),
    ({"input": [2**31]}, "input", "2147483647"),
    ({"input": [[2**64]]}, "input", "2147483647"),
    ({"input": ["a", 1]}, "input", "mixes"),
    ({"input": [1, [1]]}, "input", "mixes"),
    ({"input": [1, 2, 100257]}, "input", "100257"),
    ({"input": [[1, 2], [187]]}, "input", "token ids"),
    ({"model": ""}, "model", "'model' is \"\""),
    ({"model": 1}, "model", "'model' is 1"),
    ({"model": ["auto"]}, "model", "'model' is [\"auto\"]"),
    ({"model": "a\0"}, "model", "NUL"),
    ({"model": "n" * 257}, "model", "256"),
    ({"encoding_format": "int8"}, "encoding_format", '"int8"', "'float' or 'base64'"),
    ({"encoding_format": "Float"}, "encoding_format", '"Float"'),
    ({"encoding_format": 1}, "encoding_format", "is 1"),
    ({"dimensions": 128}, "dimensions", "does not support specifying dimensions.", "384"),
    ({"dimensions": 10**30}, "dimensions", "does not support specifying dimensions."),
    ({"dimensions": 0}, "dimensions", "is 0", ">= 1"),
    ({"dimensions": -1}, "dimensions", "is -1"),
    ({"dimensions": 384.0}, "dimensions", "is 384.0"),
    ({"dimensions": "384"}, "dimensions", '"384"'),
    ({"dimensions": True}, "dimensions", "is true"),
    ({"user": 1}, "user", "is 1"),
    ({"user": "u" * 257}, "user", "256"),
    ({"user": "a\0b"}, "user", "NUL"),
    ({"metadata": "a"}, "metadata", '"a"'),
    ({"metadata": {"a": 1}}, "metadata", '{"a":1}'),
    ({"metadata": {"a": None}}, "metadata", '{"a":null}'),
    ({"metadata": {str(index): "" for index in range(17)}}, "metadata", "16"),
    ({"metadata": {LONG: "a"}}, "metadata", "64"),
    ({"metadata": {"a": "v" * 513}}, "metadata", "512"),
    ({"metadata": {"a\0": "b"}}, "metadata", "NUL"),
    ({"metadata": {"a": "\0"}}, "metadata", "NUL"),
    ({"extra_body": []}, "extra_body", "is []"),
    ({"extra_body": {"task": "q"}}, "task", "'task'"),
    ({"extra_body": {LONG: 1}}, None, "65 characters", "64"),
    ({"task": "q"}, "task", "'task'"),
    ({"inputs": "q"}, "inputs", "'inputs'"),
    ({LONG: 1}, None, "65 characters", "64"),
    ({"": 1}, None, "0 characters"),
    ({"extra_body": {"input": "q"}}, "input", "'input'"),
    ({"extra_body": {"Model": "q"}}, "Model", "'Model'"),
    ({"extra_body": {"api_key": "q"}}, "api_key", "'api_key'"),
    ({"api_key": "q"}, "api_key", "'api_key'"),
    ({"extra_headers": {}}, "extra_headers", "'extra_headers'"),
    ({"base_url": "q"}, "base_url", "'base_url'"),
    # Ignored, these would protect nobody.
    ({"eu_nativ": True}, "eu_nativ", "'eu_native'"),
    ({"allowQuantization": False}, "allowQuantization", "'allow_quantization'"),
    ({"allowed_provider": ["a"]}, "allowed_provider", "'allowed_providers'"),
    # Ignored, these would change the answer silently.
    ({"modle": "q"}, "modle", "'model'", "inside 'extra_body'"),
    ({"dimension": 128}, "dimension", "'dimensions'"),
    ({"encoding_formt": "base64"}, "encoding_formt", "'encoding_format'"),
    ({"input_typ": "query"}, "input_typ", "'input_type'"),
    ({"preference": "best"}, "preference", '"best"', "'balanced', 'speed' or 'cost'"),
    ({"allowed_providers": []}, "allowed_providers", "is []"),
    ({"allowed_providers": "embedway"}, "allowed_providers", '"embedway"'),
    ({"allowed_providers": [1]}, "allowed_providers", "[1]"),
    ({"allowed_providers": [""]}, "allowed_providers", '[""]'),
    ({"allowed_providers": ["mistral"]}, "allowed_providers", '["mistral"]', "embedway"),
    ({"allowed_providers": ["p" * 256] * 64}, "allowed_providers", "..."),
    ({"eu_native": True}, "eu_native", "eu_native", "embedway"),
    ({"eu_native": "true"}, "eu_native", '"true"'),
    ({"eu_native": 1}, "eu_native", "is 1"),
    ({"allow_quantization": 0}, "allow_quantization", "is 0"),
    ({"allow_zero_data_retention": ""}, "allow_zero_data_retention", '""'),
    ({"zdr": "no"}, "zdr", '"no"'),
    ({"enable_model_fallback": []}, "enable_model_fallback", "[]"),
    ({"fallbacks": MODEL}, "fallbacks", MODEL),
    ({"fallbacks": [1]}, "fallbacks", "[1]"),
    ({"fallbacks": ["all-minilm-l6-v3"]}, "fallbacks", "'all-minilm-l6-v3'", f"'{MODEL}'"),
    ({"fallbacks": ["zzz"]}, "fallbacks", "'zzz'", "/v1/models"),
    ({"fallbacks": ["auto"] * 17}, "fallbacks", "16"),
    ({"input_type": "passage"}, "input_type", '"passage"', "'query', 'document'"),
    ({"truncate": "middle"}, "truncate", '"middle"', "'none', 'end' or 'start'"),
    ({"truncate": False}, "truncate", "is false"),
]


@every_path
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: str(row[0])[:60])
def test_refused(client: httpx.Client, path: str, row: tuple) -> None:
    """A field that breaks its rule is refused, with its name, its value and the fix."""
    fields, param, *said = row
    message = refusal(client.post(path, json={"input": SECRET, **fields}), 400, param=param)
    assert all(each in message for each in said), message
    assert len(message) < 600
    assert SECRET not in message


@every_path
@pytest.mark.parametrize("name", ["all-minilm-l6", "minilm", "openai:all-minilm-l6-v2", "AUTO"])
def test_unknown_model(client: httpx.Client, path: str, name: str) -> None:
    """An unknown model gets a 404 that suggests similar names."""
    answer = client.post(path, json={"input": "a", "model": name})
    message = refusal(answer, 404, param="model", code="model_not_found")
    assert f"{name!r} does not exist." in message
    assert "Did you mean" in message


@every_path
def test_unknown_model_without_near_names(client: httpx.Client, path: str) -> None:
    """An unknown model without similar names gets a 404 that says where models are listed."""
    answer = client.post(path, json={"input": "a", "model": "zzz"})
    assert "/v1/models" in refusal(answer, 404, param="model", code="model_not_found")


NOT_REQUESTS = {
    "empty": (b"", "empty"),
    "null": (b"null", "not null"),
    "list": (b"[]", "not an array"),
    "list of texts": (json.dumps([SECRET]).encode(), "not an array"),
    "text": (json.dumps(SECRET).encode(), "not a string"),
    "number": (b"1", "not a number"),
    "true": (b"true", "not a boolean"),
    "BOM": (b'\xef\xbb\xbf{"input":"a"}', "not valid JSON"),
    "UTF-16": ('{"input":"a"}'.encode("utf-16"), "UTF-8"),
    "cut": (b'{"input":"' + SECRET.encode(), "not valid JSON"),
    "two": (b'{"input":"a"}{}', "not valid JSON"),
    "trailing comma": (b'{"input":"a",}', "not valid JSON"),
    "single quotes": (b"{'input':'a'}", "not valid JSON"),
    "NaN": (b'{"input":"a","x":NaN}', "not valid JSON"),
    "form": (b"input=a&model=auto", "not valid JSON"),
    "control character": (b'{"input":"a\nb"}', "not valid JSON"),
    "infinite": (b'{"input":"a","x":1e999}', "no provider", "x"),
    "infinite input": (b'{"input":1e999}', "out of range", "input"),
    "many digits": (
        b'{"input":"a","dimensions":%s}' % (b"9" * 5000),
        "out of range",
        "dimensions",
    ),
    "deep arrays": (b"[" * 100_000, "not an array"),
    "deep objects": (b'{"a":' * 100_000, "deep"),
    "deep field": (b'{"input":"a","x":%s}' % (b"[" * 20_000 + b"]" * 20_000), "deep"),
    "invalid UTF-8": (b'{"input":"a\xff"}', "UTF-8"),
    "invalid UTF-8 in a key": (b'{"\xff":1,"input":"a"}', "UTF-8"),
    "surrogate in UTF-8": (b'{"input":"\xed\xa0\x80"}', "UTF-8"),
    "high surrogate": (b'{"input":"\\ud800"}', "surrogate"),
    "low surrogate": (b'{"input":"\\udc00"}', "surrogate"),
    "swapped surrogates": (b'{"input":"\\udc00\\ud800"}', "surrogate"),
    "high surrogate then text": (b'{"input":"\\ud800a"}', "surrogate"),
    "surrogate in a key": (b'{"input":"a","\\ud800":1}', "surrogate"),
    "surrogate in the user": (b'{"input":"a","user":"\\udfff"}', "surrogate"),
}


@every_path
@pytest.mark.parametrize("name", NOT_REQUESTS)
def test_not_a_request(client: httpx.Client, path: str, name: str) -> None:
    """A body that is not a JSON object is refused with the reason, and never shown."""
    body, said, *param = NOT_REQUESTS[name]
    message = refusal(client.post(path, content=body), 400, param=next(iter(param), None))
    assert said in message
    assert "$" not in message
    assert "fox" not in message


def test_surrogate_pair(client: httpx.Client) -> None:
    """A pair of escaped surrogates is one character."""
    escaped = client.post(PATHS[0], content=b'{"input":"\\ud83d\\ude00"}')
    assert_same(vectors(escaped), embed(client, "😀"))


def test_duplicate_names(client: httpx.Client) -> None:
    """A repeated name is refused, because parsers differ in which value they take."""
    answer = client.post(PATHS[0], content=b'{"input":"a","input":"b"}')
    assert "twice" in refusal(answer, 400, param="input")


def test_eu_native(new_gateway) -> None:
    """A gateway declared as based in the EU serves requests with eu_native."""
    answer = new_gateway(eu_native="true").start().embed(input="a", eu_native=True)
    assert answer.status_code == 200


# Keys and headers


@every_path
def test_no_valid_key(gateway: Gateway, stranger: httpx.Client, path: str) -> None:
    """Without a working key every request is refused, and the message says how to send one."""
    revoked = gateway.new_key("revoked")
    assert gateway.cli("keys", "revoke", revoked["id"]).returncode == 0
    expired = f"Bearer {gateway.new_key('old', '--expires-days', str(3 / 86_400))['key']}"
    ask = {"json": {"input": SECRET}, "headers": {"authorization": expired}}
    until(lambda: stranger.post(path, **ask).status_code == 401)
    values = {
        None: "did not send",
        "": "form",
        "Bearer": "neither",
        "Basic dTpw": "form",
        gateway.key: "form",
        f"Bearer {gateway.key[:-1]}": "incomplete",
        f"Bearer {gateway.key[:-1]}{'a' if gateway.key[-1] != 'a' else 'b'}": "mistyped",
        f"Bearer {gateway.key} {gateway.key}": "mistyped",
        "Bearer sk-proj-0123": "neither",
        "Bearer \xe9\xff": "neither",
        f"Bearer {key_secret.generate_secret()}": "does not exist",
        expired: "is expired",
        f"Bearer {revoked['key']}": "is revoked",
    }
    for value, said in values.items():
        headers = {} if value is None else {"authorization": value.encode("latin-1")}
        answer = stranger.post(path, json={"input": SECRET}, headers=headers)
        message = refusal(answer, 401, code="invalid_api_key")
        assert said in message and "Authorization: Bearer" in message
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert gateway.key not in answer.text and revoked["key"] not in answer.text


@every_path
@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer   "])
def test_key_spelling(gateway: Gateway, stranger: httpx.Client, path: str, scheme: str) -> None:
    """The case of the scheme and the spaces after it do not matter."""
    headers = {"authorization": scheme + gateway.key}
    assert stranger.post(path, json={"input": "a"}, headers=headers).status_code == 200


@every_path
@pytest.mark.parametrize("id", ["a", "u@example.com", "*a", "x y", "~" * 150])
def test_on_behalf_of(client: httpx.Client, path: str, id: str) -> None:
    """1 to 150 printable ASCII characters name the end user."""
    answer = client.post(path, json={"input": "a"}, headers={"x-on-behalf-of": id})
    assert answer.status_code == 200


@every_path
@pytest.mark.parametrize("id", [b"", b"*", b"~" * 151, b"\xc3\xa9", b"a\tb"])
def test_bad_on_behalf_of(client: httpx.Client, path: str, id: bytes) -> None:
    """Anything else is refused, and the message says what is allowed."""
    answer = client.post(path, json={"input": "a"}, headers={"x-on-behalf-of": id})
    assert "1 to 150" in refusal(answer, 400, param="X-On-Behalf-Of")


@every_path
@pytest.mark.parametrize("body", [{"input": "a"}, {}], ids=["answer", "error"])
def test_request_id(client: httpx.Client, path: str, body: dict) -> None:
    """A printable id is echoed, also on errors; any other is replaced."""

    def answered(id: bytes) -> str:
        return client.post(path, json=body, headers={"x-request-id": id}).headers["x-request-id"]

    for good in (b"a", b"7b0c-01/+=", b"~" * 128):
        assert answered(good) == good.decode()
    replaced = {answered(bad) for bad in (b"", b"a b", b"~" * 129, b"\xc3\xa9")}
    assert len(replaced) == 4
    assert all(id.startswith("req_") for id in replaced)


@every_path
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/plain; charset=utf-16"},
        {"content-encoding": "identity"},
        {"accept": "text/html"},
        {"accept-encoding": "br, zstd"},
        {"x-long": "x" * 8_000},
        {"expect": "100-continue"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_headers_that_do_not_matter(client: httpx.Client, path: str, headers: dict) -> None:
    """A body is read as JSON whatever its headers say, and unknown query parameters are ignored."""
    answer = client.post(f"{path}?api-version=1", content=b'{"input":"a"}', headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@every_path
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
def test_encoded_body(client: httpx.Client, path: str, encoding: str) -> None:
    """A body with a Content-Encoding is refused."""
    answer = client.post(path, content=b"\x1f\x8b", headers={"content-encoding": encoding})
    assert "plain JSON" in refusal(answer, 415)


# Bodies too large, too slow


def test_largest_body(client: httpx.Client) -> None:
    """A body of exactly the largest size is read."""
    body = b'{"input":"a"}'.ljust(MAX_BODY_BYTES)
    assert client.post(PATHS[0], content=body).status_code == 200


@every_path
@pytest.mark.parametrize("body", [bytes, lambda size: iter([bytes(2**20)] * (size // 2**20 + 1))])
def test_too_large_body(client: httpx.Client, path: str, body) -> None:
    """A body that is too large, declared or chunked, is refused with the maximum."""
    answer = client.post(path, content=body(MAX_BODY_BYTES + 1))
    assert str(MAX_BODY_BYTES) in refusal(answer, 413)


@pytest.mark.parametrize("key", ["", "authorization: none"])
def test_refusal_of_a_large_body_is_seen(gateway: Gateway, key: str) -> None:
    """A client that sends a whole refused body before reading gets the answer, not a reset."""
    size = 3 * MAX_BODY_BYTES
    request = head(gateway, f"content-length: {size}", *([key] if key else [])) + bytes(size)
    answer = exchange(gateway, request)
    # A second credential is refused before the body is read.
    assert answer.status_code == (400 if key else 413)


def test_slow_body(new_gateway) -> None:
    """A body that does not arrive in time gets a 408."""
    gateway = new_gateway(body_timeout_s=0.1).start()
    answer = exchange(gateway, head(gateway, "content-length: 100") + b"{")
    assert "0.1 s" in refusal(answer, 408)


# Routes


@pytest.fixture(scope="module")
def routes(stranger: httpx.Client) -> dict[str, set[str]]:
    """The methods of every path."""
    paths = stranger.get("/openapi.json").raise_for_status().json()["paths"]
    documented = {path: {name.upper() for name in methods} for path, methods in paths.items()}
    return documented | {"/docs": {"GET"}, "/openapi.json": {"GET"}}


def test_wrong_methods(client: httpx.Client, routes: dict[str, set[str]]) -> None:
    """Every route refuses other methods with the usual error shape, and names its own."""
    assert set(PATHS) < set(routes)
    for path, methods in routes.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} - methods:
            answer = client.request(method, path, content=b"{}")
            message = refusal(answer, 405)
            assert method in message and f"Use {min(methods)}" in message
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods
        health = path in {"/livez", "/readyz"}  # health probes also use HEAD
        assert client.head(path).status_code == (200 if health else 405)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_wrong_paths(client: httpx.Client, routes: dict[str, set[str]], method: str) -> None:
    """An unknown path gets the usual error shape, and says where to look."""
    named = {path.partition("/{")[0] for path in routes if "/{" in path}
    paths = [f"{path}/nope" for path in routes if "{" not in path and path not in named]
    for path in (
        *paths,
        "/",
        "/nope",
        "/docs/",
        "/livez/",
        "/v1",
        "/V1/embeddings",
        "/docs/assets/nope.js",
        "/%ff%00",
    ):
        if method != "GET" and path.startswith("/docs/assets"):
            continue  # always a 405 there
        assert "/docs" in refusal(client.request(method, path), 404)


def test_unknown_model_path(client: httpx.Client) -> None:
    """An unknown model in the path gets OpenAI's 404."""
    for name in ("nope", "a/b", "%00", "all-minilm-l6"):
        refusal(client.get(f"/v1/models/{name}"), 404, param="model", code="model_not_found")


@pytest.mark.parametrize(
    "path", ["/docs/assets/..%2f..%2f..%2fetc%2fpasswd", "/docs/assets//etc/passwd"]
)
def test_no_way_out_of_the_assets(stranger: httpx.Client, path: str) -> None:
    """Documentation files are only served from their folder."""
    refusal(stranger.get(path), 404)


def test_values_of_any_depth(client: httpx.Client) -> None:
    """A value nested to the decoder's limit is refused like any other."""
    for depth in range(900, 1100, 3):
        content = b'{"input":"a","metadata":' + b"[" * depth + b"]" * depth + b"}"
        answer = client.post("/v1/embeddings", content=content)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] in {"metadata", None}
