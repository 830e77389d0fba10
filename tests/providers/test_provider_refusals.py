"""What happens when a provider refuses a call: failover, and the client's answer."""

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Gateway, Minilm, get
from raw_http import until

from embedway.testing import Misbehaviour, Upstream, UpstreamCall, UpstreamReply, vector_of

NUMBERS = itertools.count()
PATHS = {
    **dict.fromkeys(("openai", "dashscope", "nvidia", "jina", "llamacpp"), "/v1"),
    **dict.fromkeys(("ollama", "tei"), ""),
    "fireworks": "/inference/v1",
    "cohere": "/v2",
    "gemini": "/v1beta",
}
"""The gateway's providers, with the paths of their base URLs."""
ACCOUNT = "123456789012"
PLAIN = [f"plain-{number}" for number in range(4)]
"""Providers that refuse base64 in different words."""
PROFILE = f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:application-inference-profile/team1"


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with several providers that are all one upstream."""
    folder = tmp_path_factory.mktemp("refusals")
    sections = [
        f'[providers.{name}]\nbase_url = "{upstream.url}/{name}{path}"\napi_key = "k"\n'
        for name, path in PATHS.items()
    ]
    own = f'kind = "openai"\nbase_url = "{upstream.url}/openai/v1'
    sections += [
        f'[providers.picky]\n{own}"\napi_key = "k"\n',
        *(f'[providers.{name}]\n{own}"\napi_key = "k"\n' for name in PLAIN),
        f'[providers.numbers]\n{own}"\napi_key = "k"\nbase64 = false\n',
        f'[providers.dated]\n{own}/?api-version=2026-11-01"\napi_key = "k"\n',
        f'[providers.priced]\n{own}"\napi_key = "k"\n[[providers.priced.models]]\n'
        'id = "wide"\ndimensions = 64\ntrained_dimensions = "unknown"\n'
        'price_per_mtok_usd = "2"\n',
        f'[providers.bedrock]\nbase_url = "{upstream.url}/bedrock"\napi_key = "k"\n'
        f'[[providers.bedrock.models]]\nid = "titan-embed-text-v2"\nname = "{PROFILE}"\n',
    ]
    (folder / "embedway.toml").write_text("\n".join(sections))
    running = Gateway(folder).start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def fresh(upstream: Upstream) -> None:
    """Reset the upstream."""
    upstream.reset()


def reply(status: int, body: Any, **headers: str) -> UpstreamReply:
    """Return a reply in JSON."""
    content = {"content-type": "application/json"}
    return UpstreamReply(
        status=status, body=json.dumps(body).encode(), headers={**content, **headers}
    )


def openai_error(message: str, **fields: Any) -> dict[str, Any]:
    """Return the body of an OpenAI error."""
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


def some_texts(count: int) -> list[str]:
    """Return new texts."""
    return [f"text {next(NUMBERS)}" for _ in range(count)]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the error of an answer with this status."""
    assert answer.status_code == status, answer.text[:500]
    return answer.json()["error"]


def assert_right(answer: httpx.Response, texts: list[str]) -> None:
    """Check that the answer has the vector of each text."""
    assert answer.status_code == 200, answer.text[:500]
    got = [each["embedding"] for each in answer.json()["data"]]
    width = len(got[0])
    assert np.allclose(got, [vector_of(text, width) for text in texts], atol=1e-6)


def new_model(provider: str) -> str:
    """Return a new model at a provider."""
    return f"{provider}:model-{next(NUMBERS)}"


SUSPENDED = (
    "Account acme-prod is suspended, possibly due to reaching the monthly spending limit or "
    "failure to pay past invoices. Please go to https://fireworks.ai/account/billing."
)
OF_THE_OPERATOR = {
    "fireworks 412": ("fireworks", 412, openai_error(SUSPENDED, code="PRECONDITION_FAILED"), 502),
    "fireworks 400": ("fireworks", 400, openai_error(SUSPENDED), 502),
    "dashscope tokens a minute": (
        "dashscope",
        429,
        openai_error("You exceeded your current quota of acme-prod.", code="insufficient_quota"),
        429,
    ),
    "dashscope free tier": (
        "dashscope",
        403,
        openai_error("acme-prod has used its free tier", code="AllocationQuota.FreeTierOnly"),
        502,
    ),
    "cohere 402": ("cohere", 402, {"message": "acme-prod: raise this API key's maximum"}, 502),
    "jina plan": (
        "jina",
        403,
        {"code": "AUTHZ_RESOURCE_LIMIT_EXCEEDED", "detail": "acme-prod is over its plan"},
        502,
    ),
    "gemini location": (
        "gemini",
        400,
        openai_error(
            "User location is not supported for the API use.", status="FAILED_PRECONDITION"
        ),
        502,
    ),
    "a permission somewhere in the message": (
        "openai",
        400,
        openai_error("The call was refused because acme-prod lacks a permission."),
        502,
    ),
    "gemini precondition": (
        "gemini",
        400,
        openai_error("Precondition check failed.", status="FAILED_PRECONDITION"),
        502,
    ),
    "jina plan in words": (
        "jina",
        403,
        {"detail": "[AUTHZ_RESOURCE_LIMIT_EXCEEDED] acme-prod is over its plan"},
        502,
    ),
    "acct": ("openai", 400, openai_error("Your acct acme-prod has been disabled."), 502),
    "team": ("openai", 400, openai_error("Team acme-prod has exceeded its plan"), 502),
    "user": ("openai", 400, openai_error("User acme-prod@example.com is not verified"), 502),
    "project": ("openai", 400, openai_error("Project acme-prod has been disabled"), 502),
    "project in a name": (
        "openai",
        404,
        openai_error("The model `projects/acme-prod/s` does not exist"),
        404,
    ),
    "nvidia end of life": (
        "nvidia",
        410,
        {"title": "Gone", "detail": "The model 'm' of account acme-prod reached its end of life."},
        404,
    ),
    "llama.cpp without embeddings": (
        "llamacpp",
        501,
        openai_error("This server does not support embeddings. Start it with `--embeddings`"),
        404,
    ),
}


@pytest.mark.parametrize("case", OF_THE_OPERATOR)
def test_nothing_of_the_operator_is_told(gateway: Gateway, upstream: Upstream, case: str) -> None:
    """Failures that the operator must fix are no 400, and do not reveal the account."""
    provider, status, body, expected = OF_THE_OPERATOR[case]
    upstream.always(reply(status, body))
    error = error_of(gateway.embed(model=new_model(provider), input=some_texts(2)), expected)
    assert provider in error["message"]
    for secret in ("acme", "location", "invoices", "fireworks.ai"):
        assert secret not in error["message"]


def test_somebody_else_is_asked(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """If one provider suspended the account, the next one answers."""
    gateway = new_gateway(canaries=True)
    sections = [
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "{name}"\n[[providers.{name}.models]]\nid = "shared"\ndimensions = 64\n'
        for name in ("first", "second")
    ]
    sections.append('[models.shared]\norder = ["first", "second"]\n')
    (gateway.folder / "embedway.toml").write_text("\n".join(sections))
    gateway.start()
    for name in ("first", "second"):  # so that both are of the model's space
        assert gateway.embed(model=f"{name}:shared", input="a").status_code == 200

    def suspended(call: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
        of_first = call.headers["authorization"] == "Bearer first"
        return reply(412, openai_error(SUSPENDED)) if of_first else right

    upstream.always(Misbehaviour(reply=suspended))
    texts = some_texts(2)
    answer = gateway.embed(model="shared", input=texts)
    assert_right(answer, texts)
    assert answer.headers["x-embedway-provider"] == "second"


def test_a_quoted_text_is_no_refusal_of_the_account(gateway: Gateway, upstream: Upstream) -> None:
    """A refusal that quotes the client is not blamed on the account, and ejects nothing."""
    model = new_model("openai")
    upstream.script(reply(400, openai_error("Invalid value: 'account x is suspended, api key'.")))
    error = error_of(gateway.embed(model=model, input=some_texts(1)), 400)
    assert "suspended" not in error["message"]
    texts = some_texts(1)
    assert_right(gateway.embed(model=model, input=texts), texts)


@pytest.mark.parametrize("word", ["region", "location", "workspace", "credits", "quota"])
def test_a_clients_own_field_ejects_nobody(gateway: Gateway, upstream: Upstream, word: str) -> None:
    """A refusal that names a client's field is about the request, whatever the field's name."""
    said = f"Malformed input request: #: extraneous key [{word}] is not permitted, please reformat"
    refusal = reply(400, {"message": said})
    model = new_model("openai")
    upstream.always(refusing(f'"{word}"', refusal))
    for _ in range(8):
        answer = gateway.embed(model=model, input="x", extra_body={word: 1})
        assert error_of(answer, 400)["param"] == word
    assert len(upstream.calls) == 8
    texts = some_texts(1)
    assert_right(gateway.embed(model=model, input=texts), texts)


def test_a_clients_own_field_shows_no_account(gateway: Gateway, upstream: Upstream) -> None:
    """A client that sends the words of a refusal still learns nothing about the account."""
    upstream.always(reply(400, openai_error("The balance of acme-prod is too low.")))
    answer = gateway.embed(model=new_model("openai"), input="x", extra_body={"balance": "low"})
    assert "acme" not in error_of(answer, 400)["message"]


@pytest.mark.parametrize("said", ["The provided model identifier is invalid: {}", "Bad {}"])
def test_a_profile_in_a_refusal(gateway: Gateway, upstream: Upstream, said: str) -> None:
    """A message with an inference profile's ARN does not reveal the account."""
    upstream.always(reply(400, {"message": said.format(PROFILE)}))
    answer = gateway.embed(model="bedrock:titan-embed-text-v2", input="x")
    assert answer.status_code in {400, 404}
    assert ACCOUNT not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/v1/embeddings/models", "/api/v1/llm/embeddings/models", "/v1/embeddings?dry_run=true"],
)
def test_a_profile_in_a_list(gateway: Gateway, path: str) -> None:
    """Lists and dry runs name an inference profile by its end, without its account."""
    asked = {"model": "bedrock:titan-embed-text-v2", "input": "x"}
    with gateway.client() as client:
        shown = client.post(path, json=asked) if "dry_run" in path else client.get(path)
    assert shown.status_code == 200
    assert ACCOUNT not in shown.text
    if path.startswith("/v1"):
        assert '"upstream_model":"team1"' in shown.text


def test_a_profile_in_our_own_refusal(gateway: Gateway) -> None:
    """The gateway's own refusals name an inference profile without its account."""
    answer = gateway.embed(model="bedrock:titan-embed-text-v2", input="x", truncate="end")
    assert error_of(answer, 400)["param"] == "truncate"
    assert ACCOUNT not in answer.text


TOO_LONG = {
    "openai": (400, openai_error("This input is of a maximum input length is 8192 tokens.")),
    "nvidia": (422, {"detail": "Input cannot exceed 8192 tokens"}),
    "tei": (422, {"error": "`inputs` must have less than 32000 characters. Given: 40000"}),
    "jina": (400, {"detail": "Single text cannot exceed 8192 tokens. 9237 tokens given."}),
    "cohere": (
        400,
        {
            "message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - "
            "received 4292."
        },
    ),
    "ollama": (500, {"error": "input length exceeds maximum context length"}),
}


@pytest.mark.parametrize("provider", TOO_LONG)
def test_an_item_too_long_is_named(gateway: Gateway, upstream: Upstream, provider: str) -> None:
    """The answer names the item that is too long, whatever the provider's words."""
    texts = some_texts(8)
    status, body = TOO_LONG[provider]
    upstream.always(refusing(texts[5], reply(status, body)))
    error = error_of(gateway.embed(model=new_model(provider), input=texts), 400)
    assert error["code"] == "context_length_exceeded"
    assert "'input[5]' is at fault" in error["message"]


def refusing(text: str, refusal: UpstreamReply) -> Misbehaviour:
    """Answer calls with this text with an error, and others with vectors."""

    def answer(call: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
        return refusal if text in call.content.decode() else right

    return Misbehaviour(reply=answer)


def test_the_item_that_the_provider_names(gateway: Gateway, upstream: Upstream) -> None:
    """If the provider names the item, no further call is needed to find it."""
    said = "Invalid 'input[3]': maximum input length is 8192 tokens."
    upstream.always(reply(400, openai_error(said)))
    error = error_of(gateway.embed(model=new_model("openai"), input=some_texts(5)), 400)
    assert "'input[3]' is at fault" in error["message"]
    assert len(upstream.calls) == 1


NAN = reply(500, {"error": "failed to encode response: json: unsupported value: NaN"})


def test_a_text_without_numbers(gateway: Gateway, upstream: Upstream) -> None:
    """One text at which Ollama computes NaN is named, and the server stays in use."""
    model, texts = new_model("ollama"), some_texts(8)
    upstream.always(refusing(texts[2], NAN))
    for _ in range(8):
        error = error_of(gateway.embed(model=model, input=texts), 400)
        assert error["param"] == "input"
        assert "'input[2]' is at fault" in error["message"]
        error_of(gateway.embed(model=model, input=texts[2]), 400)
    assert_right(gateway.embed(model=model, input=texts[3:]), texts[3:])


@pytest.mark.parametrize("bad", [(10, 60, 90), (0, 99)])
@pytest.mark.parametrize("number", ["NaN", "+Inf"])
def test_several_texts_without_numbers(
    gateway: Gateway, upstream: Upstream, bad: tuple[int, ...], number: str
) -> None:
    """If several texts fail in both halves of a batch, one is named after few calls."""
    texts = some_texts(100)
    refusal = reply(500, {"error": f"failed to encode response: json: unsupported value: {number}"})

    def answer(call: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
        return refusal if {texts[each] for each in bad} & {*call.body["input"]} else right

    upstream.always(Misbehaviour(reply=answer))
    error = error_of(gateway.embed(model=new_model("ollama"), input=texts), 400)
    assert any(f"'input[{each}]' is at fault" in error["message"] for each in bad)
    assert len(upstream.calls) <= 16


def test_a_server_without_numbers(gateway: Gateway, upstream: Upstream) -> None:
    """If Ollama computes NaN for every text, the server failed."""
    upstream.always(NAN)
    answer = gateway.embed(model=new_model("ollama"), input=some_texts(4))
    assert error_of(answer, 502)["type"] == "upstream_error"


def without_base64(call: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
    """Make a server that does not know `encoding_format`."""
    if "encoding_format" not in call.body:
        return right
    return reply(400, {"detail": [{"loc": ["body", "encoding_format"], "msg": "extra field"}]})


def test_base64_is_refused_once(gateway: Gateway, upstream: Upstream) -> None:
    """A server that refuses the field for base64 gets calls without it from then on."""
    upstream.always(Misbehaviour(reply=without_base64))
    for _ in range(2):
        texts = some_texts(2)
        assert_right(gateway.embed(model="picky:any", input=texts), texts)
    asked = ["encoding_format" in call.body for call in upstream.calls]
    assert asked == [True, False, False]


IN_PLAIN_WORDS = [
    b'json: unknown field "encoding_format"\n',
    b"encoding_format: unsupported value base64",
    b'{"error": "unknown field encodingFormat"}',
    b'{"error": "The model \'x\' does not support encoding_format base64: it is not supported"}',
]


@pytest.mark.parametrize("number", range(len(IN_PLAIN_WORDS)))
def test_base64_is_refused_in_plain_words(
    gateway: Gateway, upstream: Upstream, number: int
) -> None:
    """A refusal of the field is recognised in any words."""
    refusal = UpstreamReply(status=400, headers={}, body=IN_PLAIN_WORDS[number])
    upstream.always(refusing('"encoding_format"', refusal))
    texts = some_texts(2)
    assert_right(gateway.embed(model=f"{PLAIN[number]}:any", input=texts), texts)
    assert len(upstream.calls) == 2


def test_base64_in_a_text_is_no_refusal_of_it(gateway: Gateway, upstream: Upstream) -> None:
    """A refusal that quotes a text about base64 does not remove the field."""
    upstream.script(reply(400, openai_error("Flagged: what is base64")))
    error_of(gateway.embed(model=new_model("openai"), input="what is base64"), 400)
    texts = some_texts(1)
    assert_right(gateway.embed(model=new_model("openai"), input=texts), texts)
    assert [call.body["encoding_format"] for call in upstream.calls] == ["base64"] * 2


def test_base64_may_not_be_the_reason(gateway: Gateway, upstream: Upstream) -> None:
    """If a server also refuses the call without the field, the field stays."""
    refusal = reply(400, openai_error("encoding_format and more is wrong"))
    upstream.script(refusal, refusal)
    error_of(gateway.embed(model=new_model("openai"), input="alone"), 400)
    assert len(upstream.calls) == 2
    texts = some_texts(1)
    assert_right(gateway.embed(model=new_model("openai"), input=texts), texts)
    assert upstream.calls[-1].body["encoding_format"] == "base64"


def test_base64_is_switched_off(gateway: Gateway, upstream: Upstream) -> None:
    """With `base64 = false`, calls ask for numbers."""
    texts = some_texts(2)
    assert_right(gateway.embed(model="numbers:any", input=texts), texts)
    [call] = upstream.calls
    assert "encoding_format" not in call.body


@pytest.mark.parametrize("usage", [5.5, "5", -5, True, {"a": 1}])
def test_odd_usage_is_told(gateway: Gateway, upstream: Upstream, usage: Any) -> None:
    """Unreadable tokens are estimated and reported to the operator; the vectors are kept."""
    model, texts = new_model("priced"), some_texts(2)
    before = unreadable(gateway)
    upstream.always(Misbehaviour(tokens=lambda _: usage))
    answer = gateway.embed(model=model, input=texts, user=model)
    assert_right(answer, texts)
    assert answer.json()["usage"]["prompt_tokens"] > 0
    assert unreadable(gateway) == before + 1
    until(lambda: "provider usage unreadable" in gateway.log.read_text())
    [row] = [each for each in gateway.usage("user") if each["user"] == model]
    assert row["estimated_tokens"] == row["tokens"]


def unreadable(gateway: Gateway) -> float:
    """Return how often the tokens of `priced` were unreadable."""
    name = 'embedway_provider_unreadable_usages_total{deployment="priced:'
    lines = get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_dimensions_that_are_ignored(gateway: Gateway, upstream: Upstream) -> None:
    """A provider that ignores `dimensions` is not ejected, and the answer names the field."""
    model = "priced:wide"

    def all_of_it(call: UpstreamCall, right: UpstreamReply) -> UpstreamReply:
        data = [
            {"index": index, "embedding": vector_of(text, 64).tolist()}
            for index, text in enumerate(call.body["input"])
        ]
        return reply(200, {"data": data, "usage": {"prompt_tokens": 7}})

    upstream.always(Misbehaviour(reply=all_of_it))
    for _ in range(6):
        answer = gateway.embed(model=model, input=["a", "b"], dimensions=32, user=model)
        error = error_of(answer, 400)
        assert error["param"] == "dimensions"
        assert "64" in error["message"]
    assert_right(gateway.embed(model=model, input=["a", "b"], user=model), ["a", "b"])
    [row] = [each for each in gateway.usage("user") if each["user"] == model]
    assert (row["requests"], row["errors"], row["failed_calls"]) == (1, 6, 0)
    assert float(row["upstream_cost_usd"]) > 6 * float(row["cost_usd"]) > 0


FIELDS = {
    "OpenAI's words": (openai_error("Unrecognized request argument supplied: colour"), "colour"),
    "OpenAI's words of several": (
        openai_error("Unrecognized request arguments supplied: colour, shape"),
        "colour",
    ),
    "OpenAI's param": (openai_error("Unsupported.", param="colour"), "colour"),
    "Pydantic's loc": ({"detail": [{"loc": ["body", "colour"], "msg": "Not permitted"}]}, "colour"),
    "vLLM's words": (
        openai_error("[{'type': 'extra_forbidden', 'loc': ('body', 'colour'), 'msg': 'Extra'}]"),
        "colour",
    ),
    "dimensions": (
        openai_error("Unrecognized request argument supplied: dimensions"),
        "dimensions",
    ),
    "dimensions by loc": (
        {"detail": [{"loc": ["body", "dimensions"], "msg": "Not permitted"}]},
        "dimensions",
    ),
    "user": ({"detail": [{"loc": ["body", "user"], "msg": "Not permitted"}]}, "user"),
    "nothing of the client's": (openai_error("Unsupported.", param="stream"), None),
}


@pytest.mark.parametrize("case", FIELDS)
def test_the_field_at_fault(gateway: Gateway, upstream: Upstream, case: str) -> None:
    """The field that a provider names becomes the `param` of the error, if the client sent it."""
    body, param = FIELDS[case]
    upstream.always(reply(400, body))
    fields = {"colour": "red", "dimensions": 8, "user": "u"}
    answer = gateway.embed(model=new_model("openai"), input=some_texts(4), **fields)
    error = error_of(answer, 400)
    assert error["param"] == param
    assert len(upstream.calls) <= 3
    if param:
        assert repr(param) in error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_refusal(gateway: Gateway, upstream: Upstream, encoding: str) -> None:
    """A compressed refusal is read."""
    body = json.dumps(openai_error("The model `x` does not exist", code="model_not_found")).encode()
    packed = {"gzip": gzip, "deflate": zlib}[encoding].compress(body)
    upstream.always(UpstreamReply(status=400, body=packed, headers={"content-encoding": encoding}))
    answer = gateway.embed(model=new_model("openai"), input="a")
    assert error_of(answer, 404)["code"] == "model_not_found"


def test_a_compressed_refusal_without_end(gateway: Gateway, upstream: Upstream) -> None:
    """If a compressed refusal is too large, only its status counts."""
    body = gzip.compress(b" " * 2**22)
    upstream.always(UpstreamReply(status=400, body=body, headers={"content-encoding": "gzip"}))
    error_of(gateway.embed(model=new_model("openai"), input="a"), 400)


def test_a_query_in_the_base_url(gateway: Gateway, upstream: Upstream) -> None:
    """A call's path goes before the query of its base URL."""
    texts = some_texts(1)
    assert_right(gateway.embed(model="dated:any", input=texts), texts)
    [call] = upstream.calls
    assert call.path.endswith("/v1/embeddings")
    assert call.query == {"api-version": "2026-11-01"}
