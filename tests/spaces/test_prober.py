"""Deployments are proven to be of a space by what real servers answer, and quarantined by it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from attempts import sender_to
from sqlalchemy import event

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.catalog.policy import ModelPolicy, SuppliedCanaries
from embedway.core.batch import Batch, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.providers import provider
from embedway.providers.provider_config import ProviderConfig, fingerprinter
from embedway.providers.registry import ROWS
from embedway.spaces.canaries import CANARIES
from embedway.spaces.check import SpaceCheck
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.probe import MAX_PARALLEL_PROBES
from embedway.spaces.prober import FAILS_OFTEN, Prober
from embedway.spaces.proof import Reference
from embedway.spaces.store import SpaceStore
from embedway.storage import database
from embedway.testing import Item, Upstream, noisy, other_pooling, scaled, space
from embedway.testing.upstream import Step
from embedway.testing.vectors import Vector, Vectors

HOUR_MS = 3_600_000
RIGHT = space("right")
MODEL = Model(id="m", dimensions=64)
"""The width is that of the scripted upstream's vectors for an unknown model."""
NAMES = ("one", "two", "three")


def served(name: str, model: Model = MODEL) -> Deployment:
    return Deployment(model, DeploymentSpec(provider=name))


class World:
    """Three providers that claim to have one model, a database, and clocks that a test moves."""

    def __init__(self, folder: Path, upstreams: Mapping[str, Upstream]) -> None:
        self.folder = folder
        self.upstreams = upstreams
        self.now_ms = HOUR_MS
        self.policy = ModelPolicy()
        self.order = NAMES
        self.kind = "openai"
        self.model = MODEL
        self.interval_s = 3600.0
        self.events: list[tuple[str, str]] = []
        self.engine = database.connect(folder / "test.db")

    def one(self, name: str) -> Deployment:
        return served(name, self.model)

    @asynccontextmanager
    async def prober(self) -> AsyncIterator[Prober]:
        """Yield a prober in the state of a gateway that starts now."""
        row = ROWS[self.kind]
        declared = [
            ProviderConfig(
                name=name, row=row, keys=["k"], base_url=self.upstreams[name].url + "/openai/v1"
            )
            for name in self.order
        ]
        engines = {each.name: provider.build_provider(each) for each in declared}
        prober = Prober(
            spaces=SpaceMemberships(
                policy=lambda _: self.policy,
                deployments=[self.one(name) for name in self.order],
                enabled=True,
                interval_s=self.interval_s,
                fingerprint=fingerprinter(declared),
                now_ms=lambda: self.now_ms,
            ),
            store=SpaceStore(self.engine),
            sender=sender_to(engines, now_s=lambda: self.now_ms / 1000),
            on_event=lambda event, which, _: self.events.append((event, which.id)),
        )
        await prober.load()
        try:
            yield prober
        finally:
            await prober.aclose()
            for each in engines.values():
                await each.aclose()

    async def prove(self, prober: Prober, *names: str) -> dict[str, tuple[str, str]]:
        """State and revision of each after a probe."""
        found: dict[str, tuple[str, str]] = {}
        for name in names:
            member = await prober.prove(self.one(name), None)
            found[name] = (member.state, member.revision)
        return found

    def run(self, test: Callable[[Prober], Awaitable[None]]) -> None:
        """Runs `test` on a prober that starts now."""

        async def run() -> None:
            async with self.prober() as prober:
                await test(prober)

        asyncio.run(run())

    def calls(self, name: str) -> int:
        return len(self.upstreams[name].calls)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        upstreams = {name: stack.enter_context(Upstream(vectors=RIGHT)) for name in NAMES}
        made = World(tmp_path, upstreams)
        stack.callback(made.engine.dispose)
        yield made


def test_joins(world: World) -> None:
    """A deployment joins the reference's space by giving its vectors, and not before."""

    async def test(prober: Prober) -> None:
        before = [prober.membership(world.one(name), None).state for name in NAMES]
        assert before == ["reference", "unproven", "unproven"]
        assert await world.prove(prober, "two") == {"two": ("proven", "one")}
        assert prober.membership(world.one("one"), None).state == "reference"
        assert prober.membership(world.one("three"), None) == Membership(
            state="unproven", revision="three", reason="not probed yet"
        )

    world.run(test)
    assert world.events == [("proven", "one:m"), ("proven", "two:m")]
    assert [each.body["input"] for each in world.upstreams["two"].calls] == [list(CANARIES)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (other_pooling(RIGHT), "cosine 0.8"),
        (noisy(RIGHT), "cosine 0.99"),
        (scaled(RIGHT, 2), "norms differ by 100.00%"),
        (scaled(RIGHT, 0.98), "norms differ by 2.00%"),
        (space("wrong"), "cosine"),
    ],
    ids=["pooling", "4 bits", "twice", "a bit shorter", "another model"],
)
def test_differs(world: World, wrong: Vectors, reason: str) -> None:
    """A deployment with other vectors is in a space of its own, and can drift there."""
    world.upstreams["two"].vectors = wrong

    async def test(prober: Prober) -> None:
        member = await prober.prove(world.one("two"), None)
        assert (member.state, member.revision) == ("differs", "two")
        assert member.reason.startswith(reason)
        world.now_ms += HOUR_MS
        assert (await prober.prove(world.one("two"), None)).state == "differs"
        world.upstreams["two"].vectors = RIGHT
        assert await world.prove(prober, "two") == {"two": ("drifted", "two")}

    world.run(test)
    assert world.events[1:] == [("differs", "two:m"), ("drifted", "two:m")]


def test_within_tolerance(world: World) -> None:
    """What the operator calls near enough is: a lower min_cosine, and half a percent of length."""
    world.upstreams["two"].vectors = noisy(RIGHT)
    world.upstreams["three"].vectors = scaled(RIGHT, 1.005)
    world.policy = ModelPolicy(min_cosine=0.98)

    async def test(prober: Prober) -> None:
        found = await world.prove(prober, "two", "three")
        assert found == {"two": ("proven", "one"), "three": ("proven", "one")}

    world.run(test)


def test_stricter(world: World) -> None:
    """A deployment that agreed only by an earlier min_cosine differs now; it has not drifted."""
    world.upstreams["two"].vectors = noisy(RIGHT)
    world.policy = ModelPolicy(min_cosine=0.98)

    async def before(prober: Prober) -> None:
        assert await world.prove(prober, "two") == {"two": ("proven", "one")}

    async def after(prober: Prober) -> None:
        assert prober.membership(world.one("one"), None).state == "reference"
        member = prober.membership(world.one("two"), None)
        assert (member.state, member.reason) == ("unproven", "not probed since min_cosine is 0.999")
        assert await world.prove(prober, "two") == {"two": ("differs", "two")}

    world.run(before)
    world.policy = ModelPolicy()
    world.run(after)


@pytest.mark.parametrize("who", ["one", "two"])
def test_drifts(world: World, who: str) -> None:
    """A deployment that agreed and no longer does serves no requests, of any input type."""

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one", "two")
        world.upstreams[who].vectors = other_pooling(RIGHT)
        world.now_ms += HOUR_MS
        assert prober.membership(world.one(who), None).is_due
        assert await world.prove(prober, who) == {who: ("drifted", "one")}
        world.upstreams[who].vectors = RIGHT
        for told in (None, "query"):
            assert prober.membership(world.one(who), told).state == "drifted"
            assert (await prober.prove(world.one(who), told)).state == "drifted"

    world.run(test)
    assert world.events[-1] == ("drifted", f"{who}:m")

    async def after(prober: Prober) -> None:
        assert await world.prove(prober, who) == {who: ("drifted", "one")}

    world.run(after)


def test_drift_from_what_another_gateway_proved(world: World) -> None:
    """A gateway that probes a deployment for the first time knows what another gateway proved."""

    async def test(first: Prober) -> None:
        async with world.prober() as second:
            assert await world.prove(first, "two") == {"two": ("proven", "one")}
            world.upstreams["two"].vectors = space("wrong")
            assert await world.prove(second, "two") == {"two": ("drifted", "one")}

    world.run(test)
    assert ("drifted", "two:m") in world.events


async def accept(check: SpaceCheck, text: str, vectors: Vectors, *, model: str) -> None:
    """Let `check` decide about an answer."""
    batch = Batch(model="m", items=[text], tokens=[1])
    result = BatchResult(vectors=np.array([vectors(text, 64)], np.float32), model=model)
    if pending := check(batch, result):
        await pending


def test_answer_before_the_own_first_probe(world: World) -> None:
    """A gateway compares its first answers with what another one has proven by then."""
    world.upstreams["one"].echo = "m-2024"

    async def test(first: Prober) -> None:
        async with world.prober() as second:
            check = SpaceCheck(second, world.one("one"), None, revision="one")
            await accept(check, "text", RIGHT, model="m-2024")  # nothing is proven yet
            await world.prove(first, "one")
            world.upstreams["one"].echo = "m-2025"
            world.upstreams["one"].vectors = space("wrong")
            with pytest.raises(ProviderError) as refused:
                await accept(check, "text", space("wrong"), model="m-2025")
            assert refused.value.reason == "vectors of another space than before"
            assert second.membership(world.one("one"), None).state == "drifted"

    world.run(test)


def test_answers_of_a_deployment_that_is_never_proven(world: World) -> None:
    """Answers wait for the database no more once the deployment has failed several probes."""
    world.upstreams["one"].always("503")

    async def test(prober: Prober) -> None:
        check = SpaceCheck(prober, world.one("one"), None, revision="one")
        reads: list[object] = []
        event.listen(world.engine, "begin", reads.append)
        for _ in range(FAILS_OFTEN):
            before = len(reads)
            await accept(check, "text", RIGHT, model="m")
            assert len(reads) > before
            world.now_ms += 60_000
            with pytest.raises(ProviderError):
                await prober.prove(world.one("one"), None)
        await accept(check, "text", RIGHT, model="m")
        before = len(reads)
        for _ in range(3):
            await accept(check, "text", RIGHT, model="m")
        assert len(reads) == before

    world.run(test)


def test_stored_once_the_database_is_back(world: World) -> None:
    """What a gateway proves while its database is away is stored with the next read."""

    async def test(first: Prober) -> None:
        database_file, elsewhere = world.folder / "test.db", world.folder / "elsewhere.db"
        world.engine.dispose()
        database_file.rename(elsewhere)
        await world.prove(first, "one", "two")
        world.engine.dispose()
        database_file.unlink(missing_ok=True)
        elsewhere.rename(database_file)
        async with world.prober() as second:
            assert second.spaces.known() == ([], [])
        await first.load()
        async with world.prober() as second:
            members = [second.membership(world.one(each), None).state for each in ("one", "two")]
            assert members == ["reference", "proven"]

    world.run(test)


def test_age(world: World) -> None:
    """A proof is due for renewal after the interval, and after twice that it is none."""

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one", "two")
        for name, state in (("one", "reference"), ("two", "proven")):
            member = prober.membership(world.one(name), None)
            assert (member.state, member.is_due) == (state, False)
        world.now_ms += HOUR_MS - 1
        assert not prober.membership(world.one("two"), None).is_due
        world.now_ms += 1
        for name, state in (("one", "reference"), ("two", "proven")):
            member = prober.membership(world.one(name), None)
            assert (member.state, member.is_due) == (state, True)
        world.now_ms += HOUR_MS
        for name in ("one", "two"):
            assert prober.membership(world.one(name), None).state == "unproven"
        assert await world.prove(prober, "one", "two") == {
            "one": ("reference", "one"),
            "two": ("proven", "one"),
        }

    world.run(test)


def test_restart(world: World) -> None:
    """A new process believes fresh proofs, and asks again where they are old or of elsewhere."""

    async def states(prober: Prober) -> list[str]:
        return [prober.membership(world.one(name), None).state for name in ("one", "two")]

    async def first(prober: Prober) -> None:
        await world.prove(prober, "one", "two")

    async def fresh(prober: Prober) -> None:
        assert await states(prober) == ["reference", "proven"]

    async def stale(prober: Prober) -> None:
        assert await states(prober) == ["unproven", "unproven"]

    async def moved(prober: Prober) -> None:
        assert await states(prober) == ["unproven", "unproven"]
        member = prober.membership(world.one("two"), None)
        assert member.reason.endswith("its address or its name for the model changed")
        assert await world.prove(prober, "two") == {"two": ("proven", "one")}
        assert await world.prove(prober, "one") == {"one": ("drifted", "one")}

    world.run(first)
    calls = world.calls("one"), world.calls("two")
    world.run(fresh)
    world.now_ms += 2 * HOUR_MS
    world.run(stale)
    assert (world.calls("one"), world.calls("two")) == calls
    world.now_ms -= 2 * HOUR_MS
    world.upstreams = {**world.upstreams, "one": world.upstreams["three"]}
    world.upstreams["one"].vectors = other_pooling(RIGHT)
    with Upstream(vectors=RIGHT) as elsewhere:
        world.upstreams = {**world.upstreams, "two": elsewhere}
        world.run(moved)


def test_home_is_stable(world: World) -> None:
    """The home stays what it was when the order of providers changes or its maker is gone."""

    async def first(prober: Prober) -> None:
        await world.prove(prober, "one", "two")

    async def later(prober: Prober) -> None:
        assert await world.prove(prober, "three") == {"three": ("differs", "three")}
        assert await world.prove(prober, "two") == {"two": ("proven", "one")}
        nobody = prober.membership(world.one("two"), "query")
        assert nobody.state == "unproven"

    world.run(first)
    world.upstreams["three"].vectors = space("wrong")
    world.order = ("three", "two", "one")
    world.run(later)
    world.order = ("three", "two")
    world.run(later)


def test_reference_is_chosen(world: World) -> None:
    """The operator says whose vectors define the model; what was proven of another home is void."""

    async def first(prober: Prober) -> None:
        await world.prove(prober, "one", "two", "three")

    async def chosen(prober: Prober) -> None:
        assert prober.membership(world.one("one"), None).state == "unproven"
        assert await world.prove(prober, "one", "two", "three") == {
            "one": ("differs", "one"),
            "two": ("differs", "two"),
            "three": ("reference", "three"),
        }

    world.upstreams["three"].vectors = space("three")
    world.run(first)
    world.policy = ModelPolicy(reference="three")
    world.run(chosen)


def test_supplied_canaries(world: World) -> None:
    """Supplied vectors define the home; even the first declared is in it only once it agrees."""
    texts = ("a", "b b", "c c c")
    vectors = np.stack([RIGHT(text, 64) for text in texts])
    world.policy = ModelPolicy(
        canaries=SuppliedCanaries(texts=texts, vectors=vectors, digest="0123456789ab")
    )
    world.upstreams["one"].vectors = space("wrong")

    async def test(prober: Prober) -> None:
        assert prober.membership(world.one("one"), None).state == "unproven"
        assert await world.prove(prober, "one", "two") == {
            "one": ("differs", "one"),
            "two": ("proven", "0123456789ab"),
        }
        # No vectors were supplied for another input type: a deployment that agrees makes them.
        assert prober.membership(world.one("two"), "query").state == "unproven"
        # There is nothing yet to compare the one that does not agree with.
        member = await prober.prove(world.one("one"), "query")
        assert (member.state, member.revision) == ("unproven", "one")
        for name in ("three", "two"):
            member = await prober.prove(world.one(name), "query")
            assert (member.state, member.revision) == ("proven", "0123456789ab")

    world.run(test)
    made = {each.made_by for each in load(world) if each.revision == "0123456789ab"}
    assert made == {"three:m"}
    assert world.upstreams["one"].calls[0].body["input"] == [*CANARIES, *texts]


def load(world: World) -> list[Reference]:
    """The stored references."""
    return list(asyncio.run(SpaceStore(world.engine).load())[0])


def test_another_input_type(world: World) -> None:
    """The maker is proven with what there is before it makes a reference of another input type."""
    world.upstreams["one"].echo = "m-2024"

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one")
        member = prober.membership(world.one("one"), "query")
        assert (member.state, member.is_due) == ("reference", True)
        check = SpaceCheck(prober, world.one("one"), "query", revision="one")
        await accept(check, "text", RIGHT, model="m-2024")
        world.upstreams["one"].echo = "m-2025"
        world.upstreams["one"].vectors = space("wrong")
        with pytest.raises(ProviderError):
            await accept(check, "text", space("wrong"), model="m-2025")

    world.run(test)
    assert [each.input_type for each in load(world)] == [None]


def test_an_old_proof_makes_no_reference(world: World) -> None:
    """The maker is proven again if its proof is too old to make other references."""

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one")
        world.now_ms += 2 * HOUR_MS
        assert prober.membership(world.one("one"), "query").state == "unproven"
        world.upstreams["one"].vectors = space("wrong")
        assert (await prober.prove(world.one("one"), "query")).state == "drifted"

    world.run(test)
    assert [each.input_type for each in load(world)] == [None]


def test_maker_cannot_be_asked(world: World) -> None:
    """Without a reference no deployment joins; each serves its own name, and joins later."""
    world.upstreams["one"].always("503")

    async def test(prober: Prober) -> None:
        with pytest.raises(ProviderError):
            await prober.prove(world.one("one"), None)
        member = await prober.prove(world.one("two"), None)
        assert (member.state, member.revision, member.is_due) == ("unproven", "two", True)
        world.upstreams["one"].always(None)
        world.now_ms += 60_000
        assert await world.prove(prober, "two") == {"two": ("proven", "one")}

    world.run(test)
    assert ("differs", "two:m") not in world.events


@pytest.mark.parametrize("step", ["503", "429", "too few vectors", "empty object"])
def test_failed_probe(world: World, step: Step) -> None:
    """A probe that fails proves nothing, neither way, and is not tried again at once."""

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one", "two")
        world.now_ms += HOUR_MS
        world.upstreams["two"].always(step)
        before = world.calls("two")
        with pytest.raises(ProviderError):
            await prober.prove(world.one("two"), None)
        with pytest.raises(ProviderError):
            await prober.prove(world.one("two"), None)
        assert world.calls("two") == before + 1
        member = prober.membership(world.one("two"), None)
        assert (member.state, member.is_due) == ("proven", True)
        for wait_ms, asked in ((29_000, False), (1_000, True), (30_000, False), (30_000, True)):
            calls = world.calls("two")
            world.now_ms += wait_ms
            prober.schedule(world.one("two"), None)
            await idle(prober)
            assert (world.calls("two") > calls) == asked
        world.now_ms += HOUR_MS
        assert prober.membership(world.one("two"), None).state == "unproven"

    world.run(test)


async def idle(prober: Prober) -> None:
    """Waits until nothing runs in the background."""
    while prober._flights:
        await asyncio.wait(list(prober._flights.values()))
        await asyncio.sleep(0)


def test_soon(world: World) -> None:
    """In the background what is due is proven, its reference first; what is fresh is left alone."""

    async def test(prober: Prober) -> None:
        prober.schedule(world.one("two"), None)
        await idle(prober)
        assert prober.membership(world.one("two"), None).state == "proven"
        assert prober.membership(world.one("one"), None).state == "reference"
        for name in ("one", "two"):
            prober.schedule(world.one(name), None)
        await idle(prober)

    world.run(test)
    assert (world.calls("one"), world.calls("two")) == (1, 1)


def test_single_flight(world: World) -> None:
    """However many wait for a proof, it is asked once; who leaves takes nothing away."""

    async def test(prober: Prober) -> None:
        with world.upstreams["one"].holding():
            waiting = [asyncio.create_task(prober.prove(world.one("one"), None)) for _ in range(20)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        states = {each.state for each in await asyncio.gather(*waiting[1:])}
        assert states == {"reference"}
        assert waiting[0].cancelled()

    world.run(test)
    assert world.calls("one") == 1


def test_few_at_once(world: World) -> None:
    """Only so many probes run at a time, also where each first needs another's reference."""
    world.order = ("one", "two")

    async def test(prober: Prober) -> None:
        many = [
            Deployment(Model(id=f"m{at}", dimensions=64), DeploymentSpec(provider=name))
            for at in range(20)
            for name in ("one", "two")
        ]
        prober._registry.__init__(policy=lambda _: ModelPolicy(), deployments=many, enabled=True)
        prober.spaces.load()
        found = await asyncio.gather(*(prober.prove(each, None) for each in many[1::2]))
        assert {each.state for each in found} == {"proven"}

    world.run(test)
    assert (
        1
        < world.upstreams["one"].most_at_once + world.upstreams["two"].most_at_once
        <= MAX_PARALLEL_PROBES * 2
    )
    assert world.upstreams["one"].most_at_once <= MAX_PARALLEL_PROBES
    assert world.upstreams["two"].most_at_once <= MAX_PARALLEL_PROBES


def test_limits(world: World) -> None:
    """Canaries are cut to what one call may hold, and then asked twice to become a reference."""
    one = Deployment(MODEL, DeploymentSpec(provider="one", max_items=3))

    async def test(prober: Prober) -> None:
        assert (await prober.prove(one, None)).state == "reference"

    world.run(test)
    assert [len(each.body["input"]) for each in world.upstreams["one"].calls] == [
        3,
        3,
        2,
    ] * 2  # asked twice


@pytest.mark.parametrize("who", ["one", "two"], ids=["of the home", "of its own space"])
def test_changes_while_it_is_probed(world: World, who: str) -> None:
    """No reference is of two models: a deployment that changes between two calls proves nothing."""
    deployment = Deployment(MODEL, DeploymentSpec(provider=who, max_items=3))
    old, new = (RIGHT, space("new")) if who == "one" else (space("old"), space("new"))
    answered: list[object] = []

    def changing(item: Item, width: int) -> Vector:
        answered.append(item)
        return (old if len(answered) <= 3 else new)(item, width)

    async def test(prober: Prober) -> None:
        if who == "two":
            await world.prove(prober, "one")
        world.upstreams[who].vectors = changing
        with pytest.raises(ProviderError) as failed:
            await prober.prove(deployment, None)
        assert "changed while they were probed" in failed.value.reason
        assert prober.spaces.registry.reference("m", who, None) is None
        world.now_ms += HOUR_MS
        state = "reference" if who == "one" else "differs"
        for _ in range(2):
            assert (await prober.prove(deployment, None)).state == state
        made = prober.spaces.registry.reference("m", who, None)
        assert made is not None
        assert np.allclose(made.vectors, [new(text, 64) for text in CANARIES], atol=1e-6)

    world.run(test)


def test_storage_fails(world: World) -> None:
    """Without its database a gateway goes on by what it saw itself."""

    async def test(prober: Prober) -> None:
        (world.folder / "test.db").unlink()
        assert await world.prove(prober, "one", "two") == {
            "one": ("reference", "one"),
            "two": ("proven", "one"),
        }
        world.upstreams["two"].vectors = space("wrong")
        assert await world.prove(prober, "two") == {"two": ("drifted", "one")}
        world.now_ms += HOUR_MS
        assert await world.prove(prober, "two") == {"two": ("drifted", "one")}

    world.run(test)


def test_changed(world: World) -> None:
    """A response with another width, length or model name counts as changed."""
    world.upstreams["one"].echo = "m-2024"

    async def test(prober: Prober) -> None:
        check = SpaceCheck(prober, world.one("one"), None, revision="one")
        proven = {"width": 64, "norm": 1.0, "model": "m-2024"}
        assert not check.has_changed(**proven)  # nothing is known yet
        await world.prove(prober, "one")
        assert not check.has_changed(**proven)
        assert not check.has_changed(width=None, norm=None, model=None)
        assert not check.has_changed(**proven | {"norm": 1.009})
        for other in ({"width": 63}, {"norm": 1.02}, {"norm": 0.98}, {"model": "m-2025"}):
            assert check.has_changed(**proven | other), other
            assert not await check.confirm(**proven | other), other
            asked = len(world.upstreams["one"].calls)
            assert not await check.confirm(**proven | other), other
            assert len(world.upstreams["one"].calls) == asked  # not for each answer
            world.now_ms += 2000
        world.upstreams["one"].echo = "m-2025"
        renamed = proven | {"model": "m-2025"}
        assert await check.confirm(**renamed)  # the canaries agree
        assert not check.has_changed(**renamed)
        assert not check.has_changed(**proven)
        world.upstreams["one"].echo = "m-2026"
        world.upstreams["one"].vectors = space("wrong")
        assert not await check.confirm(**proven | {"model": "m-2026"})
        # What it answered before it was known to have drifted is held back too.
        assert check.has_changed(**proven)

    world.run(test)


def test_not_probed(world: World) -> None:
    """Undeclared models are not probed: they claim no space but their own."""

    async def test(prober: Prober) -> None:
        own = Deployment(Model(id="any", declared=False), DeploymentSpec(provider="one"))
        assert prober.membership(own, None) == Membership(state="reference", revision="one")
        assert await prober.prove(own, None) == Membership(state="reference", revision="one")
        prober.schedule(own, None)
        check = SpaceCheck(prober, own, None, revision="one")
        assert not check.has_changed(width=1, norm=2.0, model="x")

    world.run(test)
    assert world.calls("one") == 0


def test_released(world: World) -> None:
    """An operator releases who is again what it was; a gateway that runs sees that in seconds."""

    async def drift(prober: Prober) -> None:
        await world.prove(prober, "one", "two")
        world.upstreams["two"].vectors = other_pooling(RIGHT)
        await world.prove(prober, "two")
        async with world.prober() as operator:
            assert (await operator.release(world.one("two"), None)).state == "drifted"
            world.upstreams["two"].vectors = RIGHT
            world.now_ms += 1000
            assert (await operator.release(world.one("two"), None)).state == "proven"
        prober.schedule(world.one("two"), None)
        await prober._start_reread()
        assert prober.membership(world.one("two"), None).state == "proven"

    world.run(drift)
    assert world.events[-1] == ("released", "two:m")


@pytest.mark.parametrize("who", ["one", "two"])
def test_accepted(world: World, who: str) -> None:
    """Accepted as it is now, it is of a space of a new name: old vectors and new never mix."""

    async def test(prober: Prober) -> None:
        await world.prove(prober, "one", "two")
        world.upstreams[who].vectors = space("new")
        await world.prove(prober, who)
        async with world.prober() as operator:
            one = world.one(who)
            accept = operator._registry.next_revision(one)
            assert accept == f"{who}~2"
            world.now_ms += 1000
            member = await operator.release(one, None, accept=accept)
            assert member.revision == accept
        await prober._start_reread()
        found = await world.prove(prober, "one", "two")
        if who == "one":
            assert found == {"one": ("reference", "one~2"), "two": ("differs", "two")}
        else:
            assert found == {"one": ("reference", "one"), "two": ("differs", "two~2")}

    world.run(test)

    async def later(prober: Prober) -> None:
        assert prober.spaces.home("m") == ("one~2" if who == "one" else "one")
        assert prober.membership(world.one(who), None).revision == f"{who}~2"

    world.run(later)
