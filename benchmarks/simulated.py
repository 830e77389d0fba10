"""Simulates deployments of one model that slow down, fail, limit the rate and recover.

They are engines, so that the real gateway can call them. They also reveal their state, so that an
oracle knows which one was best. Time is the running loop's.
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
"""The time until a connection is refused."""
LIMITED_S = 0.01
"""The time until a call is refused by a rate limit."""
ERROR_S = 0.05
"""The time until an error, before noise."""
UNRELIABLE = 0.1
"""The oracle does not use a deployment that fails a larger share of its calls."""
FAILURES: tuple[FailureKind, ...] = ("failed", "overloaded", "malformed", "unreachable", "timeout")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a deployment."""

    slower: float = 1.0
    """The factor by which calls take longer."""
    fails: float = 0.0
    """The share of calls that fail."""
    dead: bool = False
    """Whether it refuses connections."""
    hangs: bool = False
    """Whether it accepts calls and never answers."""
    key_refused: bool = False
    per_s: float | None = None
    """The calls it accepts per second; None for its usual number."""
    foreign: bool = False
    """Whether it returns vectors of another space, under another model's name."""


WELL = Condition()


@dataclass
class SimulatedRequest:
    """A request in flight, as the deployments see it."""

    noise: float
    """The factor by which every call for it takes longer."""
    calls: int = 0


REQUEST: ContextVar[SimulatedRequest] = ContextVar("request")


class Vectorspace:
    """The vectors of each text in two spaces, each made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], Vectors] = {}

    def of(self, texts: Sequence[str], *, foreign: bool = False) -> Vectors:
        """Return the vectors of `texts`."""
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
    """A simulated deployment, and what happened to it."""

    name: str
    price: float
    """The price in USD per million tokens."""
    start_s: float
    """The time of a call without tokens."""
    per_token_s: float
    slots: int
    """The calls it runs at a time at full speed."""
    per_s: float
    """The calls it accepts per second, in the long run."""
    limits: BatchLimits = field(default_factory=lambda: BatchLimits(max_items=64))
    condition: Condition = WELL
    abilities: EngineAbilities = field(default_factory=EngineAbilities)

    def join(self, space: Vectorspace, random: Random) -> None:
        """Start its day."""
        self._space = space
        self._random = random
        self._room = self._burst
        self._room_s = self._now_s
        self._retry_at_s = 0.0
        self._running = 0
        self.most_running = 0
        self.too_early = 0
        """The calls before the end of the last `Retry-After`."""
        self.calls_s: list[float] = []
        """The times of its calls, without probes."""
        self.probes = 0

    @property
    def spec(self) -> DeploymentSpec:
        """The deployment as the catalog describes it."""
        return DeploymentSpec(provider=self.name, price_per_mtok_usd=Decimal(str(self.price)))

    def available(self) -> bool:
        """Return whether it would answer a call now, except for random failures."""
        now = self.condition
        down = now.dead or now.hangs or now.key_refused or now.foreign or now.fails > UNRELIABLE
        return not down and self._level() >= 1 and self._running < 4 * self.slots

    def seconds(self, *, items: int, tokens: float, noise: float) -> float:
        """Return how long a request of this size takes now."""
        calls = -(-items // self.limits.max_items)
        load = max(1.0, (self._running + calls) / self.slots)
        return self._duration_s(tokens / calls, noise=noise, load=load)

    async def embed(self, batch: Batch) -> BatchResult:
        """Answer a call, or fail, as the condition says."""
        request, now_s = REQUEST.get(), self._now_s
        if batch.items[0] in TEXTS:
            request.calls += 1
            self.calls_s.append(now_s)
        else:
            self.probes += 1
        self.too_early += now_s < self._retry_at_s
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        try:
            return await self._answer(batch, request.noise)
        finally:
            self._running -= 1

    async def _answer(self, batch: Batch, noise: float) -> BatchResult:
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
            return await self._fail(batch, noise)
        load = max(1.0, self._running / self.slots)
        await asyncio.sleep(self._duration_s(sum(batch.tokens), noise=noise, load=load))
        return BatchResult(
            vectors=self._space.of(batch.items, foreign=now.foreign),
            tokens=sum(batch.tokens),
            model="another" if now.foreign else MODEL,
        )

    def _limited(self) -> ProviderError:
        wait_s = max((1 - self._level()) / self._rate, 0.0)
        self._retry_at_s = max(self._retry_at_s, self._now_s + wait_s)
        return ProviderError("rate_limit", retry_after_s=wait_s)

    async def _fail(self, batch: Batch, noise: float) -> BatchResult:
        kind = self._random.choice(FAILURES)
        await asyncio.sleep(ERROR_S * noise)
        if kind == "malformed":  # the gateway's own check finds zeros
            return BatchResult(vectors=np.zeros((len(batch.items), WIDTH), np.float32))
        raise ProviderError(kind, billed="no" if kind == "unreachable" else "maybe")

    def _duration_s(self, tokens: float, *, noise: float, load: float) -> float:
        return (self.start_s + self.per_token_s * tokens) * self.condition.slower * noise * load

    @property
    def _rate(self) -> float:
        limited = self.condition.per_s
        return self.per_s if limited is None else limited

    @property
    def _burst(self) -> float:
        return max(2.0, 2 * self._rate)

    def _level(self) -> float:
        """Return the level of the token bucket of its rate limit."""
        since_s = self._now_s - self._room_s
        return min(self._room + since_s * self._rate, self._burst)

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def deployments() -> list[Simulated]:
    """Return six deployments of one model, in the order of their declaration."""
    return [
        Simulated("middling", 0.05, 0.10, 40e-6, slots=24, per_s=60),
        Simulated("cheap", 0.01, 0.25, 80e-6, slots=32, per_s=40),
        Simulated("swift", 0.13, 0.04, 15e-6, slots=24, per_s=40),
        Simulated("second", 0.02, 0.15, 60e-6, slots=24, per_s=40),
        Simulated("twin", 0.02, 0.17, 60e-6, slots=24, per_s=40),
        Simulated("far", 0.08, 0.40, 50e-6, slots=24, per_s=60, limits=BatchLimits(max_items=32)),
    ]


def catalog_deployments(all_: Sequence[Simulated]) -> list[Deployment]:
    """Return the deployments as the catalog describes them."""
    model = Model(
        id=MODEL,
        dimensions=WIDTH,
        normalised=True,
        pooling="cls",
        deployments=[each.spec for each in all_],
    )
    return [Deployment(model, each) for each in model.deployments]


def _texts() -> Mapping[str, list[int]]:
    random = Random("texts")
    lengths = [int(min(4 + random.lognormvariate(3.5, 1.2), 1500)) for _ in range(400)]
    return {
        f"{at}".ljust(tokens * 4, "."): list(range(tokens)) for at, tokens in enumerate(lengths)
    }


TEXTS = _texts()
"""All texts that clients send, with their tokens."""
