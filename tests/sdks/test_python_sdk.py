"""The Python SDK against a real gateway."""

import ast
import asyncio
import dataclasses
import datetime as dt
import gc
import inspect
import logging
import time
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import embedway_sdk
import httpx
import httpx2
import numpy as np
import pytest
from conftest import Gateway
from embedway_sdk import SDK, BackoffStrategy, Budget, Hooks, RateLimit, RetryConfig, types

MODEL = "all-minilm-l6-v2"
FOX = "The quick brown fox jumps over the lazy dog."
README = Path(__file__).parent.parent.parent / "sdks/python/README.md"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["blocking", "asynchronous"])
def call(request: pytest.FixtureRequest, loop: asyncio.Runner) -> Callable:
    """Calls an operation in one of its two forms."""
    if request.param == "blocking":
        return lambda operation, *arguments, **options: operation(*arguments, **options)

    def asynchronous(operation: Callable, *arguments: object, **options: object) -> object:
        twin = getattr(operation.__self__, f"{operation.__name__}_async")
        return loop.run(twin(*arguments, **options))

    return asynchronous


@pytest.fixture(scope="module")
def sdk(gateway: Gateway, loop: asyncio.Runner) -> Iterator[SDK]:
    with SDK(bearer_auth=gateway.key, server_url=gateway.url) as sdk:
        yield sdk
        loop.run(sdk.aclose())


@pytest.fixture(scope="module")
def admin(gateway: Gateway, loop: asyncio.Runner) -> Iterator[SDK]:
    with SDK(gateway.new_key("admin", "--admin")["key"], server_url=gateway.url) as sdk:
        yield sdk
        loop.run(sdk.aclose())


# Embeddings


def test_the_call_of_other_sdks(gateway: Gateway) -> None:
    """The call that users of such SDKs know works as it is."""
    with SDK(bearer_auth=gateway.key, server_url=gateway.url) as sdk:
        res = sdk.llm.embeddings.embed(input=FOX, model="auto", encoding_format="float")
    assert (res.object, res.model, res.provider) == ("list", "auto", "embedway")
    assert [(item.object, item.index) for item in res.data] == [("embedding", 0)]
    assert len(res.data[0].embedding) == 384
    assert res.usage.prompt_tokens == res.usage.total_tokens == 12
    assert "384 in all" in repr(res)


def test_formats(gateway: Gateway, sdk: SDK, call: Callable) -> None:
    """The default, base64 and float give the same vectors as the plain answer."""
    texts = ["one text", "another of more words", "é 汉字 🙂"]
    plain = [item["embedding"] for item in gateway.embed(input=texts).json()["data"]]
    for options in ({}, {"encoding_format": "base64"}, {"encoding_format": "float"}):
        res = call(sdk.llm.embeddings.embed, input=texts, **options)
        assert [item.index for item in res.data] == [0, 1, 2]
        array = res.numpy()
        assert (array.shape, array.dtype, res.dimensions) == ((3, 384), np.float32, 384)
        assert np.allclose(array, plain, atol=1e-6)
        assert np.array_equal(np.array([each.embedding for each in res.data], "f"), array)
        assert np.array_equal(res.data[1].numpy(), array[1])


def test_what_an_answer_says(gateway: Gateway, sdk: SDK) -> None:
    """An answer has its space, cost, request id and headers."""
    res = sdk.llm.embeddings.embed(input="a", http_headers={"X-Request-Id": "mine"})
    assert res.request_id == res.headers["X-Request-ID"] == "mine"
    assert res.space == gateway.embed(input="a").headers["x-embedway-space"]
    assert (res.cost_usd, res.cache) == (0, None)
    assert res.id.startswith("embd_")


def test_options_reach_the_gateway(gateway: Gateway, sdk: SDK) -> None:
    """Every field is sent: the gateway counts for the end user, and the metadata."""
    res = sdk.llm.embeddings.embed(
        input=["cat " * 300],
        model=MODEL,
        truncate="end",
        on_behalf_of="ada",
        metadata={"team": "sdk"},
        preference="cost",
        eu_native=False,
    )
    assert res.usage.total_tokens == 256
    [row] = [row for row in gateway.usage("metadata.team,user") if row["metadata.team"] == "sdk"]
    assert row["user"] == "ada"
    with pytest.raises(embedway_sdk.BadRequestError, match="provider_field"):
        sdk.llm.embeddings.embed(input="a", extra_body={"provider_field": 1})


def test_token_ids_and_arrays(sdk: SDK) -> None:
    """Token ids count as one input or one for each list, also as NumPy arrays."""
    one = sdk.llm.embeddings.embed(input=[15339, 1917])
    two = sdk.llm.embeddings.embed(input=[np.array([15339, 1917]), np.array([15339])])
    assert (len(one.data), len(two.data)) == (1, 2)
    assert one.numpy()[0] @ two.numpy()[0] > 0.9999


@pytest.mark.parametrize(
    ("options", "kind", "code", "param"),
    [
        ({"input": ""}, embedway_sdk.BadRequestError, None, "input"),
        ({"input": []}, embedway_sdk.BadRequestError, None, "input"),
        ({"input": None}, embedway_sdk.BadRequestError, None, "input"),
        ({"input": "\ud800"}, embedway_sdk.BadRequestError, None, None),
        (
            {"input": "cat " * 300},
            embedway_sdk.BadRequestError,
            "context_length_exceeded",
            "input",
        ),
        ({"input": "a", "dimensions": 8}, embedway_sdk.BadRequestError, None, "dimensions"),
        (
            {"input": "a", "model": "nope"},
            embedway_sdk.NotFoundError,
            "model_not_found",
            "model",
        ),
    ],
    ids=str,
)
def test_errors(
    gateway: Gateway,
    sdk: SDK,
    call: Callable,
    options: dict,
    kind: type[embedway_sdk.APIError],
    code: str | None,
    param: str | None,
) -> None:
    """An error has the class of its status, and the server's own words."""
    with pytest.raises(kind) as caught:
        call(sdk.llm.embeddings.embed, **options)
    error = caught.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert error.body["error"]["message"] == error.message == str(error)
    assert error.request_id == error.headers["x-request-id"]
    assert not error.may_be_billed


def test_a_wrong_key(gateway: Gateway) -> None:
    """A key that does not exist gets an `AuthenticationError`; no header replaces the key."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with (
        SDK("sk-gateway-no", server_url=gateway.url, http_headers=headers) as sdk,
        pytest.raises(embedway_sdk.AuthenticationError) as caught,
    ):
        sdk.llm.embeddings.embed(input="a")
    assert caught.value.code == "invalid_api_key"


def test_permissions_and_limits(gateway: Gateway, admin: SDK, call: Callable) -> None:
    """A key without a right gets 403; one over its limit gets 429 and is told how long to wait."""
    [project] = [each for each in admin.organization.projects.list() if each.id == "proj_default"]
    key = call(
        admin.organization.projects.api_keys.create,
        project.id,
        name="few",
        limits=[RateLimit(of="requests", amount=1, per="minute")],
        models=[MODEL],
    )
    with SDK(key.value, server_url=gateway.url, retry_config=RetryConfig("none")) as few:
        with pytest.raises(embedway_sdk.PermissionDeniedError):
            few.organization.projects.list()
        few.llm.embeddings.embed(input="a")
        with pytest.raises(embedway_sdk.RateLimitError, match=r"1 requests? per minute") as caught:
            few.llm.embeddings.embed(input="a")
        assert caught.value.code == "rate_limit_exceeded"
        assert 0 < caught.value.retry_after_s < 70


def test_a_limit_is_waited_for(gateway: Gateway, admin: SDK) -> None:
    """A call over a limit waits as long as it is told, however often, and succeeds."""
    key = admin.organization.projects.api_keys.create(
        "proj_default", name="slow", limits=[RateLimit(of="requests", amount=1, per="second")]
    )
    with SDK(key.value, server_url=gateway.url) as slow:
        many = slow.llm.embeddings.embed_many(["a", "b", "c"], max_items=1, concurrency=3)
        assert [each.index for each in many] == [0, 1, 2]


@pytest.mark.parametrize("key", [None, "", " ", "é", "a\nb"])
def test_a_key_that_is_none(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent, the message says how to give a key, and quotes none."""
    monkeypatch.delenv("EMBEDWAY_API_KEY", raising=False)
    with (
        SDK(key, server_url="http://127.0.0.1:9") as sdk,
        pytest.raises(
            embedway_sdk.EmbedwayError, match=r"EMBEDWAY_API_KEY|Copy it again\."
        ) as caught,
    ):
        sdk.llm.embeddings.embed(input="a")
    assert not key or not key.strip() or key not in str(caught.value)


def test_a_key_from_a_file(gateway: Gateway) -> None:
    """White space around a key, such as the end of a line, is not part of it."""
    with SDK(f"{gateway.key}\n", server_url=gateway.url) as sdk:
        assert sdk.llm.embeddings.embed(input="a").dimensions == 384


def test_the_environment(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address, with or without /v1, and the key come from the environment."""
    monkeypatch.setenv("EMBEDWAY_API_KEY", gateway.key)
    for url in (gateway.url, f"{gateway.url}/v1", f"{gateway.url}/v1/"):
        monkeypatch.setenv("EMBEDWAY_BASE_URL", url)
        with SDK() as sdk:
            assert sdk.llm.embeddings.embed(input="a").dimensions == 384
    for wrong in (
        "http://user:secret@a",
        "http://a?b=c",
        "127.0.0.1:8080",
        "ftp://a",
        "http://",
        "http://a:b",
        "gateway",
    ):
        monkeypatch.setenv("EMBEDWAY_BASE_URL", wrong)
        with pytest.raises(ValueError, match="server_url") as caught:
            SDK()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "input", [{"a"}, b"a", iter("a"), object()], ids=lambda each: str(type(each))
)
def test_inputs_that_are_no_json(sdk: SDK, input: object) -> None:
    """An input that JSON cannot carry is named by its type."""
    with pytest.raises(TypeError, match="cannot be sent as JSON"):
        sdk.llm.embeddings.embed(input=input)
    with pytest.raises(ValueError, match="timeout_ms"):
        sdk.llm.embeddings.embed(input="a", timeout_ms=0)


@pytest.mark.parametrize("wrong", ["é", "a\nb", "", " ", "ada "])
def test_a_header_that_cannot_be_sent(sdk: SDK, wrong: str) -> None:
    """An end user that no header can carry is refused before anything is sent."""
    with pytest.raises(ValueError, match="on_behalf_of"):
        sdk.llm.embeddings.embed(input="a", on_behalf_of=wrong)


def test_dry_run_and_models(sdk: SDK, call: Callable) -> None:
    """A dry run shows tokens and candidates; the models are listed with their spaces."""
    dry = call(sdk.llm.embeddings.dry_run, input=FOX, model=MODEL)
    assert (dry.tokens, dry.candidates[0].provider, dry.removed) == (12, "embedway", [])
    [model] = call(sdk.llm.embeddings.list_models, model="auto").data
    assert (model.id, model.space) == (f"embedway:{MODEL}", dry.space)
    assert model.limits.max_input_tokens == 256


def test_a_token_for_an_end_user(gateway: Gateway) -> None:
    """A token of `exchange_token` works for its end user until it expires."""
    key = gateway.new_key("backend", "--scope", "tokens", "--scope", "embeddings")
    with SDK(key["key"], server_url=gateway.url) as backend:
        token = backend.authentication.exchange_token(external_user_id="bob", expires_in=300)
    assert token.expires_at > dt.datetime.now(dt.UTC).timestamp()
    with SDK(lambda: token.token, server_url=gateway.url) as bob:
        assert bob.llm.embeddings.embed(input="a").dimensions == 384
        with pytest.raises(embedway_sdk.PermissionDeniedError):
            bob.llm.embeddings.embed(input="a", on_behalf_of="eve")


# Many


def test_many(sdk: SDK, loop: asyncio.Runner) -> None:
    """Any number of inputs gives the same vectors, in order, however they are read."""
    texts = [f"text {number % 9}" for number in range(100)]
    whole = sdk.llm.embeddings.embed(input=texts).numpy()
    seen: list[embedway_sdk.Progress] = []
    options = {"max_items": 7, "on_progress": seen.append}

    many = sdk.llm.embeddings.embed_many(texts, **options)
    found = list(many)
    assert [each.index for each in found] == list(range(100))
    assert np.allclose([each.embedding for each in found], whole, atol=1e-5)
    assert [progress.items for progress in seen] == [*range(7, 100, 7), 100]
    assert {progress.total for progress in seen} == {100}
    assert many.tokens == seen[-1].tokens > 0
    assert "minilm" in many.space

    async def read() -> tuple[list[int], np.ndarray]:
        async def later() -> typing.AsyncIterator[str]:
            for text in texts:
                yield text

        indices = [each.index async for each in sdk.llm.embeddings.embed_many(later(), **options)]
        return indices, await sdk.llm.embeddings.embed_many(iter(texts), **options).numpy_async()

    indices, array = loop.run(read())
    assert indices == list(range(100))
    assert np.allclose(array, whole, atol=1e-5)
    assert np.allclose(sdk.llm.embeddings.embed_many(texts, **options).numpy(), whole, atol=1e-5)
    assert seen[-1].total == 100


def test_many_of_none(sdk: SDK) -> None:
    """No input gives no vector; one text is no collection of texts; a result is read once."""
    empty = sdk.llm.embeddings.embed_many([])
    assert empty.numpy().shape == (0, 0)
    with pytest.raises(RuntimeError, match="read already"):
        empty.numpy()
    with pytest.raises(TypeError, match="not one text"):
        sdk.llm.embeddings.embed_many("text")
    with pytest.raises(ValueError, match="concurrency"):
        sdk.llm.embeddings.embed_many(["a"], concurrency=0)


def test_many_say_which_request_failed(sdk: SDK, loop: asyncio.Runner) -> None:
    """The error of a later request says where that request begins."""
    texts = ["a"] * 20 + ["cat " * 300]

    async def read() -> None:
        async for _ in sdk.llm.embeddings.embed_many(texts, max_items=8):
            pass

    for attempt in (lambda: list(sdk.llm.embeddings.embed_many(texts, max_items=8)), read):
        with pytest.raises(embedway_sdk.BadRequestError, match="index 16") as caught:
            loop.run(attempt()) if inspect.iscoroutinefunction(attempt) else attempt()
        assert (caught.value.first_index, caught.value.code) == (16, "context_length_exceeded")


# Administration


def test_administration(gateway: Gateway, admin: SDK, call: Callable) -> None:
    """Projects, keys and end users are made, listed, changed and removed."""
    projects = admin.organization.projects
    budget = Budget(amount_usd=25, per="month", alerts=[80])
    project = call(projects.create, name="web", budgets=[budget], allow_quantization=False)
    assert call(projects.get, project.id) == project
    assert (project.budgets[0].alerts, project.spending[0].left_usd) == ([80], 25)
    changed = call(projects.update, project.id, name="shop", budgets=None)
    assert (changed.name, changed.budgets, changed.allow_quantization) == ("shop", [], False)

    keys = projects.api_keys
    key = call(keys.create, project.id, name="k", scopes=["embeddings"], expires_in_seconds=600)
    with SDK(key.value, server_url=gateway.url) as sdk:
        assert sdk.llm.embeddings.embed(input="a").dimensions == 384
    again = call(keys.rotate, project.id, key.id, grace_seconds=0)
    assert again.value != key.value
    assert call(keys.update, project.id, key.id, name="new").name == "new"
    assert call(keys.get, project.id, key.id).expires_at == key.expires_at
    assert call(keys.delete, project.id, key.id).deleted
    assert list(call(keys.list, project.id)) == []
    assert [each.id for each in call(keys.list, project.id, include_revoked=True)] == [key.id]

    users = projects.end_users
    ada = call(users.set, project.id, id="ada@example.com/x", blocked=True)
    assert call(users.get, project.id, ada.id).blocked
    assert not call(users.update, project.id, ada.id, blocked=False).blocked
    assert [each.id for each in call(users.list, project.id, id=ada.id)] == [ada.id]
    assert call(users.delete, project.id, ada.id).deleted

    admins = admin.organization.admin_api_keys
    other = call(admins.create, name="other", expires_in_seconds=600)
    assert call(admins.get, other.id).redacted_value == other.redacted_value
    assert call(admins.rotate, other.id).id == other.id
    assert call(admins.delete, other.id).deleted
    assert other.id not in {each.id for each in call(admins.list, order="desc")}

    events = call(admin.organization.audit_logs.list, project_ids=[project.id])
    details = {event.type: event.details for event in events}
    assert {"project.created", "api_key.rotated"} <= set(details)
    assert details["api_key.created"]["id"] == key.id
    assert call(projects.archive, project.id).status == "archived"


@pytest.mark.parametrize("wrong", ["", ".", ".."])
def test_ids_that_are_none(admin: SDK, wrong: str) -> None:
    """An id that would lead to another path is refused."""
    with pytest.raises(ValueError, match="is not an id"):
        admin.organization.projects.archive(wrong)


def test_pages(admin: SDK, loop: asyncio.Runner) -> None:
    """To iterate over a page goes on to the pages that follow."""
    projects = admin.organization.projects
    made = [projects.create(name=f"page {number}").id for number in range(5)]
    page = projects.list(limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert set(made) <= {project.id for project in page}

    async def read() -> set[str]:
        return {project.id async for project in await projects.list_async(limit=2)}

    assert set(made) <= loop.run(read())


def test_usage(gateway: Gateway, admin: SDK, call: Callable) -> None:
    """Usage, cost and refusals are summed up by what is asked for."""
    usage = admin.organization.usage
    project = admin.organization.projects.create(name="usage")
    key = admin.organization.projects.api_keys.create(project.id, name="k")
    with SDK(key.value, server_url=gateway.url) as sdk:
        res = sdk.llm.embeddings.embed(input=["a", "b"], metadata={"team": "x"})
        with pytest.raises(embedway_sdk.NotFoundError):
            sdk.llm.embeddings.embed(input="a", model="nope")
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    only = {"project_ids": [project.id], "bucket_width": "1d", "limit": 31}

    buckets = call(
        usage.embeddings, start_time=start, metadata={"team": "x"}, group_by=["model"], **only
    )
    [result] = [result for bucket in buckets.data for result in bucket.results]
    assert (result.model, result.num_items) == (MODEL, 2)
    assert result.input_tokens == res.usage.total_tokens
    costs = call(usage.costs, start_time=start, group_by=["line_item"], **only)
    [cost] = [result for bucket in costs.data for result in bucket.results if result.line_item]
    assert (cost.amount_nano_usd, cost.amount.currency) == (0, "usd")
    for _ in range(600):  # refusals are written every two seconds
        refusals = call(usage.refusals, start_time=int(start.timestamp()), **only)
        if found := [result for bucket in refusals.data for result in bucket.results]:
            break
        time.sleep(0.1)
    assert [each.num_requests for each in found] == [1]


# The client itself


def test_hooks_and_log(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Hooks see each request, answer and error; the log has neither key nor texts."""
    seen: list[object] = []

    def mark(request: httpx2.Request) -> None:
        request.headers["x-request-id"] = f"hooked-{len(seen)}"

    hooks = Hooks(mark, lambda response: seen.append(response.status_code), seen.append)
    logger = logging.getLogger("sdk")
    with (
        caplog.at_level(logging.DEBUG, "sdk"),
        SDK(gateway.key, server_url=gateway.url, hooks=hooks, debug_logger=logger) as sdk,
    ):
        assert sdk.llm.embeddings.embed(input="secret text").request_id == "hooked-0"
        with pytest.raises(embedway_sdk.NotFoundError) as caught:
            sdk.llm.embeddings.embed(input="secret text", model="nope")
    assert seen == [200, 404, caught.value]
    said = [record.getMessage() for record in caplog.records if record.name == "sdk"]
    assert said[0] == f"POST {gateway.url}/v1/embeddings"
    assert "200 in" in said[1]
    assert "hooked-0" in said[1]
    assert gateway.key not in caplog.text
    assert "secret" not in caplog.text


def test_a_client_of_ones_own(gateway: Gateway, loop: asyncio.Runner) -> None:
    """An HTTP client that is handed in is used, and left open."""
    with httpx2.Client(headers={"x-request-id": "own"}, verify=False) as client:
        with SDK(gateway.key, server_url=gateway.url, client=client) as sdk:
            assert sdk.llm.embeddings.embed(input="a").request_id == "own"
        assert client.get(f"{gateway.url}/livez").status_code == 200

    async def asynchronous() -> None:
        async with httpx2.AsyncClient(headers={"x-request-id": "own"}, verify=False) as client:
            async with SDK(gateway.key, server_url=gateway.url, async_client=client) as sdk:
                assert (await sdk.llm.embeddings.embed_async(input="a")).request_id == "own"
            assert (await client.get(f"{gateway.url}/livez")).status_code == 200

    loop.run(asynchronous())
    with httpx.Client(verify=False) as other, pytest.raises(TypeError, match=r"httpx2\.Client"):
        SDK("k", client=other)


def test_one_sdk_in_many_event_loops(gateway: Gateway) -> None:
    """One SDK may be used in one event loop after another."""
    sdk = SDK(gateway.key, server_url=gateway.url)

    async def embed() -> int:
        return (await sdk.llm.embeddings.embed_async(input="a")).dimensions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # each loop leaves its connection open
        assert [asyncio.run(embed()) for _ in range(3)] == [384] * 3
        sdk.close()
        sdk = None
        gc.collect()


def test_closed(gateway: Gateway) -> None:
    """A closed SDK says so, and connects no more."""
    with SDK(gateway.key, server_url=gateway.url) as sdk:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        sdk.llm.embeddings.embed(input="a")
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(sdk.llm.embeddings.embed_async(input="a"))


def test_both_forms_of_every_operation() -> None:
    """Each operation has both forms, with one signature and documentation of its own."""
    with SDK("k") as sdk:
        groups = [
            *(sdk.llm.embeddings, sdk.authentication, sdk.organization.projects),
            *(sdk.organization.projects.api_keys, sdk.organization.projects.end_users),
            *(sdk.organization.admin_api_keys, sdk.organization.audit_logs),
            sdk.organization.usage,
        ]
    twins = [
        (getattr(group, name), getattr(group, f"{name}_async"))
        for group in groups
        for name in dir(group)
        if hasattr(group, f"{name}_async")
    ]
    assert len(twins) == 29
    for blocking, asynchronous in twins:
        assert inspect.signature(blocking) == inspect.signature(asynchronous)
        assert inspect.iscoroutinefunction(asynchronous)
        assert blocking.__doc__.strip().endswith((".", "order."))
        assert "Call[" not in str(inspect.signature(blocking))


def test_types_are_those_of_the_api(gateway: Gateway) -> None:
    """The types have the fields of the gateway's OpenAPI description, and their names."""
    with gateway.client() as client:
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    compared = 0
    names = {"ExchangedToken": "expiresAt"}  # the one field that is not in snake_case
    for name, kind in vars(types).items():
        if dataclasses.is_dataclass(kind):
            fields = {
                each.name.replace("expires_at", names.get(name, "expires_at"))
                for each in dataclasses.fields(kind)
                if not each.metadata
            }
            assert fields == set(schemas[name]["properties"]), name
            compared += 1
    assert compared == 25
    synonyms = {"allow_zero_data_retention"}
    sent = set(types.EmbedFields.__annotations__) | {"input", "model", "encoding_format"}
    assert sent == set(schemas["EmbeddingsRequest"]["properties"]) - synonyms


def test_backoff_as_other_sdks_take_it() -> None:
    """Retries are configured by position as in SDKs of that make."""
    config = RetryConfig("backoff", BackoffStrategy(1, 50, 1.1, 100), False)
    assert (config.backoff.max_interval, config.retry_connection_errors) == (50, False)
    with pytest.raises(ValueError, match="strategy 'sometimes'"):
        RetryConfig("sometimes")
    with SDK("k") as sdk, pytest.raises(TypeError, match="must be a RetryConfig"):
        sdk.llm.embeddings.embed(input="a", retries=0)
    with SDK("k") as sdk, pytest.raises(TypeError, match=r"Embeddings\.embed\(\)"):
        sdk.llm.embeddings.embed("a")
    with SDK(lambda: 1) as sdk, pytest.raises(TypeError, match="bearer_auth returned a int"):
        sdk.llm.embeddings.embed(input="a")


def test_the_readme(gateway: Gateway, admin: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    """All examples of the README work; the quick start has five lines."""
    monkeypatch.setenv("EMBEDWAY_BASE_URL", gateway.url)
    scopes = ["--scope=embeddings", "--scope=tokens", "--scope=on_behalf_of"]
    monkeypatch.setenv("EMBEDWAY_API_KEY", gateway.new_key("readme", *scopes)["key"])
    blocks = [part.split("```")[0] for part in README.read_text().split("```python\n")[1:]]
    assert len([line for line in blocks[0].splitlines() if line]) == 5
    stored: list[int] = []
    with SDK() as sdk:
        scope: dict = {"lines": iter("abc"), "store": lambda index, _: stored.append(index)}
        for block in blocks:
            program = block.replace("http://127.0.0.1:8080", gateway.url)
            program = program.replace("sk-gateway-...", gateway.key).replace("bge-m3", "auto")
            scope["sdk"] = admin if "organization" in block else sdk
            code = compile(program, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if (coroutine := eval(code, scope)) is not None:
                asyncio.run(coroutine)
    assert stored == [0, 1, 2]
    assert scope["res"].usage.prompt_tokens == 6
    assert scope["token"].count(".") == 2
