"""What proves that vectors may be compared: the comparison, its memory, and its command line."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from attempts import sender_to
from conftest import embedway
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine as Database

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.catalog.policy import ModelPolicy
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.errors import StorageUnavailable
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.spaces import canaries
from embedway.spaces.canaries import CANARIES, compare
from embedway.spaces.check import SpaceCheck
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.prober import Prober
from embedway.spaces.proof import Proof, Reference
from embedway.spaces.store import SpaceStore
from embedway.storage import database
from embedway.storage.store import open_store
from embedway.testing import Upstream, noisy, other_pooling, scaled, space
from embedway.testing.vectors import Vectors

RIGHT, WRONG = space("right"), space("wrong")
MODEL = Model(id="m", dimensions=64)
NAMES = ("one", "two", "three")


def made(function: Vectors, told: InputType | None = None) -> np.ndarray:
    """The canaries' vectors, with a prompt of the input type's own."""
    return np.stack([function(f"{told or ''}{text}", 64) for text in CANARIES])


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        (RIGHT, True),
        (noisy(RIGHT, bits=8), True),
        (scaled(RIGHT, 1.009), True),
        (scaled(RIGHT, 1.011), False),
        (scaled(RIGHT, 0.5), False),
        (scaled(RIGHT, -1), False),
        (noisy(RIGHT), False),
        (other_pooling(RIGHT), False),
        (WRONG, False),
    ],
)
def test_compared(other: Vectors, agrees: bool) -> None:
    """Vectors agree if the lowest cosine is 0.999 and no length differs by more than a percent."""
    found = compare(made(other), made(RIGHT), min_cosine=0.999)
    assert (found.difference == "") == agrees


def test_one_text_decides() -> None:
    """One text on which two deployments differ is enough: the rest does not outweigh it."""
    vectors = made(RIGHT)
    vectors[3] = WRONG("x", 64)
    assert compare(vectors, made(RIGHT), min_cosine=0.999).difference.startswith("cosine")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonsense_agrees_with_nothing(value: float) -> None:
    """What is no number agrees with nothing, not even with itself; nor does another width."""
    vectors = made(RIGHT)
    vectors[0, 0] = value
    with np.errstate(invalid="ignore"):
        assert compare(vectors, made(RIGHT), min_cosine=0.999).difference
        assert compare(vectors, vectors, min_cosine=0.999).difference
    found = compare(made(RIGHT)[:, :32], made(RIGHT), min_cosine=0.999)
    assert found.difference == "32 dimensions, not 64"


def test_canaries_are_fixed() -> None:
    """The texts are what they always were: with others every stored reference is worth nothing."""
    assert canaries.digest_texts(CANARIES) == "91b85b4581a4"


class Fake:
    """An engine whose vectors are those of a function that a test changes."""

    limits = BatchLimits()
    abilities = EngineAbilities(input_types=frozenset({"query"}))

    def __init__(self) -> None:
        self.function = RIGHT

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(each) for each in text] for text in texts]

    async def embed(self, batch: Batch) -> BatchResult:
        texts = [
            f"{batch.input_type or ''}{item if isinstance(item, str) else ''.join(map(chr, item))}"
            for item in batch.items
        ]
        return BatchResult(vectors=np.stack([self.function(text, 64) for text in texts]))


class Memory:
    """A store of spaces that lasts as long as the test."""

    def __init__(self) -> None:
        self.references: dict[tuple[str, InputType | None], Reference] = {}
        self.proofs: dict[tuple[str, InputType | None], Proof] = {}

    async def load(self, *, known: object = ()) -> tuple[list[Reference], list[Proof]]:
        return list(self.references.values()), list(self.proofs.values())

    async def keep_reference(self, reference: Reference) -> Reference:
        key = (reference.revision, reference.input_type)
        return self.references.setdefault(key, reference)

    async def keep_proof(self, proof: Proof, *, release: bool = False) -> Proof:
        key = (proof.deployment, proof.input_type)
        known = self.proofs.get(key)
        if known is None or known.state != "drifted" or release:
            self.proofs[key] = proof
        return self.proofs[key]


class World:
    """Deployments, their engines, a store and a clock."""

    def __init__(self) -> None:
        self.engines = {name: Fake() for name in NAMES}
        self.store = Memory()
        self.now_ms = 0
        self.seen: dict[tuple[str, InputType | None], bytes] = {}

    def start(self, order: tuple[str, ...], reference: str | None) -> Prober:
        spaces = SpaceMemberships(
            policy=lambda _: ModelPolicy(reference=reference),
            deployments=[Deployment(MODEL, DeploymentSpec(provider=name)) for name in order],
            enabled=True,
            interval_s=60,
            fingerprint=lambda _: "",
            now_ms=lambda: self.now_ms,
        )
        return Prober(
            spaces=spaces,
            store=self.store,
            sender=sender_to(self.engines, now_s=lambda: self.now_ms / 1000),
        )

    def check(self, prober: Prober, name: str, told: InputType | None, found: Membership) -> None:
        """What was just proven to be in a space gives the vectors of its reference."""
        for key, reference in self.store.references.items():
            vectors = reference.vectors.tobytes()
            assert self.seen.setdefault(key, vectors) == vectors
        if found.state in {"unproven", "drifted"}:
            return
        reference = self.store.references[found.revision, told]
        vectors = made(self.engines[name].function, told)
        assert not compare(vectors, reference.vectors, min_cosine=0.999).difference
        in_home = found.revision == prober.spaces.home("m")
        assert in_home == (found.state in {"reference", "proven"})


steps = st.one_of(
    st.tuples(st.just("switch"), st.sampled_from(NAMES), st.sampled_from([RIGHT, WRONG])),
    st.tuples(st.just("prove"), st.sampled_from(NAMES), st.sampled_from([None, "query"])),
    st.tuples(st.just("release"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 70, 200]), st.none()),
    st.tuples(st.just("restart"), st.permutations(NAMES), st.sampled_from([None, *NAMES])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_nobody_is_in_a_space_whose_vectors_it_does_not_give(
    told: list[tuple[str, Any, Any]],
) -> None:
    """Whatever happens, who is proven to be in a space gives its vectors, and these never change.

    Who drifted stays so until it is released.
    """

    async def run() -> None:
        world = World()
        prober = world.start(NAMES, None)
        for step, which, what in told:
            world.now_ms += 1
            if step == "switch":
                world.engines[which].function = what
            elif step == "wait":
                world.now_ms += which * 1000
            elif step == "restart":
                await prober.aclose()
                prober = world.start(tuple(which), what)
                await prober.load()
            else:
                await proven(prober, world, step, which, what)
        await prober.aclose()

    asyncio.run(run())


async def proven(prober: Prober, world: World, step: str, name: str, what: Any) -> None:
    served = Deployment(MODEL, DeploymentSpec(provider=name))
    known = prober._registry
    was_drifted = served.id in known.drift_proofs
    if step == "prove":
        found = await prober.prove(served, what)
        assert not was_drifted or found.state == "drifted"
        world.check(prober, name, what, found)
        return
    if not was_drifted:
        return
    accept = known.next_revision(served) if what else None
    for proof in [each for each in known.proofs(served.id) if each.state == "drifted"]:
        found = await prober.release(served, proof.input_type, accept=accept)
        world.check(prober, name, proof.input_type, found)
    assert not what or served.id not in known.drift_proofs


def test_local_model() -> None:
    """The model that runs here is the reference of its model, and is never probed."""
    here, there = (Deployment(MODEL, DeploymentSpec(provider=name)) for name in ("embedway", "one"))
    engines = {"embedway:m": Fake(), "one": Fake()}
    spaces = SpaceMemberships(
        policy=lambda _: ModelPolicy(reference="one"), deployments=[there, here], enabled=True,
        interval_s=60, fingerprint=lambda _: "", now_ms=lambda: 0,
    )  # fmt: skip
    prober = Prober(
        spaces=spaces,
        store=Memory(),
        sender=sender_to(engines, tokenizers={"m": engines["embedway:m"]}),
    )

    async def run() -> None:
        local = Membership(state="reference", revision="embedway")
        assert await prober.prove(here, None) == local
        assert prober.membership(there, None).state == "unproven"
        found = await prober.prove(there, None)
        assert (found.state, found.revision) == ("proven", "embedway")
        engines["embedway:m"].function = WRONG  # another precision, say: its digest tells of that
        assert prober.membership(here, None) == local
        check = SpaceCheck(prober, here, None, revision="embedway")
        assert not check.has_changed(width=64, norm=2.0, model="x")

    asyncio.run(run())


def test_switched_off() -> None:
    """With canaries = false each deployment stays in its own space; a bare id means the first."""
    deployments = [Deployment(MODEL, DeploymentSpec(provider=name)) for name in NAMES]
    spaces = SpaceMemberships(
        policy=lambda _: ModelPolicy(), deployments=deployments, enabled=False, interval_s=60,
        fingerprint=lambda _: "", now_ms=lambda: 0,
    )  # fmt: skip
    found = [spaces.membership(each, None) for each in deployments]
    assert spaces.home("m") == "one"
    assert [each.state for each in found] == ["reference", "differs", "differs"]
    assert [each.revision for each in found] == ["one", "two", "three"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Database]:
    opened = database.connect(tmp_path / "test.db")
    yield opened
    opened.dispose()


def proof(**fields: Any) -> Proof:
    told: Mapping[str, Any] = {
        "deployment": "one:m", "input_type": None, "state": "proven", "revision": "one",
        "home": "one", "cosine": 0.99999, "norm_deviation": 1e-7, "reason": "",
        "fingerprint": "f", "models": frozenset({"m", "m-2"}), "at_ms": 5, "since_ms": 4,
    }  # fmt: skip
    return Proof(**{**told, **fields})


def test_store(engine: Database) -> None:
    """What is kept comes back bit by bit, one for each space or deployment and input type."""
    store = SpaceStore(engine)
    reference = Reference(
        model="m", revision="one", input_type=None, texts="t", vectors=made(RIGHT),
        made_by="one:m", made_ms=3,
    )  # fmt: skip
    query = msgspec.structs.replace(reference, input_type="query", vectors=made(WRONG))
    proofs = [proof(), proof(input_type="query", cosine=None, state="differs"), proof(at_ms=9)]

    async def run() -> None:
        for each in (reference, query):
            assert await store.keep_reference(each) is each
        for each in proofs:
            assert await store.keep_proof(each) is each
        references, kept = await store.load()
        assert {each.input_type: each.vectors.tobytes() for each in references} == {
            None: reference.vectors.tobytes(),
            "query": query.vectors.tobytes(),
        }
        assert references[0].vectors.shape == (len(CANARIES), 64)
        assert {each.input_type: each for each in kept} == {None: proofs[2], "query": proofs[1]}
        # The first to make a reference of the same texts makes it for all.
        late = msgspec.structs.replace(reference, vectors=made(WRONG))
        assert np.array_equal((await store.keep_reference(late)).vectors, reference.vectors)
        other = msgspec.structs.replace(late, texts="t2")
        assert await store.keep_reference(other) is other

    asyncio.run(run())


def test_store_keeps_drift(engine: Database) -> None:
    """Only a release ends drift."""
    store = SpaceStore(engine)

    async def run() -> None:
        drifted = proof(state="drifted")
        assert await store.keep_proof(drifted) == drifted
        assert await store.keep_proof(proof(at_ms=99)) == drifted
        assert (await store.load())[1] == [drifted]
        released = proof(at_ms=100)
        assert await store.keep_proof(released, release=True) == released
        assert (await store.load())[1] == [released]

    asyncio.run(run())


def test_store_gone(engine: Database, tmp_path: Path) -> None:
    """A missing database raises StorageUnavailable."""
    (tmp_path / "test.db").unlink()
    with pytest.raises(StorageUnavailable):
        asyncio.run(SpaceStore(engine).keep_proof(proof()))


def test_failed_engine_is_told() -> None:
    """Whatever an engine raises, a caller that waits for a proof gets a ProviderError."""

    class Broken(Fake):
        async def embed(self, batch: Batch) -> BatchResult:
            raise ZeroDivisionError

    world = World()
    world.engines["one"] = Broken()

    async def run() -> None:
        prober = world.start(NAMES, None)
        with pytest.raises(ProviderError):
            await prober.prove(Deployment(MODEL, DeploymentSpec(provider="one")), None)

    asyncio.run(run())


class Shell:
    """The command line, in a folder whose embedway.toml has two providers of one model."""

    def __init__(self, folder: Path, one: Upstream, two: Upstream) -> None:
        self.folder = folder
        self.env = {"EMBEDWAY_DATA_DIR": str(folder / "data")}
        open_store(folder / "data").database.dispose()
        lines = ["providers_from_environment = false", "local_servers = false"]
        for name, each in (("one", one), ("two", two)):
            lines += [
                f"[providers.{name}]", 'kind = "openai"', f'base_url = "{each.url}/openai/v1"',
                'api_key = "k"', "catalog = false", f"[[providers.{name}.models]]", 'id = "m"',
                "dimensions = 64",
            ]  # fmt: skip
        (folder / "embedway.toml").write_text("\n".join(lines))

    def spaces(self, *arguments: str) -> tuple[int, str, str]:
        done = embedway("spaces", *arguments, env=self.env, cwd=self.folder)
        return done.returncode, done.stdout, done.stderr

    def states(self, *arguments: str) -> tuple[int, list[tuple[str, str]]]:
        status, out, _ = self.spaces(*arguments, "--json")
        return status, [(each["state"], each["space"].split("/")[0]) for each in json.loads(out)]


def test_commands(tmp_path: Path) -> None:
    """An operator sees what is proven, proves it, and releases what drifted; drift is status 1."""
    with Upstream(vectors=RIGHT) as one, Upstream(vectors=RIGHT) as two:
        shell = Shell(tmp_path, one, two)
        assert shell.states("status") == (0, [("reference", "m@one"), ("unproven", "m@two")])
        assert not one.calls
        assert shell.states("prove", "m") == (0, [("reference", "m@one"), ("proven", "m@one")])
        two.vectors = other_pooling(RIGHT)
        drifted = (1, [("reference", "m@one"), ("drifted", "m@one")])
        assert shell.states("prove") == drifted
        status, _, said = shell.spaces("status", "two:m")
        assert status == 1
        assert "two:m has drifted" in said
        done = embedway("doctor", "--json", env=shell.env, cwd=shell.folder)
        found = {row["check"]: row for row in json.loads(done.stdout)}
        assert (done.returncode, found["spaces"]["level"]) == (1, "fail")
        assert found["spaces"]["detail"].endswith("embedway spaces release two:m")
        status, _, said = shell.spaces("release", "two:m")
        assert status == 1
        assert "cosine" in said
        assert "--accept" in said
        assert shell.states("status") == drifted
        two.vectors = RIGHT
        assert shell.spaces("release", "two:m")[0] == 0
        assert shell.states("status", "m") == (0, [("reference", "m@one"), ("proven", "m@one")])
        one.vectors = WRONG
        assert shell.states("prove")[0] == 1
        status, out, _ = shell.spaces("release", "one:m", "--accept")
        assert status == 0
        assert "m@one~2/" in out
        assert "cannot be compared" in out
        assert shell.states("prove") == (0, [("reference", "m@one~2"), ("differs", "m@two")])


def test_commands_refuse(tmp_path: Path) -> None:
    """Commands that cannot be done exit with status 1."""
    with Upstream(vectors=RIGHT) as one, Upstream(vectors=RIGHT) as two:
        shell = Shell(tmp_path, one, two)
        for arguments, said in (
            (("status", "nothing"), "The model 'nothing' does not exist."),
            (("release", "m"), "There is no deployment 'm'."),
            (("release", "nobody:m"), "There is no deployment 'nobody:m'."),
        ):
            status, _, error = shell.spaces(*arguments)
            assert (status, said in error) == (1, True), error
        status, out, _ = shell.spaces("release", "one:m")
        assert (status, "nothing to release" in out) == (0, True)
        two.always("401")
        status, _, error = shell.spaces("prove")
        assert (status, "two:m did not answer the probe: credentials" in error) == (1, True)
        shell.env["EMBEDWAY_CANARIES"] = "false"
        status, _, error = shell.spaces("status")
        assert (status, "'canaries' is false" in error) == (1, True)
