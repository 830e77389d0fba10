"""Ways that once led a request astray: to who may not have it, or to vectors of another space.

Each test has a whole gateway in this process, whose clocks stand still until they are set, and
asks real servers.
"""

import asyncio
import functools
import json
import tomllib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import numpy as np
import pytest
from conftest import Minilm, embedway
from in_process import running, settled

from embedway import process_parts
from embedway.config.settings import ConfigError
from embedway.core import clock
from embedway.core.request import EmbedRequest
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.spaces.canaries import CANARIES
from embedway.storage.store import open_store
from embedway.testing import (
    Item,
    Misbehaviour,
    Upstream,
    UpstreamCall,
    UpstreamReply,
    shorten_vector,
    space,
)
from embedway.tokenizing.cl100k import Cl100kTokenizer

TRUE = space("m")
OTHER = space("another model")
WIDTH = 64

Names = tuple[str, ...] | None


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test, in an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))  # pyright: ignore[reportArgumentType]

    return run


class Clock:
    """Stands still; `now_s` and `now_ms` are set apart, as a wall clock can be set back."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ms = clock.now_ms()
        self.leap_ms = 0
        """By which the wall clock goes on whenever somebody looks at it."""

    def now_s(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        self.ms += self.leap_ms
        return self.ms

    def forward(self, seconds: float) -> None:
        self.seconds += seconds
        self.ms += round(seconds * 1000)


class Asked:
    """A gateway that runs, and how to ask it."""

    def __init__(self, world: "World", gateway: Any, clock: Clock) -> None:
        self.clock = clock
        self._world = world
        self._gateway = gateway

    async def __call__(
        self, model: str = "m", text: str | list[str] = "hello", *, key: str = "", **fields: Any
    ) -> httpx.Response:
        """The answer to one request."""
        transport = httpx.ASGITransport(app=self._gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            dry = fields.pop("dry", False)
            return await client.post(
                f"/v1/embeddings{'?dry_run=true' if dry else ''}",
                json={"model": model, "input": text, **fields},
                headers={"authorization": f"Bearer {key or self._world.key()}"},
            )

    async def proven(self, *names: str) -> None:
        """Asks each, so that it is known of which space it is."""
        for name in names:
            reply = await self(name, "a text of which nothing is made")
            assert reply.status_code == 200, reply.text
            await settled()

    async def drifted(self, name: str) -> None:
        """Lets it be found out, by an answer that shows it, that a deployment is another now."""
        upstream = self._world.upstreams[name.partition(":")[0]]
        upstream.vectors, upstream.echo = OTHER, "another"
        assert (await self(name)).status_code == 502
        upstream.echo = ""

    async def released(self, name: str) -> None:
        """Lets the seconds pass after which an operator's release is seen."""
        self.clock.forward(6)
        for _ in range(500):
            if (await self(name)).status_code == 200:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{name} is not released")


class World:
    """Three servers, a folder, and the gateways on it."""

    def __init__(self, folder: Path, upstreams: Mapping[str, Upstream]) -> None:
        self.folder = folder
        self.upstreams = upstreams
        self.a, self.b, self.c = upstreams.values()
        self.store = open_store(folder / "data")
        self._keys: dict[tuple[Names, Names], str] = {}

    def key(self, *, models: Names = None, providers: Names = None) -> str:
        """A key for these alone."""
        if (models, providers) not in self._keys:
            shown, key = key_secret.issue_key(
                "tests",
                pepper=self.store.pepper,
                now_ms=clock.now_ms(),
                models=models,
                providers=providers,
            )
            KeyBootstrap(self.store.database).create(key)
            self._keys[models, providers] = shown
        return self._keys[models, providers]

    def provider(self, name: str, *said: str, kind: str = "openai", id: str = "m") -> str:
        """A section of embedway.toml; of the model is said that it is `WIDTH` wide, and more."""
        lines = [
            f"[providers.{name}]",
            f'kind = "{kind}"',
            f'base_url = "{self.upstreams[name].url}/{kind}/v1"',
            'api_key = "k"',
            f"[[providers.{name}.models]]",
            f'id = "{id}"',
            'price_per_mtok_usd = "0.1"',
            *(said or (f"dimensions = {WIDTH}",)),
        ]
        return "\n".join(lines)

    @asynccontextmanager
    async def gateway(self, *sections: str, clock: Clock | None = None) -> AsyncGenerator[Asked]:
        """A gateway with these sections in embedway.toml; others may run on the same folder."""
        toml = "\n".join(sections)
        (self.folder / "embedway.toml").write_text(toml)
        clock = clock or Clock()
        values = tomllib.loads(toml)
        async with running(
            values, folder=self.folder, now_ms=clock.now_ms, now_s=clock.now_s
        ) as gateway:
            yield Asked(self, gateway, clock)
            await settled()

    async def release(self, *arguments: str) -> None:
        """`embedway spaces release`, as an operator runs it beside the gateway."""
        env = {"EMBEDWAY_DATA_DIR": str(self.folder / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}
        command = functools.partial(embedway, "spaces", "release", *arguments, env=env)
        done = await asyncio.to_thread(command, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def received(self, text: str) -> Counter[str]:
        """How often each server was sent this text."""
        return Counter(
            name
            for name, upstream in self.upstreams.items()
            for call in upstream.calls
            if text in each_of(call.body["input"])
        )

    def probes(self, name: str) -> int:
        """How often a server was sent the canaries."""
        return self.received(CANARIES[0])[name]


def each_of(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def space_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["x-embedway-space"]


def vector(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["data"][0]["embedding"], np.float32)


def is_of(reply: httpx.Response, true: Any) -> bool:
    answered = vector(reply)
    return answered.shape == true.shape and bool(np.allclose(answered, true, atol=1e-6))


def write_canaries(world: World, width: int) -> None:
    """Puts `canaries.json` of a space without deployments next to embedway.toml."""
    texts = ["one", "two", "three"]
    vectors = [space("supplied")(text, width).tolist() for text in texts]
    file = world.folder / "canaries.json"
    file.write_text(json.dumps({"texts": texts, "vectors": vectors}))


def held(*, by: asyncio.Event, then: str = "") -> Misbehaviour:
    """Answers rightly, or with 500, but only once the event is set."""

    async def wire(_: Any, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        while not by.is_set():  # it is of another loop
            await asyncio.sleep(0.01)
        failure = f"HTTP/1.1 {then}\r\ncontent-length: 0\r\n\r\n".encode()
        writer.write(failure if then else head + body)
        await writer.drain()

    return Misbehaviour(wire=wire)


@pytest.fixture(scope="module")
def upstreams(minilm: Minilm) -> Iterator[dict[str, Upstream]]:
    """Three servers that have the true model."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Upstream(vectors=TRUE)) for name in "abc"}


@pytest.fixture
def world(upstreams: dict[str, Upstream], tmp_path: Path) -> Iterator[World]:
    """Fresh servers and an empty folder."""
    for each in upstreams.values():
        each.reset()
    made = World(tmp_path, upstreams)
    yield made
    made.store.database.dispose()


@pytest.mark.parametrize("models", [("a:m",), ("x",)], ids=["deployment", "alias"])
@in_a_loop
async def test_a_fallback_must_be_allowed_too(world: World, models: tuple[str, ...]) -> None:
    """A key for some models reaches no other through `fallbacks`, but those it may use."""
    names = '[aliases]\nx = "a:m"'
    async with world.gateway(names, world.provider("a"), world.provider("b")) as ask:
        await ask.proven("a:m", "b:m")
        world.a.always("500")
        key = world.key(models=models)
        refused = await ask(models[0], "for a alone", key=key, fallbacks=["b:m"])
        assert refused.status_code == 502
        assert not world.received("for a alone")["b"]
        key = world.key(models=(*models, "b:m"))
        allowed = await ask(models[0], "for both", key=key, fallbacks=["b:m"])
        assert allowed.status_code == 200
        assert world.received("for both")["b"] == 1


def cut_oddly(call: UpstreamCall, reply: UpstreamReply) -> UpstreamReply:
    """What a provider answers that shortens otherwise than by taking the start."""
    if "dimensions" not in call.body:
        return reply
    body = json.loads(reply.body)
    for entry in body["data"]:
        entry["embedding"] = space("cut otherwise")("", call.body["dimensions"]).tolist()
    return msgspec.structs.replace(reply, body=json.dumps(body).encode())


@in_a_loop
async def test_widths_that_are_cut_here(world: World) -> None:
    """A deployment that shortens differently is in the space: it is asked for whole vectors."""
    for each in (world.a, world.b):
        each.always(Misbehaviour(reply=cut_oddly))
    said = (f"dimensions = {WIDTH}", "trained_dimensions = [16, 32]")
    async with world.gateway(world.provider("a", *said), world.provider("b", *said)) as ask:
        first = await ask(dimensions=32)
        assert is_of(first, shorten_vector(TRUE("hello", WIDTH), 32))
        await ask.proven("b:m")
        for provider in "ab":
            for width in (16, 32):
                reply = await ask(dimensions=width, allowed_providers=[provider])
                assert is_of(reply, shorten_vector(TRUE("hello", WIDTH), width))
                assert space_of(reply).startswith("m@a/")
                assert space_of(reply).endswith(f"/{width}")


@pytest.mark.parametrize(
    ("said", "width"),
    [
        (("trained_dimensions = [16, 32]",), 32),
        ((f"dimensions = {WIDTH}", 'trained_dimensions = "unknown"'), 32),
        ((f"dimensions = {WIDTH}", f"trained_dimensions = [{WIDTH}, 128]"), 128),
    ],
    ids=["of a model of unknown width", "not known to be trained for", "wider"],
)
@in_a_loop
async def test_widths_that_cannot_be_cut_here(
    world: World, said: tuple[str, ...], width: int
) -> None:
    """What no canary proves is asked of whom the name means alone, in a space of its own."""
    for each in (world.a, world.b):
        each.always(Misbehaviour(reply=cut_oddly))
    if width > WIDTH:
        said = (*said, f"native_dimensions = {width}")
    async with world.gateway(world.provider("a", *said), world.provider("b", *said)) as ask:
        await ask.proven("a:m", "b:m")
        for _ in range(4):
            reply = await ask(text="short", dimensions=width)
            assert space_of(reply).startswith("m@a/")
        assert set(world.received("short")) == {"a"}
        refused = await ask(dimensions=width, allowed_providers=["b"])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")
        assert space_of(await ask("b:m", dimensions=width)).startswith("m@b/")


@in_a_loop
async def test_a_parameter_of_a_provider_after_a_release(world: World) -> None:
    """`extra_body` names the deployment's space as it is now, and the bare name still means it."""
    home = '[models.m]\nreference = "a"'
    providers = (world.provider("b"), world.provider("a", kind="nvidia"))
    async with world.gateway(home, *providers) as ask:
        await ask.proven("a:m")
        before = space_of(await ask("a:m", extra_body={"modality": "text"}))
        assert before.startswith("m@a/")
        await ask.drifted("a:m")
        await world.release("a:m", "--accept")
        await ask.released("a:m")
        for name in ("a:m", "m"):
            reply = await ask(name, "with more", extra_body={"modality": "text"})
            assert is_of(reply, OTHER("with more", WIDTH))
            assert space_of(reply) == before.replace("m@a/", "m@a~2/")
        assert world.received("with more") == {"a": 2}


@in_a_loop
async def test_an_answer_across_a_release(world: World) -> None:
    """What was asked of the old space is not answered with vectors of the new one."""
    async with world.gateway(world.provider("a")) as ask:
        await ask.proven("a:m")
        let_go = asyncio.Event()
        world.a.vectors = OTHER
        world.a.script(held(by=let_go))
        slow = asyncio.create_task(ask("a:m", "slow"))
        while not world.received("slow"):
            await asyncio.sleep(0.01)
        await ask.drifted("a:m")
        await world.release("a:m", "--accept")
        await ask.released("a:m")
        assert space_of(await ask("a:m")).startswith("m@a~2/")
        let_go.set()
        reply = await slow
        assert reply.status_code == 502, (reply.headers, reply.text)


@pytest.mark.parametrize("at_first", [True, False], ids=["taken out", "put in"])
@in_a_loop
async def test_supplied_canaries_forgive_nothing(world: World, *, at_first: bool) -> None:
    """Whether the operator supplies some, and since when: who drifted is found out."""
    write_canaries(world, WIDTH)
    supplied = '[models.m]\ncanaries = "canaries.json"'
    sections = [[world.provider("a")], [supplied, world.provider("a")]]
    if at_first:
        sections.reverse()
    async with world.gateway(*sections[0]) as ask:
        await ask.proven("a:m")
    world.a.vectors = OTHER
    for again in (sections[1], sections[0]):
        async with world.gateway(*again) as ask:
            assert (await ask("a:m")).status_code == 502


@in_a_loop
async def test_a_name_that_is_not_proven_yet(world: World) -> None:
    """It is proven before anybody is asked for it, so it means the same space from the start."""
    world.c.vectors = OTHER
    async with world.gateway(world.provider("a"), world.provider("c")) as ask:
        await ask.proven("a:m")
        for _ in range(2):
            refused = await ask("c:m", "other", fallbacks=["a:m"])
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "fallbacks")
        assert not world.received("other")
        assert space_of(await ask("c:m")).startswith("m@c/")


@in_a_loop
async def test_an_alias_of_several(world: World) -> None:
    """The name means the model's home, whatever is listed first or known."""
    world.c.vectors = OTHER
    names = '[aliases]\nx = ["c:m", "a:m"]'
    async with world.gateway(names, world.provider("a"), world.provider("c")) as ask:
        for _ in range(3):
            reply = await ask("x")
            assert space_of(reply).startswith("m@a/")
            assert is_of(reply, TRUE("hello", WIDTH))
            await settled()


@in_a_loop
async def test_one_request_has_one_space(world: World) -> None:
    """The space is the same whichever deployment serves it, with or without input types."""
    world.b.purposes = {"query": TRUE}
    providers = (world.provider("a"), world.provider("b", kind="voyage"))
    async with world.gateway(*providers) as ask:
        await ask.proven("a:m", "b:m")
        spaces: dict[str, str] = {}
        for provider in "ab":
            await ask(input_type="query", allowed_providers=[provider])
            await settled()
            reply = await ask(input_type="query", allowed_providers=[provider])
            assert reply.headers["x-embedway-provider"] == provider
            spaces[provider] = space_of(reply)
        dry = await ask(input_type="query", dry=True)
        assert set(spaces.values()) == {dry.json()["space"].replace("/prompt-retrieval", "")}


@in_a_loop
async def test_an_input_type_that_the_space_ignores_is_sent_to_none(world: World) -> None:
    """Where the first deployment ignores `input_type`, all others embed without it too."""
    world.b.purposes = {"query": OTHER}
    providers = (world.provider("a"), world.provider("b", kind="voyage"))
    async with world.gateway(*providers) as ask:
        await ask.proven("a:m", "b:m")
        assert (await ask("b:m", "pinned", input_type="query")).status_code == 200
        pinned = await ask("b:m", "pinned", input_type="query")
        assert is_of(pinned, OTHER("pinned", WIDTH))
        assert "/prompt-retrieval/" in pinned.headers["x-embedway-space"]
        reply = await ask("m", "hello", input_type="query", allowed_providers=["b"])
        assert reply.headers["x-embedway-provider"] == "b"
        assert "/prompt-none/" in reply.headers["x-embedway-space"]
        assert is_of(reply, TRUE("hello", WIDTH))


@in_a_loop
async def test_drift_that_another_process_saw(world: World) -> None:
    """A use some time later is enough for it to be seen here, too."""
    provider = world.provider("a")
    async with world.gateway(provider) as one, world.gateway(provider) as other:
        await one.proven("a:m")
        other.clock.forward(31)
        await other.proven("a:m")
        await one.drifted("a:m")
        other.clock.forward(31)
        await other("a:m")
        await settled()
        asked = world.probes("a")
        assert (await other("a:m")).status_code == 502
        assert world.probes("a") == asked


@in_a_loop
async def test_a_clock_that_was_set_back(world: World) -> None:
    """What was believed later than it is now is no longer believed without a look."""
    async with world.gateway(world.provider("a")) as ask:
        await ask.proven("a:m")
        assert (await ask("a:m")).status_code == 200
        world.a.vectors = OTHER
        ask.clock.ms -= 86_400_000
        assert (await ask("a:m")).status_code == 502


@in_a_loop
async def test_a_release_by_another_clock(world: World) -> None:
    """A release counts even if its clock is behind the one that saw the drift."""
    async with world.gateway(world.provider("a")) as ask:
        ask.clock.forward(60)
        await ask.proven("a:m")
        await ask.drifted("a:m")
        world.a.vectors = TRUE
        await world.release("a:m")
        await ask.released("a:m")
        assert is_of(await ask("a:m"), TRUE("hello", WIDTH))


@in_a_loop
async def test_the_last_resort_is_asked(world: World) -> None:
    """Where all have failed too often, the one that is planned first is asked first."""
    order = '[models.m]\norder = ["a", "b"]'
    async with world.gateway(order, world.provider("a"), world.provider("b")) as ask:
        await ask.proven("a:m", "b:m")
        for name, upstream in (("a", world.a), ("b", world.b)):
            upstream.always("401")
            for _ in range(5):
                await ask(f"{name}:m")
            upstream.always(None)
        candidates = (await ask(dry=True)).json()["candidates"]
        assert "healthy" not in {each["health"] for each in candidates}
        reply = await ask(text="again")
        assert reply.status_code == 200
        assert world.received("again") == {candidates[0]["provider"]: 1}


@in_a_loop
async def test_who_was_not_asked_did_not_fail(world: World) -> None:
    """A deployment that became rate-limited meanwhile is not reported as tried."""
    order = '[models.m]\norder = ["a", "b"]'
    async with world.gateway(order, world.provider("a"), world.provider("b")) as ask:
        await ask.proven("a:m", "b:m")
        let_go = asyncio.Event()
        world.a.script(held(by=let_go, then="500 Failed"))
        waiting = asyncio.create_task(ask(text="waits"))
        while not world.received("waits"):
            await asyncio.sleep(0.01)
        world.b.script(UpstreamReply(status=429, headers={"retry-after": "60"}))
        assert (await ask("b:m")).status_code == 429
        let_go.set()
        reply = await waiting
        assert world.received("waits") == {"a": 1}
        assert "a" in reply.json()["error"]["message"]
        assert "Tried in turn" not in reply.json()["error"]["message"]


@in_a_loop
async def test_a_proof_that_is_old_at_once(world: World) -> None:
    """If each proof is too old before it is used, the error says that."""
    async with world.gateway(
        "canary_interval_s = 1", world.provider("a"), world.provider("b")
    ) as ask:
        await ask.proven("a:m", "b:m")
        ask.clock.leap_ms = 3000
        reply = await ask("b:m")
        ask.clock.leap_ms = 0
        assert reply.status_code == 502
        assert "b:m (proven when last probed, 3 s ago)" in reply.json()["error"]["message"]


@in_a_loop
async def test_nobody_is_asked_twice_for_having_several_names(world: World) -> None:
    """A fallback that is a candidate already changes nothing."""
    order = '[models.m]\norder = ["a", "b"]'
    async with world.gateway(order, world.provider("a"), world.provider("b")) as ask:
        await ask.proven("a:m", "b:m")
        names = ["m", "a:m", "b:m"]
        dry = await ask(fallbacks=names, dry=True)
        assert [each["id"] for each in dry.json()["candidates"]] == ["a:m", "b:m"]
        world.a.script("500")
        assert (await ask(text="once", fallbacks=names)).status_code == 200
        assert world.received("once") == {"a": 1, "b": 1}


@in_a_loop
async def test_an_echo_that_changes_each_time(world: World) -> None:
    """A deployment with a new model name in each response is not probed each time."""
    async with world.gateway(world.provider("a")) as ask:
        await ask.proven("a:m")
        before = world.probes("a")
        names = iter(range(1000))

        def renaming(item: Item, width: int) -> Any:
            world.a.echo = f"m-{next(names)}"
            return TRUE(item, width)

        world.a.vectors = renaming
        for _ in range(10):
            await ask("a:m")
            await settled()
        assert world.probes("a") - before <= 2


@in_a_loop
async def test_an_echo_that_changes_for_some(world: World) -> None:
    """Where one probe missed the new name, another follows, however many ask meanwhile."""
    missed = iter(["m"])

    def renamed(call: UpstreamCall, reply: UpstreamReply) -> UpstreamReply:
        body = json.loads(reply.body)
        probe = CANARIES[0] in each_of(call.body["input"])
        body["model"] = next(missed, "m-2") if probe else "m-2"
        return msgspec.structs.replace(reply, body=json.dumps(body).encode())

    async with world.gateway(world.provider("a")) as ask:
        await ask.proven("a:m")
        world.a.always(Misbehaviour(reply=renamed))
        answered: list[int] = []
        for _ in range(6):
            answered.append((await ask("a:m")).status_code)
            ask.clock.forward(1)
        assert answered == [502, 502, 200, 200, 200, 200]


class Counting(Cl100kTokenizer):
    """Keeps what it was asked for."""

    encoded: ClassVar[list[str]] = []

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode as `Cl100kTokenizer` does."""
        self.encoded.extend(texts)
        return await super().encode(texts)


@in_a_loop
async def test_a_dry_run_counts_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many would be asked: it is the same model everywhere."""
    monkeypatch.setattr(process_parts, "Cl100kTokenizer", Counting)
    said = (f"dimensions = {WIDTH}", 'tokenizer = "cl100k_base"')
    providers = [world.provider(name, *said) for name in "abc"]
    async with world.gateway(*providers) as ask:
        await ask.proven("a:m", "b:m", "c:m")
        dry = (await ask(text="to be counted", dry=True)).json()
        assert [each["tokens"] for each in dry["candidates"]] == [3, 3, 3]
        assert Counting.encoded.count("to be counted") == 1


@in_a_loop
async def test_a_refusal_lists_all_filters(world: World) -> None:
    """If one was excluded by the key and another by the request, the error has both."""
    said = (f"dimensions = {WIDTH}", "trained_dimensions = [16]")
    async with world.gateway(world.provider("a", *said), world.provider("b", *said)) as ask:
        reply = await ask(dimensions=7, key=world.key(providers=("b",)))
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "dimensions")
        assert "'provider' removes a:m" in error["message"]
        assert "'dimensions' removes b:m" in error["message"]


@in_a_loop
async def test_refused_canaries(world: World) -> None:
    """A provider that refuses the canaries is not the client's fault."""
    world.a.refuse(CANARIES[1])
    world.b.refuse(CANARIES[1])
    async with world.gateway(world.provider("a"), world.provider("b")) as ask:
        reply = await ask("b:m")
        assert (reply.status_code, reply.json()["error"]["param"]) == (502, None)


@in_a_loop
async def test_param_is_a_field(world: World) -> None:
    """What `param` names can be found in the request, also if it is the operator who refuses."""
    world.b.vectors = OTHER
    only = '[models.m]\nonly = ["b"]\n[models.n]\nreference = "a"'
    providers = (
        world.provider("a"),
        '[[providers.a.models]]\nid = "n"\ndimensions = 64',
        world.provider("b"),
        '[[providers.b.models]]\nid = "n"\ndimensions = 64',
    )
    async with world.gateway(only, *providers) as ask:
        refused = await ask("a:m")
        assert "'only' removes a:m" in refused.json()["error"]["message"]
        assert refused.json()["error"]["param"] == "model"
        await ask("n")
        await ask("b:n")
        await settled()
        other_space = await ask("n", allowed_providers=["b"])
        assert other_space.status_code == 400
        assert other_space.json()["error"]["param"] in EmbedRequest.__struct_fields__


@pytest.mark.parametrize("said", ['reference = "a"', 'canaries = "canaries.json"'])
@in_a_loop
async def test_what_runs_here_is_its_own_reference(world: World, said: str) -> None:
    """A reference other than the local model itself is refused at start."""
    write_canaries(world, 384)
    id = "all-minilm-l6-v2"
    sections = (f'[models."{id}"]\n{said}', world.provider("a", "dimensions = 384", id=id))
    with pytest.raises(ConfigError, match="it runs here, and so is its own reference"):
        async with world.gateway(*sections):
            pass


@in_a_loop
async def test_a_reference_that_refuses_at_first_leaves_its_twin_unproven(world: World) -> None:
    """Nothing was compared, so nothing differs: the twin waits under the model's id.

    Under its own name it answers, in a space of its own, until there is something to compare with.
    """
    clock = Clock()
    async with world.gateway(world.provider("a"), world.provider("b"), clock=clock) as ask:
        world.a.always("401")
        assert (await ask("m", "nobody defined the space yet")).status_code == 502
        await settled()
        assert not world.received("nobody defined the space yet")["b"]
        for _ in range(2):  # the second does not wait for another probe
            assert space_of(await ask("b:m")).startswith("m@b/")
            await settled()
        env = {"EMBEDWAY_DATA_DIR": str(world.folder / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}
        command = functools.partial(embedway, "spaces", "status", "--json", env=env)
        done = await asyncio.to_thread(command, cwd=world.folder)
        states = {row["deployment"]: row for row in json.loads(done.stdout)}
        assert states["b:m"]["state"] == "unproven"
        assert "a:m" in states["b:m"]["why"]
        dry = (await ask("m", dry=True)).json()
        assert [each["id"] for each in dry["unproven"]] == ["b:m"]
        world.a.always(None)
        clock.forward(60)
        assert space_of(await ask("m")).startswith("m@a/")
        await settled()
        clock.forward(60)
        await ask.proven("m")
        world.a.always("503")
        assert space_of(await ask("m", "who is left")).startswith("m@a/")
        assert world.received("who is left")["b"]
        assert space_of(await ask("b:m")).startswith("m@a/")
