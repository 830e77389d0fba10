"""Runs the gateway's own request path in virtual time, through a day with simulated deployments.

Router, health, spaces, prober and sender are the real ones. Ledger, store and tokenizer, which use
threads, are replaced by ones in memory. An oracle notes which deployments were up.
"""

import asyncio
import random
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import get_args

import msgspec
import numpy as np
from chaos.simulation import virtual_time

from benchmarks.simulated import (
    REQUEST,
    TEXTS,
    WELL,
    Condition,
    SimulatedRequest,
    Vectorspace,
    catalog_deployments,
)
from benchmarks.simulated import deployments as simulated_deployments
from embedway.budgets.enforcer import BudgetEnforcer
from embedway.catalog.catalog import Catalog, ProviderOffer
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.catalog.model import DeploymentSpec
from embedway.core.errors import EmbedwayError
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest, Preference
from embedway.core.usage import UsageRecord
from embedway.health.health import DeploymentHealth, HealthRegistry
from embedway.ledger.ledger import RecordOutcome
from embedway.metering.account import AccountFinder
from embedway.metering.meter import Meter
from embedway.pipeline.embed import Embedder
from embedway.pipeline.result import EmbedResult
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.routing.plan import Candidate, Plan
from embedway.routing.router import Router
from embedway.sending.engine import EngineRegistry
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.prober import Prober
from embedway.spaces.proof import Proof, Reference

PER_S = 4.0
"""The mean number of requests per second."""
NOISE = 0.25
"""The standard deviation of the logarithm of a call's time."""
DEADLINE_S = 60.0
SIZES = ((1, 1, 0.6), (2, 8, 0.25), (9, 32, 0.1), (33, 64, 0.05))
"""The number of items, as ranges with their shares of requests."""
CALLER = Caller(key_id="simulated", project=None, scopes=frozenset(("embeddings",)))
BLIND = ("first declared", "in turn")
POLICIES: tuple[str, ...] = (*get_args(Preference), *BLIND)


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the day in which no deployment changes its condition."""

    name: str
    minutes: float
    """Its length, before all phases are scaled to the length of the day."""
    conditions: dict[str, Condition] = {}
    """The conditions of the deployments that are not well, by name."""


CALM = Phase(name="calm", minutes=10)
FOREIGN = {"twin": Condition(foreign=True)}
DAY = (
    Phase(name="first minutes", minutes=10),
    CALM,
    CALM,
    Phase(name="cheapest 10x slower", minutes=20, conditions={"cheap": Condition(slower=10)}),
    CALM,
    Phase(name="cheapest dies", minutes=20, conditions={"cheap": Condition(dead=True)}),
    CALM,
    Phase(name="fastest hangs", minutes=20, conditions={"swift": Condition(hangs=True)}),
    CALM,
    Phase(
        name="two limit the rate",
        minutes=20,
        conditions={"cheap": Condition(per_s=1), "swift": Condition(per_s=0.5)},
    ),
    CALM,
    Phase(
        name="5% fail everywhere",
        minutes=20,
        conditions={each.name: Condition(fails=0.05) for each in simulated_deployments()},
    ),
    Phase(name="cheapest fails by half", minutes=20, conditions={"cheap": Condition(fails=0.5)}),
    CALM,
    Phase(
        name="all but the dearest die",
        minutes=20,
        conditions={
            each.name: Condition(dead=True)
            for each in simulated_deployments()
            if each.name != "swift"
        },
    ),
    CALM,
    Phase(name="key refused", minutes=10, conditions={"second": Condition(key_refused=True)}),
    Phase(name="vectors of another space", minutes=20, conditions=FOREIGN),
    # A quarantined deployment waits for an operator, so this one does not recover.
    Phase(name="calm, one quarantined", minutes=10, conditions=FOREIGN),
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a request, and what the oracle would have done."""

    at_s: float
    """When it arrived, in seconds since the start of the day."""
    phase: int
    by: str
    """The deployment that answered; empty if none did."""
    error: str
    seconds: float
    tokens: int
    cost_usd: float
    calls: int
    """The calls to all deployments."""
    wrong: bool
    """Whether the vectors are from another space."""
    fastest_s: float | None
    """The time that the fastest available deployment would have taken; None if none was."""
    cheapest: float | None
    """The price of the cheapest available deployment; None if none was."""


class Memory:
    """Replaces the ledger, the space store and the tokenizer, without a database or threads."""

    def append(self, records: Sequence[UsageRecord], **_: object) -> asyncio.Future[RecordOutcome]:
        """Commit at once."""
        del records
        committed: asyncio.Future[RecordOutcome] = asyncio.get_running_loop().create_future()
        committed.set_result("committed")
        return committed

    async def load(self, **_: int) -> tuple[Sequence[Reference], Sequence[Proof]]:
        """Load nothing: nothing is ever released."""
        return (), ()

    async def keep_reference(self, reference: Reference) -> Reference:
        """Keep every reference."""
        return reference

    async def keep_proof(self, proof: Proof, *, release: bool = False) -> Proof:
        """Keep every proof."""
        del release
        return proof

    async def end_user(self, project_id: str, id: str) -> None:
        """Know no end user."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text; make some up for canaries."""
        return [TEXTS.get(text) or list(range(len(text) // 3 + 1)) for text in texts]

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """Fail, because no request has token ids."""
        raise NotImplementedError


class Unwatched(HealthRegistry):
    """Lets every deployment be called at any time, and learns nothing."""

    def get(self, deployment: Deployment) -> DeploymentHealth:
        """Return the health of a deployment that was never called."""
        return DeploymentHealth(deployment)


class Blind:
    """Replaces the router: plans all deployments in declared order, or each first in turn."""

    def __init__(self, deployments: Sequence[Deployment], *, turns: bool) -> None:
        self._deployments = list(deployments)
        self._turns = turns

    def plan(self, request: EmbedRequest, _caller: Caller, **_: object) -> Plan:
        """Plan all deployments, whatever their health."""
        if self._turns:
            self._deployments.append(self._deployments.pop(0))
        first = self._deployments[0]
        return Plan(
            request=request,
            space=first.space(),
            revisions={first.model.id: first.revision},
            candidates=[Candidate(deployment=each, latency_s=0.0) for each in self._deployments],
            unproven=(),
            probes_due=(),
            excluded=(),
        )


class Simulation:
    """One day with one policy, on a loop of virtual time."""

    def __init__(
        self, policy: str, *, hours: float, seed: int, day: Sequence[Phase], per_s: float
    ) -> None:
        self._policy = policy
        self._preference: Preference = "balanced" if policy in BLIND else policy
        self._loop = asyncio.get_running_loop()
        self.start_s = self._loop.time()
        share = hours * 3600 / sum(phase.minutes for phase in day)
        self.ends_s = list(accumulate(phase.minutes * share for phase in day))
        self.day = day
        # Separate random numbers: whatever the policy does, the same requests come.
        self._per_s = per_s
        self._traffic = Random(f"traffic {seed}")
        self._space = Vectorspace()
        self.deployments = simulated_deployments()
        for each in self.deployments:
            each.join(self._space, Random(f"{each.name} {seed}"))
        self.outcomes: list[Outcome] = []
        self.ejected: list[tuple[float, str]] = []
        self._embedder, self._prober = self._gateway(seed)

    def _gateway(self, seed: int) -> tuple[Embedder, Prober]:
        memory, now_s = Memory(), self._loop.time
        deployments = catalog_deployments(self.deployments)
        engines = {
            each.engine_name: one for each, one in zip(deployments, self.deployments, strict=True)
        }
        offers = [
            ProviderOffer(provider=name, kind=name, unlisted=DeploymentSpec(provider=name))
            for name in engines
        ]
        catalog = Catalog(deployments, offers=offers, auto=deployments[0].model.id)
        chance = Random(f"gateway {seed}")
        healths = HealthRegistry(now_s=now_s, on_ejected=self._on_ejected, uniform=chance.uniform)
        spaces = SpaceMemberships(
            policy=catalog.policy,
            deployments=deployments,
            enabled=self._policy not in BLIND,
            interval_s=3600,
            fingerprint=lambda each: each.id,
            now_ms=self._now_ms,
        )
        sender = Sender(
            EngineRegistry(engines),
            healths=Unwatched(now_s=now_s) if self._policy in BLIND else healths,
            preparer=InputPreparer(tokenizers={}, cl100k=memory),
        )
        prober = Prober(spaces=spaces, store=memory, sender=sender)
        if self._policy in BLIND:
            prober.is_in = lambda *_: True  # these policies accept any vectors
        router = Router(
            catalog=catalog,
            lifetimes=ModelLifetimes(deployments, now_ms=self._now_ms),
            spaces=spaces,
            healths=healths,
            abilities=lambda each: engines[each.engine_name].abilities,
            now_s=now_s,
            random=chance,
        )
        embedder = Embedder(
            router=Blind(deployments, turns=self._policy == "in turn")
            if self._policy in BLIND
            else router,
            prober=prober,
            sender=sender,
            meter=Meter(
                accounts=AccountFinder(memory),
                limiter=MemoryRateLimiter(),
                budgets=BudgetEnforcer(memory, now_ms=self._now_ms),
            ),
            ledger=memory,
            deadline_s=DEADLINE_S,
            now_ms=self._now_ms,
        )
        return embedder, prober

    async def run(self) -> None:
        """Run the day, until its last request is answered."""
        random.seed(0)  # the sender draws the waits before retries from the global generator
        for at, end_s in enumerate([0.0, *self.ends_s[:-1]]):
            self._loop.call_at(self.start_s + end_s, self._begin, self.day[at])
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            for at, end_s in enumerate(self.ends_s):
                while (wait_s := self._traffic.expovariate(self._per_s)) + self._at_s < end_s:
                    await asyncio.sleep(wait_s)
                    noise = self._traffic.lognormvariate(0, NOISE)
                    group.create_task(self._request(self._texts(), noise, phase=at))
                await asyncio.sleep(end_s - self._at_s)
        await self._prober.aclose()

    async def _request(self, texts: list[str], noise: float, *, phase: int) -> None:
        at_s, simulated = self._at_s, SimulatedRequest(noise)
        REQUEST.set(simulated)
        tokens = sum(len(TEXTS[text]) for text in texts)
        up = [each for each in self.deployments if each.available()]
        best_s = [each.seconds(items=len(texts), tokens=tokens, noise=noise) for each in up]
        request = EmbedRequest(input=texts, preference=self._preference)
        answer: EmbedResult | None = None
        try:
            answer = await self._embedder.embed(request, CALLER, request_id="", started_s=0.0)
            error = ""
        except EmbedwayError as failure:
            error = type(failure).__name__
        self.outcomes.append(
            Outcome(
                at_s=at_s,
                phase=phase,
                by=answer.providers if answer else "",
                error=error,
                seconds=self._at_s - at_s,
                tokens=tokens,
                cost_usd=answer.cost_nano_usd / 1e9 if answer else 0.0,
                calls=simulated.calls,
                wrong=answer is not None
                and not np.array_equal(answer.vectors, self._space.of(texts)),
                fastest_s=min(best_s, default=None),
                cheapest=min((each.price for each in up), default=None),
            )
        )

    def _texts(self) -> list[str]:
        low, high, _ = self._traffic.choices(SIZES, [share for _, _, share in SIZES])[0]
        return self._traffic.choices(list(TEXTS), k=self._traffic.randint(low, high))

    def _begin(self, phase: Phase) -> None:
        for each in self.deployments:
            each.condition = phase.conditions.get(each.name, WELL)

    def _on_ejected(self, deployment: Deployment, _seconds: float) -> None:
        self.ejected.append((self._at_s, deployment.provider))

    @property
    def _at_s(self) -> float:
        return self._loop.time() - self.start_s

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)


def simulate(
    policy: str, *, hours: float, seed: int, day: Sequence[Phase] = DAY, per_s: float = PER_S
) -> Simulation:
    """Simulate a day.

    Args:
        policy: A preference, or one of `BLIND`.
        hours: The length of the day.
        seed: The seed of all random numbers.
        day: The phases of the day.
        per_s: The mean number of requests per second.
    """

    async def run() -> Simulation:
        simulation = Simulation(policy, hours=hours, seed=seed, day=day, per_s=per_s)
        await simulation.run()
        return simulation

    return virtual_time.run(run())
