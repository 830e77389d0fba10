"""Deployments of one model that slow down, die, limit the rate and come back, as a script says.

They are engines, so that the real gateway can ask them; and they tell the truth about themselves,
so that an oracle can be asked who should have been asked. Time is the running loop's.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import msgspec
import numpy as np

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.provider_error import FailureKind, ProviderError
from embedway.core.vectors import Vectors

WIDTH = 16
MODEL = "simulated-embed"
REFUSED_S = 0.002
"""Until a connection is refused."""
LIMITED_S = 0.01
ERROR_S = 0.05
"""Until an error comes, but for the noise."""
UNRELIABLE = 0.1
"""Who fails a larger share of its calls is not one that an oracle would count on."""
FAILURES: tuple[FailureKind, ...] = ("failed", "overloaded", "malformed", "unreachable", "timeout")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is the matter with a deployment."""

    slower: float = 1.0
    """How many times."""
    fails: float = 0.0
    """The share of its calls."""
    dead: bool = False
    """Refuses connections."""
    hangs: bool = False
    """Takes calls and never answers."""
    key_refused: bool = False
    per_s: float | None = None
    """Calls it takes, if fewer than usual."""
    foreign: bool = False
    """Gives vectors of another space, and calls its model otherwise."""


WELL = Condition()


@dataclass
class Trip:
    """A request on its way, as those who are asked for it see it."""

    noise: float
    """By which every call for it takes longer or shorter, whoever is asked."""
    calls: int = 0


TRIP: ContextVar[Trip] = ContextVar("trip")


class Vectorspace:
    """A vector for each text, and another in the other space; made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], Vectors] = {}

    def of(self, texts: Sequence[str], *, foreign: bool = False) -> Vectors:
        """The vectors of `texts`."""
        return np.stack([self._one(text, foreign=foreign) for text in texts])

    def _one(self, text: str, *, foreign: bool) -> Vectors:
        vector = self._known.get((text, foreign))
        if vector is None:
            seed = zlib.crc32(text.encode()) * 2 + foreign
            drawn = np.random.default_rng(seed).standard_normal(WIDTH)
            vector = (drawn / np.linalg.norm(drawn)).astype(np.float32)
            self._known[text, foreign] = vector
        return vector


@dataclass
class Simulated:
    """A deployment, and all that was done to it."""

    name: str
    price: float
    """USD per million tokens."""
    start_s: float
    """Of a call without tokens."""
    per_token_s: float
    slots: int
    """Calls at a time; with more each takes longer."""
    per_s: float
    """Calls that it takes, on the long run."""
    limits: BatchLimits = field(default_factory=lambda: BatchLimits(max_items=64))
    condition: Condition = WELL
    abilities: EngineAbilities = field(default_factory=EngineAbilities)

    def join(self, space: Vectorspace, random: Random) -> None:
        """Begins its day."""
        self._space = space
        self._random = random
        self._room = self._burst
        self._room_s = self._now_s
        self._told_until_s = 0.0
        self._running = 0
        self.most_running = 0
        self.too_early = 0
        """Calls that came before the time that another call had been told to wait until."""
        self.calls_s: list[float] = []
        """When it was asked, probes apart."""
        self.probes = 0

    @property
    def served(self) -> DeploymentSpec:
        """As the catalog knows it."""
        return DeploymentSpec(provider=self.name, price_per_mtok_usd=Decimal(str(self.price)))

    def available(self) -> bool:
        """Whether it would answer a call now, but for bad luck."""
        now = self.condition
        down = now.dead or now.hangs or now.key_refused or now.foreign or now.fails > UNRELIABLE
        return not down and self._level() >= 1 and self._running < 4 * self.slots

    def seconds(self, *, items: int, tokens: float, noise: float) -> float:
        """What answering so many takes now."""
        calls = -(-items // self.limits.max_items)
        load = max(1.0, (self._running + calls) / self.slots)
        return self._took(tokens / calls, noise=noise, load=load)

    async def embed(self, batch: Batch) -> BatchResult:
        """See `embedway.sending.engine.Engine.embed`."""
        trip, now_s = TRIP.get(), self._now_s
        if batch.items[0] in TEXTS:
            trip.calls += 1
            self.calls_s.append(now_s)
        else:
            self.probes += 1
        self.too_early += now_s < self._told_until_s
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        try:
            return await self._answered(batch, trip.noise)
        finally:
            self._running -= 1

    async def _answered(self, batch: Batch, noise: float) -> BatchResult:
        now = self.condition
        if now.hangs:
            await asyncio.get_running_loop().create_future()
        if now.dead:
            await asyncio.sleep(REFUSED_S)
            raise ProviderError("unreachable")
        if now.key_refused:
            await asyncio.sleep(ERROR_S * noise)
            raise ProviderError("credentials")
        self._room, self._room_s = self._level(), self._now_s
        if self._room < 1:
            await asyncio.sleep(LIMITED_S)
            raise self._limited()
        self._room -= 1
        if self._random.random() < now.fails:
            return await self._failed(batch, noise)
        load = max(1.0, self._running / self.slots)
        await asyncio.sleep(self._took(sum(batch.tokens), noise=noise, load=load))
        return BatchResult(
            vectors=self._space.of(batch.items, foreign=now.foreign),
            tokens=sum(batch.tokens),
            model="another" if now.foreign else MODEL,
        )

    def _limited(self) -> ProviderError:
        wait_s = max((1 - self._level()) / self._rate, 0.0)
        self._told_until_s = max(self._told_until_s, self._now_s + wait_s)
        return ProviderError("rate_limit", retry_after_s=wait_s)

    async def _failed(self, batch: Batch, noise: float) -> BatchResult:
        kind = self._random.choice(FAILURES)
        await asyncio.sleep(ERROR_S * noise)
        if kind == "malformed":  # as the gateway's own check finds it
            return BatchResult(vectors=np.zeros((len(batch.items), WIDTH), np.float32))
        raise ProviderError(kind, billed="no" if kind == "unreachable" else "maybe")

    def _took(self, tokens: float, *, noise: float, load: float) -> float:
        return (self.start_s + self.per_token_s * tokens) * self.condition.slower * noise * load

    @property
    def _rate(self) -> float:
        limited = self.condition.per_s
        return self.per_s if limited is None else limited

    @property
    def _burst(self) -> float:
        return max(2.0, 2 * self._rate)

    def _level(self) -> float:
        """Of the bucket that a call takes one from."""
        since_s = self._now_s - self._room_s
        return min(self._room + since_s * self._rate, self._burst)

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def deployments() -> list[Simulated]:
    """Six of one model, in the order in which they are declared."""
    return [
        Simulated("middling", 0.05, 0.10, 40e-6, slots=24, per_s=60),
        Simulated("cheap", 0.01, 0.25, 80e-6, slots=32, per_s=40),
        Simulated("swift", 0.13, 0.04, 15e-6, slots=24, per_s=40),
        Simulated("second", 0.02, 0.15, 60e-6, slots=24, per_s=40),
        Simulated("twin", 0.02, 0.17, 60e-6, slots=24, per_s=40),
        Simulated("far", 0.08, 0.40, 50e-6, slots=24, per_s=60, limits=BatchLimits(max_items=32)),
    ]


def served(all_: Sequence[Simulated]) -> list[Deployment]:
    """As the catalog knows them."""
    model = Model(
        id=MODEL,
        dimensions=WIDTH,
        normalised=True,
        pooling="cls",
        deployments=[each.served for each in all_],
    )
    return [Deployment(model, each) for each in model.deployments]


def _texts() -> Mapping[str, list[int]]:
    random = Random("texts")
    lengths = [int(min(4 + random.lognormvariate(3.5, 1.2), 1500)) for _ in range(400)]
    return {
        f"{at}".ljust(tokens * 4, "."): list(range(tokens)) for at, tokens in enumerate(lengths)
    }


TEXTS = _texts()
"""All that clients ever send, with their tokens."""
