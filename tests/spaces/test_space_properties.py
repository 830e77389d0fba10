"""Whatever is configured, fails or changes: an answer is of the space it names, or there is none.

A whole gateway in this process asks real servers, each with a vector function of its own. What
must be true is asked of the vectors, of what the servers received, and of the ledger.
"""

import asyncio
import base64
import functools
import itertools
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import in_process
import numpy as np
import pytest
from conftest import Minilm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.core.clock import now_ms
from embedway.core.money import format_usd
from embedway.ledger.query import UsageQuery
from embedway.ledger.reports import UsageReports
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.spaces.canaries import CANARIES
from embedway.spaces.proof import Proof, Reference
from embedway.spaces.store import SpaceStore
from embedway.storage.store import Store, open_store
from embedway.testing import (
    Item,
    Upstream,
    Vectors,
    noisy,
    other_pooling,
    scaled,
    shorten_vector,
    space,
)

WIDTH = 64
MODELS = ("alpha", "beta")
PROVIDERS = ("p0", "p1", "p2", "p3", "p4", "p5")
SERVES = {provider: MODELS[at // 3] for at, provider in enumerate(PROVIDERS)}
PURPOSES = ("query", "document")
INTERVAL_S = 600.0
TIMEOUT_S = 0.4
SLACK_S = 30.0
"""How long a step may take on the gateway's clock, which otherwise is set forward by an hour."""
UNQUANTISED = {"fp32", "bf16", "fp16"}
POSSIBLE = {200, 400, 404, 429, 502, 503, 504}
SUPPLIED = CANARIES[:3]

# What a deployment may be, beside the model it claims to be.
VARIANTS: Mapping[str, Callable[[Vectors], Vectors]] = {
    "true": lambda true: true,
    "pooling": other_pooling,
    "scaled": lambda true: scaled(true, 1.5),
    "noisy": noisy,
    "other": lambda true: lambda item, width: true(f"other {item}", width),
    "narrow": lambda true: lambda item, width: true(item, width // 2),
}
VISIBLE = {"scaled", "narrow"}
"""Variants whose responses alone show that they are not `true`."""
FAULTS = (
    *("429", "429 of seconds", "429 of a date", "rate limit with 200", "insufficient quota"),
    *("500", "502 HTML", "503", "503 with Retry-After", "504", "408", "409"),
    *("reset before the head", "reset in the body", "close before the head", "close in the body"),
    *("too few vectors", "too many vectors", "shuffled indices", "duplicate index", "no indices"),
    *("NaN", "zeros", "one vector longer", "truncated JSON", "HTML with 200", "numbers as strings"),
    *("400", "400 of dimensions", "400 too long", "400 too many tokens", "401", "404", "413"),
    *("no usage", "usage absurd", "floats", "gzip", "never answers"),
)

NUMBERS = itertools.count()


def function(model: str, variant: str, purpose: str) -> Vectors:
    """What a deployment that is `variant` answers, asked for `purpose`."""
    return VARIANTS[variant](space(f"{model} {purpose}"))


def agree(model: str, one: str, other: str, purpose: str, *, least: float) -> bool:
    """Whether two variants are of one space, for who is content with this cosine."""
    vectors = [
        np.stack([function(model, each, purpose)(text, WIDTH) for text in CANARIES])
        for each in (one, other)
    ]
    if vectors[0].shape != vectors[1].shape:
        return False
    norms = [np.linalg.norm(each, axis=1) for each in vectors]
    cosines = (vectors[0] * vectors[1]).sum(axis=1) / norms[0] / norms[1]
    return bool(cosines.min() >= least and np.abs(norms[0] / norms[1] - 1).max() <= 0.01)


class Clock:
    """The real one, set forward by hand."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.ahead_s

    def now_ms(self) -> int:
        return now_ms() + round(self.ahead_s * 1000)


@dataclass(frozen=True)
class Said:
    """A vector that a deployment made."""

    at_s: float
    item: Item
    variant: str
    purpose: str


@dataclass
class Deployment:
    """A provider's only model, at a server of its own."""

    provider: str
    upstream: Upstream
    kind: str = "openai"
    eu_native: bool = False
    zdr: bool = False
    quantisation: str = "unknown"
    price: str | None = None
    pooling: str = "cls"
    variant: str = "true"
    clock: Clock = field(default_factory=Clock)
    said: list[Said] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> str:
        return SERVES[self.provider]

    def become(self, variant: str) -> None:
        """Answers so from now on."""
        self.variant = variant
        self.upstream.vectors = functools.partial(self._say, variant, "")
        self.upstream.purposes = {
            each: functools.partial(self._say, variant, each) for each in PURPOSES
        }

    def _say(self, variant: str, purpose: str, item: Item, width: int) -> Any:
        with self.lock:
            self.said.append(Said(self.clock.now_s(), item, variant, purpose))
        return function(self.model, variant, purpose)(item, width)

    def says(self, item: Item) -> list[Said]:
        """What it said of an item."""
        with self.lock:
            return [each for each in self.said if each.item == item]

    def received(self) -> set[str]:
        """The texts that reached it, answered or not."""
        texts: set[str] = set()
        for call in self.upstream.calls:
            given = call.body["input"]
            texts.update([given] if isinstance(given, str) else given)
        return texts

    def section(self, *, declared: bool, max_items: int) -> dict[str, Any]:
        """In embedway.toml."""
        model: dict[str, Any] = {
            "id": self.model,
            "pooling": self.pooling,
            "trained_dimensions": "any",
            "quantisation": self.quantisation,
            "dimensions": WIDTH if declared else None,
            "price_per_mtok_usd": self.price,
        }
        return {
            "kind": self.kind,
            "base_url": f"{self.upstream.url}/{self.kind}/v1",
            "api_key": "k",
            "catalog": False,
            "eu_native": self.eu_native,
            "zero_data_retention": self.zdr,
            "max_items": max_items,
            "models": [{name: value for name, value in model.items() if value is not None}],
        }


@dataclass
class World:
    """A gateway, whom it asks, and what was asked of it."""

    folder: Path
    deployments: dict[str, Deployment]
    values: dict[str, Any]
    clock: Clock
    store: Store
    key: str
    least: dict[str, float]
    """By model, the cosine that the operator is content with."""
    declared: bool
    gateway: Any = None
    answered: dict[str, httpx.Response] = field(default_factory=dict)
    """With 200, by id."""
    quarantined: set[str] = field(default_factory=set)
    """What the gateway knew at the last pause."""

    async def settle(self) -> None:
        """Waits for what the gateway does in the background."""
        await in_process.settled()
        _, proofs = await self.known()
        self.quarantined = {each.deployment for each in proofs if each.state == "drifted"}

    async def known(self) -> tuple[Sequence[Reference], Sequence[Proof]]:
        """What the gateway keeps of spaces."""
        return await SpaceStore(self.store.database, availability=self.store.availability).load()

    async def ask(self, asked: Mapping[str, Any]) -> httpx.Response:
        """One request, and all that must be true of its answer."""
        began_s = self.clock.now_s()
        transport = httpx.ASGITransport(app=self.gateway, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            reply = await client.post(
                "/v1/embeddings", json=asked, headers={"authorization": f"Bearer {self.key}"}
            )
        assert reply.status_code in POSSIBLE, (reply.status_code, reply.text)
        self.check_whom(asked)
        if reply.status_code == 200:
            body = reply.json()
            assert body["id"] not in self.answered
            self.answered[body["id"]] = reply
            await self.check_vectors(asked, reply, began_s=began_s)
        return reply

    def check_whom(self, asked: Mapping[str, Any]) -> None:
        """No text went to anybody who may not have it."""
        texts = set(asked["input"])
        names = [asked["model"], *asked.get("fallbacks", [])]
        meant = {provider for name in names for provider in self.meant(name)}
        for provider, each in self.deployments.items():
            if not texts & each.received():
                continue
            only = self.values["models"].get(each.model, {}).get("only")
            allowed = asked.get("allowed_providers")
            assert provider in meant, asked
            assert only is None or provider in only, asked
            assert allowed is None or provider in allowed, asked
            assert each.eu_native or not asked.get("eu_native"), asked
            assert each.zdr or not asked.get("zdr"), asked
            assert each.quantisation in UNQUANTISED or asked.get("allow_quantization", True), asked

    def meant(self, name: str) -> list[str]:
        """The providers that a name may mean."""
        told = self.values["auto"] if name == "auto" else self.values["aliases"].get(name, name)
        if isinstance(told, list):
            return [provider for each in told for provider in self.meant(each)]
        provider, separator, _ = told.partition(":")
        if separator:
            return [provider]
        return [each for each in PROVIDERS if SERVES[each] == told]

    async def check_vectors(
        self, asked: Mapping[str, Any], reply: httpx.Response, *, began_s: float
    ) -> None:
        """Each vector is the function of the space it is said to be of, by who is said to."""
        body = reply.json()
        model, _, rest = reply.headers["x-embedway-space"].partition("@")
        revision, _, _, width = rest.rsplit("/", 3)
        purpose = asked.get("input_type", "") if "prompt-retrieval" in rest else ""
        providers = reply.headers["x-embedway-provider"].split(",")
        assert body["provider"] == reply.headers["x-embedway-provider"]
        assert [each["index"] for each in body["data"]] == list(range(len(asked["input"])))
        truth = await self.truth(model, revision, purpose)
        served: set[str] = set()
        for text, entry in zip(asked["input"], body["data"], strict=True):
            vector = decoded(entry["embedding"])
            assert vector.shape == (int(width),)
            by = {
                provider: said
                for provider in providers
                for said in self.deployments[provider].says(text)
                if said.purpose == purpose and equal(vector, self.expected(model, said, asked))
            }
            assert by, f"{providers} never said this of {text!r}: {asked}"
            served |= by.keys()
            assert any(
                self.is_of(provider, said, truth, asked, began_s=began_s)
                for provider, said in by.items()
            ), (asked, reply.headers["x-embedway-space"], by, truth)
        assert served == set(providers)

    def expected(self, model: str, said: Said, asked: Mapping[str, Any]) -> Any:
        whole = function(model, said.variant, said.purpose)(said.item, WIDTH)
        width = asked.get("dimensions", WIDTH)
        return shorten_vector(whole, width) if width < WIDTH else whole

    async def truth(self, model: str, revision: str, purpose: str) -> str | None:
        """The variant that the space of this name is; None before there is a reference."""
        if revision not in self.deployments:
            return "true"  # the vectors that were supplied
        for each in (await self.known())[0]:
            if (each.model, each.revision, each.input_type or "") == (model, revision, purpose):
                found = [
                    next(
                        variant
                        for variant in VARIANTS
                        if equal(vector, function(model, variant, purpose)(text, WIDTH))
                    )
                    for text, vector in zip(CANARIES, each.vectors, strict=True)
                ]
                # It may have changed while it was probed, but only within the tolerance.
                least = self.least[model]
                assert all(agree(model, found[0], other, purpose, least=least) for other in found)
                return found[0]
        return None

    def is_of(
        self,
        provider: str,
        said: Said,
        truth: str | None,
        asked: Mapping[str, Any],
        *,
        began_s: float,
    ) -> bool:
        """Whether the response is in the space, or cannot be known yet not to be."""
        deployment = self.deployments[provider]
        id = f"{provider}:{deployment.model}"
        assert id not in self.quarantined, asked
        if truth is None:
            return True
        model, purpose, least = deployment.model, said.purpose, self.least[deployment.model]
        whole = asked.get("dimensions", WIDTH) == WIDTH
        if agree(model, said.variant, truth, purpose, least=least):
            return True
        if not whole and {said.variant, truth} == {"true", "scaled"}:
            return True  # cut and brought to length one they are the same
        # It changed silently, which cannot show until the next probe is due.
        if whole and truth not in VISIBLE and said.variant in VISIBLE:
            return False
        proofs = [
            each.at_s
            for each in deployment.says(CANARIES[0])
            if each.purpose == purpose and agree(model, each.variant, truth, purpose, least=least)
        ]
        return bool(proofs) and began_s <= max(proofs) + 2 * INTERVAL_S + SLACK_S

    async def check_bill(self) -> None:
        """Each answer is in the ledger, once, and the sums are those of the answers."""
        sums = UsageReports(self.store.database).sum_usage(UsageQuery(group_by=("provider",)))
        assert sum(each.totals.requests for each in sums) == len(self.answered)
        for each in sums:
            (provider,), each = each.group, each.totals  # noqa: PLW2901
            replies = [
                reply
                for reply in self.answered.values()
                if reply.headers["x-embedway-provider"] == provider
            ]
            assert each.requests == len(replies)
            assert each.items == sum(len(reply.json()["data"]) for reply in replies)
            used = sum(reply.json()["usage"]["prompt_tokens"] for reply in replies)
            assert each.tokens == used
            costs = [float(reply.headers["x-embedway-cost-usd"]) for reply in replies]
            assert float(format_usd(each.cost_nano_usd)) == pytest.approx(sum(costs), abs=1e-12)


def decoded(embedding: Any) -> Any:
    """A vector as it was sent."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding, np.float32)


def equal(one: Any, other: Any) -> bool:
    """Whether two vectors are the same, but for the last digits."""
    if one.shape != other.shape:
        return False
    norms = np.linalg.norm(one), np.linalg.norm(other)
    return bool(
        one @ other / norms[0] / norms[1] >= 0.99999 and abs(norms[0] / norms[1] - 1) < 1e-4
    )


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """What an operator says of names and models."""
    models: dict[str, Any] = {}
    for model in MODELS:
        serving = [each for each in PROVIDERS if SERVES[each] == model]
        said: dict[str, Any] = {}
        if draw(st.booleans()):
            said["order"] = draw(st.permutations(serving))[: draw(st.integers(1, 3))]
        if draw(st.booleans()):
            said["weights"] = {serving[0]: 3.0, serving[1]: draw(st.sampled_from([0.0, 0.5]))}
        if draw(st.integers(0, 3)) == 0:
            said["only"] = [serving[0], draw(st.sampled_from(serving[1:]))]
        if draw(st.booleans()):
            said["reference"] = draw(st.sampled_from(serving))
        elif draw(st.integers(0, 3)) == 0:
            said["canaries"] = model  # the file's path once it is written
        if draw(st.integers(0, 3)) == 0:
            said["min_cosine"] = 0.99
        if said:
            models[model] = said
    return {
        "models": models,
        "auto": draw(st.sampled_from(["alpha", "p1:alpha"])),
        "aliases": {"best": "beta", "mine": ["p1:alpha", "p0:alpha"]},
    }


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What a client may ask for; the texts are put in later."""
    model = draw(
        st.sampled_from([*MODELS, *MODELS, "auto", "best", "mine", "p0:alpha", "p2:alpha"])
    )
    asked: dict[str, Any] = {"model": model, "items": draw(st.sampled_from([1, 1, 2, 3, 7]))}
    options: dict[str, st.SearchStrategy[Any]] = {
        "preference": st.sampled_from(["cost", "speed", "balanced"]),
        "encoding_format": st.just("base64"),
        "dimensions": st.sampled_from([16, 32, 64]),
        "input_type": st.sampled_from([*PURPOSES, "clustering"]),
        "eu_native": st.just(value=True),
        "zdr": st.just(value=True),
        "allow_quantization": st.just(value=False),
        "allowed_providers": st.lists(st.sampled_from(PROVIDERS), min_size=1, max_size=4),
        "fallbacks": st.lists(
            st.sampled_from(["p1:alpha", "p2:alpha", "alpha", "p4:beta"]), min_size=1
        ),
    }
    for name in draw(st.sets(st.sampled_from(sorted(options)), max_size=3)):
        asked[name] = draw(options[name])
    return asked


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.lists(requests(), min_size=1, max_size=3)),
    st.tuples(st.just("ask"), st.lists(requests(), min_size=1, max_size=1)),
    st.tuples(
        st.just("fail"),
        st.sampled_from(PROVIDERS),
        st.lists(st.sampled_from([*FAULTS, None]), min_size=1, max_size=4),
    ),
    st.tuples(st.just("warm")),
    st.tuples(
        st.just("switch"),
        st.sampled_from(PROVIDERS),
        st.sampled_from(sorted(VARIANTS)),
        st.sampled_from(["asked at once", "asked when due", "asked later"]),
    ),
    st.tuples(st.just("rename"), st.sampled_from(PROVIDERS), st.sampled_from(["", "v2"])),
    st.tuples(st.just("wait"), st.sampled_from([7.0, 1.1 * INTERVAL_S, 2.1 * INTERVAL_S, 3600.0])),
    st.tuples(st.just("rest")),
    st.tuples(st.just("restart")),
)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[Upstream]]:
    """One for each provider."""
    running = [Upstream() for _ in PROVIDERS]
    for each in running:
        each.__enter__()
    yield running
    for each in running:
        each.__exit__(None, None, None)


@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_answer_is_of_the_space_it_names(
    minilm: Minilm, upstreams: list[Upstream], data: st.DataObject
) -> None:
    """Any configuration, faults, changes and requests: right vectors from who may, billed once."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(lived(drawn(data, upstreams, Path(folder)), data))


def drawn(data: st.DataObject, upstreams: list[Upstream], folder: Path) -> World:
    """A world before anything happens in it."""
    clock = Clock()
    deployments: dict[str, Deployment] = {}
    for provider, upstream in zip(PROVIDERS, upstreams, strict=True):
        upstream.reset()
        deployments[provider] = Deployment(
            provider,
            upstream,
            kind=data.draw(st.sampled_from(["openai", "voyage"])),
            eu_native=data.draw(st.booleans()),
            zdr=data.draw(st.booleans()),
            quantisation=data.draw(st.sampled_from(["fp32", "bf16", "int8", "unknown"])),
            price=data.draw(st.sampled_from([None, "0.01", "0.02"])),
            pooling="mean" if provider == "p5" and data.draw(st.booleans()) else "cls",
            clock=clock,
        )
        deployments[provider].become(data.draw(st.sampled_from([*["true"] * 6, *VARIANTS])))
    values = data.draw(sections())
    for model, said in values["models"].items():
        if "canaries" in said:
            path = folder / f"{model}.json"
            true = function(model, "true", "")
            vectors = [true(text, WIDTH).tolist() for text in SUPPLIED]
            path.write_text(json.dumps({"texts": SUPPLIED, "vectors": vectors}))
            said["canaries"] = str(path)
    declared = data.draw(st.booleans())
    values["providers"] = {
        provider: each.section(declared=declared, max_items=data.draw(st.sampled_from([2, 100])))
        for provider, each in deployments.items()
    }
    store = open_store(folder / "data")
    shown, key = key_secret.issue_key("tests", pepper=store.pepper, now_ms=now_ms())
    KeyBootstrap(store.database).create(key)
    least = {each: values["models"].get(each, {}).get("min_cosine", 0.999) for each in MODELS}
    return World(folder, deployments, values, clock, store, shown, least, declared)


async def lived(world: World, data: st.DataObject) -> None:
    """Everything that is drawn happens, and then all is well again."""
    steps = data.draw(st.lists(STEPS, min_size=3, max_size=14))
    if data.draw(st.booleans()):
        steps.insert(0, ("warm",))
    lives = [
        list(each)
        for apart, each in itertools.groupby(steps, lambda step: step[0] == "restart")
        if not apart
    ]
    for life in lives or [[]]:
        async with running(world):
            for step in life:
                await happens(world, step)
            await world.settle()
            if life is (lives or [[]])[-1]:
                await recovered(world)
    await world.check_bill()
    world.store.database.dispose()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """The gateway, of which the world knows while the context is open."""
    values = {
        **world.values,
        "request_timeout_s": TIMEOUT_S,
        "canary_interval_s": INTERVAL_S,
    }
    clock = world.clock
    async with in_process.running(
        values, folder=world.folder, now_ms=clock.now_ms, now_s=clock.now_s
    ) as world.gateway:
        yield
    world.gateway = None


async def happens(world: World, step: tuple[Any, ...]) -> None:
    """One step."""
    match step:
        case ("ask", asked):
            await asyncio.gather(*(world.ask(with_texts(each)) for each in asked))
        case ("fail", provider, faults):
            world.deployments[provider].upstream.script(*faults)
        case ("warm",):
            for provider, each in world.deployments.items():
                await world.ask(with_texts({"model": f"{provider}:{each.model}", "items": 1}))
            await world.settle()
        case ("switch", provider, variant, then):
            deployment = world.deployments[provider]
            deployment.become(variant)
            if then == "asked when due":
                await world.settle()
                world.clock.ahead_s += 1.1 * INTERVAL_S
            if then != "asked later":
                for name in (f"{provider}:{deployment.model}", deployment.model):
                    for _ in range(2):
                        await world.ask(with_texts({"model": name, "items": 1}))
        case ("rename", provider, name):
            world.deployments[provider].upstream.echo = name
        case ("wait", seconds):
            await world.settle()
            world.clock.ahead_s += seconds
        case ("rest",):
            await world.settle()


def with_texts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The request, of texts that no other has."""
    texts = [f"text {next(NUMBERS)}" for _ in range(asked["items"])]
    return {name: value for name, value in asked.items() if name != "items"} | {"input": texts}


async def recovered(world: World) -> None:
    """Once nothing fails any more, everybody answers but those in quarantine."""
    for each in world.deployments.values():
        each.upstream.reset()
        each.become(each.variant)
    world.clock.ahead_s += 3600
    for provider, each in world.deployments.items():
        name = f"{provider}:{each.model}"
        only = world.values["models"].get(each.model, {}).get("only")
        if only and provider not in only:
            continue
        # Without the width in the request, it never was a model of that width.
        narrow = world.declared and each.variant == "narrow"
        for _ in range(50):  # the first may have to wait for a probe, for too long
            reply = await world.ask(with_texts({"model": name, "items": 1}))
            await world.settle()
            if reply.status_code == 200 or name in world.quarantined or narrow:
                break
        else:
            pytest.fail(f"{name}: {reply.text}")
