"""The Python SDK against servers that fail, lie, stall or break off."""

import asyncio
import base64
import itertools
import json
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator

import embedway_sdk
import httpx2
import numpy as np
import pytest
from embedway_sdk import SDK, BackoffStrategy, RetryConfig, many, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.testing import MISBEHAVIOURS, Misbehaviour, Upstream, UpstreamReply, vector_of

TEXTS = ["one", "two", "three"]
SOON = BackoffStrategy(initial_interval=1, max_interval=2)
NEVER = RetryConfig("none")
STALLS = {name for name in MISBEHAVIOURS if "stall" in name} | {"never answers", "slow drip"}
NOT_TRIED = {
    "1xx forever": "httpx reads them for ever; nothing but a lying gateway sends them",
    "endless body": "it fills the memory until the deadline",
    "endless refusal": "likewise",
    "endless head": "it is refused only after megabytes",
    "endless header": "likewise",
}
UNSEEN = {"all zeros", "base64 of zeros", "base64 of NaN", "base64 of infinity"}
"""Only work on each number finds these. The gateway does that, and sends none of them."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    # One for each test, because a request that was cancelled may still arrive.
    with Upstream() as running:
        yield running


@pytest.fixture
def sdk(upstream: Upstream) -> Iterator[SDK]:
    with SDK("k", server_url=upstream.url, retry_config=RetryConfig(backoff=SOON)) as sdk:
        yield sdk


def run(awaitable: Callable) -> object:
    async def all_of_it() -> object:
        return await awaitable()

    return asyncio.run(all_of_it())


def headed(**headers: str) -> Misbehaviour:
    """Make a proper answer with more headers."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Misbehaviour(
        reply=lambda _, reply: UpstreamReply(
            status=reply.status, body=reply.body, headers={**reply.headers, **more}
        )
    )


def refused(status: int, **headers: str) -> UpstreamReply:
    """Make an error as a gateway answers it."""
    error = {"message": "no", "type": "t", "param": None, "code": None}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamReply(
        status=status,
        body=json.dumps({"error": error}).encode(),
        headers={"content-type": "application/json", **more},
    )


# Lies


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
@pytest.mark.parametrize("name", sorted(set(MISBEHAVIOURS) - set(NOT_TRIED)))
def test_the_right_vectors_or_an_error(upstream: Upstream, name: str, asynchronous: bool) -> None:
    """Whatever a server does, a call ends in the right vectors or an error of the SDK."""
    upstream.reset()
    upstream.always(name)
    timeout_ms = 300 if name in STALLS else 60_000
    fields = {"input": TEXTS, "model": "m", "dimensions": 32}

    async def embed() -> embedway_sdk.EmbeddingsResponse:
        async with SDK(
            "k", server_url=upstream.url, retry_config=NEVER, timeout_ms=timeout_ms
        ) as sdk:
            if asynchronous:
                return await sdk.llm.embeddings.embed_async(**fields)
            return sdk.llm.embeddings.embed(**fields)

    try:
        res = run(embed)
    except embedway_sdk.TimeoutError:
        assert name in STALLS
        return
    except embedway_sdk.EmbedwayError:
        return
    if name not in UNSEEN:
        assert np.allclose(res.numpy(), [vector_of(text, 32) for text in TEXTS], atol=1e-4)
        assert [each.embedding for each in res.data] == res.numpy().tolist()


@pytest.mark.parametrize(
    "sent", ["AAAA", "AAAAAAA*AAA=", "AAAAAAA", "é", "", 7, None, [[1.0]], {"a": 1}]
)
def test_vectors_that_are_none(upstream: Upstream, sdk: SDK, sent: object) -> None:
    """Base64 of another length or with other characters is refused, not skipped or read as 0."""
    good = base64.b64encode(np.ones(2, "<f4").tobytes()).decode()
    data = [{"index": 0, "embedding": good}, {"index": 1, "embedding": sent}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    body = {"object": "list", "data": data, "model": "m", "usage": usage}
    upstream.script(UpstreamReply(body=json.dumps(body).encode()))
    with pytest.raises(embedway_sdk.InvalidResponseError) as caught:
        sdk.llm.embeddings.embed(input=["a", "b"])
    assert caught.value.may_be_billed


def test_a_machine_of_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numbers are stored the other way round, bytes are swapped once, all together."""
    monkeypatch.setattr(vectors.sys, "byteorder", {"little": "big"}.get(sys.byteorder, "little"))
    texts = [base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode()]
    decoded, width = vectors._decode(texts)
    assert (np.frombuffer(decoded, ">f4").tolist(), width) == ([1, 2], 2)


# Retries


@pytest.mark.parametrize(
    "step",
    [
        *(refused(408), refused(429), refused(502), refused(503), refused(504)),
        refused(429, retry_after_ms="1"),
        refused(500, x_should_retry="true"),
    ],
    ids=lambda step: f"{step.status} {dict(step.headers)}",
)
def test_tried_again(upstream: Upstream, sdk: SDK, step: UpstreamReply) -> None:
    """A call that the gateway refused without charging is tried again."""
    upstream.script(step, step)
    assert sdk.llm.embeddings.embed(input="a").data
    assert len(upstream.calls) == 3
    upstream.script(step, step)
    assert run(lambda: asynchronously(upstream, RetryConfig(backoff=SOON))).data
    assert len(upstream.calls) == 6


async def asynchronously(
    upstream: Upstream, retry_config: RetryConfig, **options: object
) -> embedway_sdk.EmbeddingsResponse:
    async with SDK("k", server_url=upstream.url, retry_config=retry_config, **options) as sdk:
        return await sdk.llm.embeddings.embed_async(input="a")


@pytest.mark.parametrize(
    "step",
    [
        *(refused(400), refused(401), refused(403), refused(404), refused(409), refused(500)),
        refused(429, x_should_retry="false"),
        refused(503, x_should_retry="false", retry_after="0"),
        *("502 HTML", "503 with Retry-After", "504"),  # a proxy's: the gateway may have answered
        *("reset before the head", "reset in the body", "close in the body", "too few vectors"),
    ],
    ids=str,
)
def test_not_tried_again(upstream: Upstream, sdk: SDK, step: str | UpstreamReply) -> None:
    """A call that cannot succeed, or that may have been billed, is sent once."""
    upstream.script(step)
    with pytest.raises(embedway_sdk.EmbedwayError) as caught:
        sdk.llm.embeddings.embed(input="a")
    assert len(upstream.calls) == 1
    known = isinstance(step, UpstreamReply) and step.status != 503
    assert caught.value.may_be_billed == (not known)
    upstream.script(step)
    with pytest.raises(embedway_sdk.EmbedwayError):
        run(lambda: asynchronously(upstream, RetryConfig(backoff=SOON)))
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("step", ["502 HTML", "reset in the body", "stalls in the body"])
def test_tried_again_if_asked(upstream: Upstream, sdk: SDK, step: str) -> None:
    """With `retry_billed`, what may have been billed is tried again; a GET always is."""
    upstream.script(step)
    retries = RetryConfig(backoff=SOON, retry_billed=True)
    assert sdk.llm.embeddings.embed(input="a", retries=retries, timeout_ms=500).data
    assert len(upstream.calls) == 2
    with SDK(
        "k", server_url=upstream.url, retry_config=RetryConfig(backoff=SOON), timeout_ms=500
    ) as other:
        upstream.script(step)
        with pytest.raises(embedway_sdk.EmbedwayError):
            other.llm.embeddings.list_models()  # this server lists none
    assert len(upstream.calls) == 4


def test_how_long_it_waits(upstream: Upstream, sdk: SDK) -> None:
    """It waits as long as the server asks, and not at all if that is too long."""
    upstream.script(refused(429, retry_after_ms="400"))
    start = time.monotonic()
    sdk.llm.embeddings.embed(input="a")
    assert time.monotonic() - start >= 0.4
    upstream.script(refused(429, retry_after="121"))
    with pytest.raises(embedway_sdk.RateLimitError) as caught:
        sdk.llm.embeddings.embed(input="a")
    assert caught.value.retry_after_s == 121


def test_how_often_it_tries(upstream: Upstream, sdk: SDK) -> None:
    """It retries twice, but waits for a rate limit as often as it is told."""
    upstream.always(refused(503))
    with pytest.raises(embedway_sdk.ServerError):
        sdk.llm.embeddings.embed(input="a")
    assert len(upstream.calls) == 3
    upstream.reset()
    upstream.script(*[refused(429, retry_after_ms="1")] * 20)
    assert sdk.llm.embeddings.embed(input="a").data
    assert len(upstream.calls) == 21


@pytest.mark.parametrize("step", [refused(429, retry_after="0"), "429 of a past date"], ids=str)
def test_no_wait_is_no_free_retry(upstream: Upstream, sdk: SDK, step: str | UpstreamReply) -> None:
    """A 429 that names no time to wait counts as a retry."""
    upstream.always(step)
    with pytest.raises(embedway_sdk.RateLimitError):
        sdk.llm.embeddings.embed(input="a")
    assert len(upstream.calls) == 3


def test_an_answer_that_is_wrong_is_never_paid_twice(upstream: Upstream, sdk: SDK) -> None:
    """Not even `retry_billed` sends a request again whose answer came whole, but wrong."""
    upstream.always("too many vectors")
    with pytest.raises(embedway_sdk.InvalidResponseError):
        sdk.llm.embeddings.embed(input="a", retries=RetryConfig(backoff=SOON, retry_billed=True))
    assert len(upstream.calls) == 1


def test_objects_that_lack_fields(upstream: Upstream, sdk: SDK) -> None:
    """An answer that is another object than asked for is no object full of None."""
    upstream.always(UpstreamReply(body=b'{"object": "list"}'))
    with pytest.raises(embedway_sdk.InvalidResponseError, match="is missing"):
        sdk.organization.projects.get("proj_1")
    with pytest.raises(embedway_sdk.InvalidResponseError):
        sdk.organization.projects.list()


def test_errors_travel_between_processes(upstream: Upstream, sdk: SDK) -> None:
    """Errors can be pickled, as process pools do, and keep what they know."""
    upstream.script(refused(429, retry_after="7", x_should_retry="false"), "reset before the head")
    for kind in (embedway_sdk.RateLimitError, embedway_sdk.ConnectionError):
        with pytest.raises(kind) as caught:
            sdk.llm.embeddings.embed(input="a")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy)) == (kind, str(caught.value))
        assert copy.may_be_billed == caught.value.may_be_billed
    assert (caught.value.may_be_billed, copy.first_index) == (True, 0)


def test_hooks_of_ones_own(upstream: Upstream) -> None:
    """A hook's request keeps the timeout; what a hook raises reaches the caller."""
    seen: list[httpx2.Response] = []

    def replaced(request: httpx2.Request) -> httpx2.Request:
        return httpx2.Request("POST", request.url, headers=request.headers, content=request.read())

    hooks = embedway_sdk.Hooks(replaced, seen.append)
    with SDK("k", server_url=upstream.url, timeout_ms=7000, hooks=hooks) as sdk:
        sdk.llm.embeddings.embed(input="a")
    assert seen[0].request.extensions["timeout"]["read"] == 7
    upstream.script(refused(400))
    hooks = embedway_sdk.Hooks(after_response=lambda response: response.raise_for_status())
    with (
        SDK("k", server_url=upstream.url, hooks=hooks) as sdk,
        pytest.raises(httpx2.HTTPStatusError),
    ):
        sdk.llm.embeddings.embed(input="a")


def test_headers_of_ones_own(upstream: Upstream) -> None:
    """A header replaces the SDK's in any case of letters, except for the key."""
    upstream.reset()
    headers = {"USER-AGENT": "mine", "Authorization": "Basic x", "X-More": "1"}
    with SDK("k", server_url=upstream.url, http_headers=headers) as sdk:
        sdk.llm.embeddings.embed(input="a", http_headers={"x-more": "2"})
    [call] = upstream.calls
    sent = {name: call.headers[name] for name in ("user-agent", "authorization", "x-more")}
    assert sent == {"user-agent": "mine", "authorization": "Bearer k", "x-more": "2"}


FORK = """
import os, sys
import numpy as np
from embedway.testing import vector_of
from embedway_sdk import SDK

sdk = SDK("k", server_url=sys.argv[1])
sdk.llm.embeddings.embed(input="parent")
children = []
for number in range(4):
    if not (child := os.fork()):
        for turn in range(50):
            text = f"{number} {turn}"
            found = sdk.llm.embeddings.embed(input=text).numpy()
            if not np.allclose(found, vector_of(text), atol=1e-6):
                os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_forked_processes(upstream: Upstream) -> None:
    """Processes that were forked from one that had called use connections of their own."""
    upstream.reset()
    command = [sys.executable, "-c", FORK, upstream.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_connection(upstream: Upstream) -> None:
    """A connection that is refused is tried again, and the error is also Python's own."""
    waits: list[embedway_sdk.EmbedwayError] = []
    hooks = embedway_sdk.Hooks(on_error=waits.append)
    retries = RetryConfig(backoff=SOON)
    with (
        SDK("k", server_url="http://127.0.0.1:1", retry_config=retries, hooks=hooks) as sdk,
        pytest.raises(ConnectionError, match=r"http://127.0.0.1:1/v1/embeddings") as caught,
    ):
        sdk.llm.embeddings.embed(input="a")
    assert isinstance(caught.value, embedway_sdk.ConnectionError)
    assert not caught.value.may_be_billed
    assert len(waits) == 3
    upstream.always("never answers")
    with pytest.raises(TimeoutError, match="timeout_ms=100"):
        run(lambda: asynchronously(upstream, retries, timeout_ms=100))
    upstream.reset()


# Many


def spaced(space: str, **headers: str) -> Misbehaviour:
    return headed(x_embedway_space=space, x_embedway_cost_usd="0.1", **headers)


def both_ways(
    upstream: Upstream, made: Callable[[SDK], embedway_sdk.EmbedMany]
) -> list[Callable[[], list[int]]]:
    """Return two functions that read `embed_many` to its end or its error, blocking and not."""
    options = {"server_url": upstream.url, "retry_config": RetryConfig(backoff=SOON)}

    def read() -> list[int]:
        with SDK("k", **options) as sdk:
            return [each.index for each in made(sdk)]

    async def read_async() -> list[int]:
        async with SDK("k", **options) as sdk:
            return [each.index async for each in made(sdk)]

    return [read, lambda: asyncio.run(read_async())]


def test_pieces_of_two_spaces_are_not_joined(upstream: Upstream, sdk: SDK) -> None:
    """The first request with vectors of another space, or of none, ends it."""
    options = {"max_items": 1, "concurrency": 1}
    for read in both_ways(upstream, lambda sdk: sdk.llm.embeddings.embed_many(TEXTS, **options)):
        upstream.script(spaced("a"), spaced("a"), spaced("b"))
        with pytest.raises(embedway_sdk.SpaceMismatchError, match=r"from 2 on.*'b'.*'a'"):
            read()
        upstream.reset()
        upstream.script(spaced("a"))
        with pytest.raises(embedway_sdk.SpaceMismatchError, match="names no space"):
            read()
        upstream.reset()


def test_a_piece_is_tried_again_alone(upstream: Upstream, sdk: SDK) -> None:
    """A request that fails is sent again; those that succeeded are not."""
    upstream.always(spaced("a"))
    upstream.script(spaced("a"), refused(503), spaced("a"), refused(503))
    many = sdk.llm.embeddings.embed_many(map(str, range(6)), max_items=1, concurrency=1)
    assert np.allclose(many.numpy(), [vector_of(str(number)) for number in range(6)])
    assert len(upstream.calls) == 8
    assert str(many.cost_usd) == "0.6"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_the_window_is_bounded(upstream: Upstream, sdk: SDK, asynchronous: bool) -> None:
    """Inputs are read and answers kept only as far ahead as the window reaches."""
    upstream.always(spaced("a"))
    alive: weakref.WeakSet = weakref.WeakSet()
    read = most = 0

    def inputs() -> Iterator[str]:
        nonlocal read
        for read in range(1, 201):
            yield str(read)

    result = sdk.llm.embeddings.embed_many(inputs(), max_items=2, concurrency=3)

    def taken(each: embedway_sdk.Embedding) -> None:
        nonlocal most
        assert read - each.index <= 2 * (2 * 3) + 2
        alive.add(each._vectors)
        most = max(most, len(alive))

    async def take() -> None:
        async for each in result:
            taken(each)
        await sdk.aclose()

    if asynchronous:
        asyncio.run(take())
    else:
        for each in result:
            taken(each)
    assert upstream.most_at_once <= 3
    assert most <= 2


def test_leaving_early(upstream: Upstream, sdk: SDK) -> None:
    """To stop reading stops sending, and leaves no thread and no task behind."""
    options = {"max_items": 1, "concurrency": 2}
    first, later = spaced("a"), refused(429, retry_after="5")
    upstream.always(
        Misbehaviour(
            reply=lambda call, reply: (
                first.reply(call, reply) if call.body["input"] == ["0"] else later
            )
        )
    )
    iterator = iter(sdk.llm.embeddings.embed_many(map(str, range(1000)), **options))
    assert next(iterator).index == 0
    iterator.close()
    assert len(upstream.calls) <= 5
    assert not [each for each in threading.enumerate() if "embed_many" in each.name]

    async def leave() -> int:
        inputs = map(str, range(1000))
        async with SDK("k", server_url=upstream.url) as other:
            reading = aiter(other.llm.embeddings.embed_many(inputs, **options))
            await anext(reading)
            await reading.aclose()
        return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1


def test_inputs_that_fail(upstream: Upstream, sdk: SDK) -> None:
    """An error of the caller's own inputs comes after the results of those before it."""
    upstream.always(spaced("a"))

    def inputs() -> Iterator[str]:
        yield from "abc"
        raise LookupError("no more")

    result = iter(sdk.llm.embeddings.embed_many(inputs(), max_items=1))
    assert [next(result).index for _ in range(2)] == [0, 1]  # the last was not sent yet
    with pytest.raises(LookupError, match="no more"):
        next(result)
    for read in both_ways(upstream, lambda sdk: sdk.llm.embeddings.embed_many(inputs())):
        with pytest.raises(LookupError, match="no more"):
            read()
    for read in both_ways(upstream, lambda sdk: sdk.llm.embeddings.embed_many([1, 2])):
        with pytest.raises(TypeError, match="texts or lists of token ids, not 1"):
            read()


def test_inputs_that_wait_for_results(upstream: Upstream) -> None:
    """Results come as soon as they are there, even while the inputs pause."""
    upstream.always(spaced("a"))

    async def read() -> list[int]:
        first, found = asyncio.Event(), []

        async def inputs() -> AsyncIterator[str]:
            for text in "abc":
                yield text
            await first.wait()
            yield "d"

        async with SDK("k", server_url=upstream.url) as sdk:
            async for each in sdk.llm.embeddings.embed_many(inputs(), max_items=1):
                found.append(each.index)
                first.set()
        return found

    assert asyncio.run(read()) == [0, 1, 2, 3]


@pytest.mark.parametrize("step", ["close before the head", refused(400)], ids=str)
def test_every_error_says_which_request_it_is_of(upstream: Upstream, step: object) -> None:
    """`first_index` is there whatever ended a request."""
    options = {"max_items": 2, "concurrency": 1}
    for read in both_ways(
        upstream, lambda sdk: sdk.llm.embeddings.embed_many(list("abcde"), **options)
    ):
        upstream.reset()
        upstream.always(spaced("a"))
        upstream.script(spaced("a"), step)
        with pytest.raises(embedway_sdk.EmbedwayError, match="index 2") as caught:
            read()
        assert caught.value.first_index == 2


@given(
    st.lists(st.text(max_size=40) | st.lists(st.integers(0, 9), max_size=40), max_size=60),
    st.integers(1, 9),
    st.integers(1, 60),
)
@settings(deadline=None)
def test_cutting(inputs: list, max_items: int, max_size: int) -> None:
    """Requests hold all inputs in order, within both limits unless one input alone is larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "MAX_SIZE", max_size)
        cut = list(many._cut(many.Cutter(max_items), inputs))
    assert list(itertools.chain(*cut)) == inputs
    for piece in cut:
        size = sum(len(each.encode()) if isinstance(each, str) else len(each) for each in piece)
        assert 0 < len(piece) <= max_items
        assert size <= max_size or len(piece) == 1
    for piece, following in itertools.pairwise(cut):
        joined = [*piece, following[0]]
        size = sum(len(each.encode()) if isinstance(each, str) else len(each) for each in joined)
        assert len(joined) > max_items or size > max_size
