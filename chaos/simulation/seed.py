"""Simulates replicas, their surroundings and their clients, with faults drawn from a seed.

First clients send requests while faults come and go. Then everything is healed, and after a quiet
minute the oracle looks at what is left.
"""

import asyncio
import random
from collections.abc import Sequence
from itertools import count
from typing import get_args

import msgspec

from chaos.simulation import virtual_time
from chaos.simulation.clients import Client, draw_callers
from chaos.simulation.database import SimulatedDatabase
from chaos.simulation.oracle import BrokenPromise, Oracle
from chaos.simulation.process import Process, ProcessLoop
from chaos.simulation.replica import Edges, Replica
from chaos.simulation.shared_count import SimulatedRedis
from chaos.simulation.upstream import PRICES_USD, Trouble, Upstream
from chaos.simulation.world import World, seed_everything
from embedway.budgets.hold_store import HOLD_MS, HoldStore
from embedway.core.errors import StorageUnavailable
from embedway.core.subject import Subject

MACHINES = ("one", "two", "three")
QUIET_S = HOLD_MS / 1000 + 15.0
"""The quiet minute: a hold of a dead replica has expired by then, whatever its clock was."""
LONGEST_END_S = 600.0
"""The time by which all clients have their answers after everything is healed."""
RESTART_S = 1.0
MAX_SKEW_MS = 5_000
"""How far wall clocks may differ; docs/budgets.md asks for a few seconds."""
PASSING_TROUBLES: tuple[Trouble, ...] = tuple(
    each for each in get_args(Trouble) if each not in {"well", "drifts"}
)


class SeedReport(msgspec.Struct, frozen=True):
    """What came of one seed."""

    seed: int
    broken: list[BrokenPromise]
    counts: dict[str, int]
    trace: list[str]


class Simulation:
    """One seed."""

    def __init__(self, seed: int, replica: type[Replica]) -> None:
        self._replica_class = replica
        self.world = world = World(seed)
        self._chance = chance = world.chance("plan")
        kind = chance.choice(("sqlite", "network", "network", "network"))
        self.database = SimulatedDatabase(world, kind)
        self.machines = MACHINES[: 1 if kind == "sqlite" else chance.choice((1, 2, 2, 3))]
        has_redis = chance.random() < (0.7 if len(self.machines) > 1 else 0.2)
        self.redis = SimulatedRedis(world) if has_redis else None
        self.upstreams = {name: Upstream(world, name) for name in PRICES_USD}
        self.oracle = Oracle(world, self.database, self.redis)
        self.edges = Edges(
            world,
            self.database,
            self.redis,
            self.upstreams,
            self.oracle,
            self.oracle.watch_limiter,
        )
        self.replicas: list[Replica] = []
        """All replicas so far, the stopped ones too."""
        self._running: dict[str, Replica] = {}
        self._starts = dict.fromkeys(self.machines, 0)
        self._is_healing = False
        self._keepers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Run the seed to its end."""
        world, chance = self.world, self._chance
        self._main = asyncio.current_task()
        replicas = len(self.machines)
        world.note(
            f"{replicas} replica(s), database: {self.database.kind}, "
            f"Redis: {'yes' if self.redis else 'no'}"
        )
        self._keepers = [asyncio.create_task(self._keep_running(each)) for each in self.machines]
        if chance.random() < 0.6:
            for each in self.upstreams.values():
                each.is_flaky = chance.choice((0.02, 0.1))
        async with asyncio.TaskGroup() as group:
            length_s = chance.choice((2.0, 8.0, 25.0))
            faults = group.create_task(self._break_things(length_s))
            numbers = count(1)
            callers = draw_callers(chance)
            clients = chance.choice((4, 8, 14))
            for number in range(clients):
                client = Client(
                    chance.choice(callers),
                    chance=world.chance(f"client {number}"),
                    oracle=self.oracle,
                    replicas=self._ready,
                    number=lambda: next(numbers),
                    may_go_on=lambda: not self._is_healing,
                )
                requests = chance.randrange(1, 7)
                group.create_task(client.run(requests, pause_s=length_s / requests))
            await faults
            self._heal()
            late = world.loop.call_later(LONGEST_END_S, self._give_up)
        late.cancel()
        await self._end()

    def _ready(self) -> Sequence[Replica]:
        return [each for each in self._running.values() if each.is_ready]

    # Replicas.

    async def _keep_running(self, machine: str) -> None:
        """Start a replica, and another whenever it has ended, as a supervisor does."""
        while True:
            self._starts[machine] += 1
            skew_ms = self._chance.randrange(-MAX_SKEW_MS, MAX_SKEW_MS) // 2
            replica = self._replica_class(
                self.edges, f"{machine}#{self._starts[machine]}", skew_ms=skew_ms
            )
            self.replicas.append(replica)
            starting = replica.process.start(replica.start())
            await asyncio.wait([starting])  # nothing kills it before it is ready
            if starting.exception() is None:
                self._running[machine] = replica
                await replica.ended.wait()
            elif not isinstance(starting.exception(), StorageUnavailable):
                raise starting.exception()
            else:
                replica.kill()
            self._running.pop(machine, None)
            await asyncio.sleep(RESTART_S)

    # Faults.

    async def _break_things(self, length_s: float) -> None:
        """Let faults come and go for that long."""
        chance = self._chance
        moments = sorted(chance.uniform(0, length_s) for _ in range(chance.randrange(1, 9)))
        now_s = 0.0
        for at_s in moments:
            await asyncio.sleep(at_s - now_s)
            now_s = at_s
            self._break_one()
        await asyncio.sleep(length_s - now_s)

    def _break_one(self) -> None:
        chance = self._chance
        kinds = ["upstream"] * 5 + ["database"] * 3 + ["kill"] * 3 + ["drain", "clock"]
        if self.redis:
            kinds += ["redis"] * 3
        lasts_s = chance.choice((0.05, 0.5, 3.0, 12.0)) * chance.uniform(0.5, 1.5)
        match chance.choice(kinds):
            case "upstream":
                self._break_upstream(lasts_s)
            case "database":
                self._break_database(lasts_s)
            case "redis":
                self._break_redis(lasts_s)
            case "kill":
                self._kill_soon()
            case "drain":
                self._drain()
            case _:
                self._turn_clock()

    def _later(self, seconds: float, *changes: tuple[object, str, object]) -> None:
        """Set attributes after that time, unless everything is healed before."""

        def change() -> None:
            if not self._is_healing:
                for owner, name, value in changes:
                    setattr(owner, name, value)
                self.world.note("a fault ends")

        self.world.loop.call_later(seconds, change)

    def _break_upstream(self, lasts_s: float) -> None:
        chance = self._chance
        upstream = self.upstreams[chance.choice(list(self.upstreams))]
        # What drifts before it is proven is what it is.
        if chance.random() < 0.1 and (proven := self.database.proven_models(upstream.name)):
            upstream.drifted_models.add(chance.choice(proven))
            self.world.fault("upstream", f"{upstream.name} answers with another model from now on")
            return
        upstream.trouble = chance.choice(PASSING_TROUBLES)
        upstream.share = chance.choice((0.3, 1.0))
        self.world.fault("trouble", f"{upstream.name}: {upstream.trouble}, for {lasts_s:.2f} s")
        self._later(lasts_s, (upstream, "trouble", "well"))

    def _break_database(self, lasts_s: float) -> None:
        chance, database = self._chance, self.database
        match chance.choice(("away", "cut off", "frozen", "read-only", "slow", "loses commits")):
            case "away":
                database.network.is_away = True
                self._later(lasts_s, (database.network, "is_away", False))
                what = "away"
            case "cut off":
                machine = chance.choice(self.machines)
                database.network.cut_off = {machine}
                self._later(lasts_s, (database.network, "cut_off", set()))
                what = f"out of reach for {machine}"
            case "frozen":
                database.is_frozen = True
                lasts_s *= chance.choice((1, 1, 2))
                self.world.loop.call_later(lasts_s, database.thaw)
                what = "frozen"
            case "read-only":
                database.is_read_only = True
                self._later(lasts_s, (database, "is_read_only", False))
                what = "read-only"
            case "slow":
                database.slower = chance.choice((50.0, 1000.0))
                self._later(lasts_s, (database, "slower", 1.0))
                what = "slow"
            case _:
                database.lost_commits = chance.choice((0.2, 1.0))
                self._later(lasts_s, (database, "lost_commits", 0.0))
                what = "losing connections at commits"
        self.world.fault("database", f"the database is {what}, for {lasts_s:.2f} s")

    def _break_redis(self, lasts_s: float) -> None:
        chance, redis = self._chance, self.redis
        assert redis is not None
        match chance.choice(("away", "cut off", "slow", "lost data", "set back")):
            case "away":
                redis.network.is_away = True
                self._later(lasts_s, (redis.network, "is_away", False))
                what = f"away, for {lasts_s:.2f} s"
            case "cut off":
                machine = chance.choice(self.machines)
                redis.network.cut_off = {machine}
                self._later(lasts_s, (redis.network, "cut_off", set()))
                what = f"out of reach for {machine}, for {lasts_s:.2f} s"
            case "slow":
                redis.is_slow = True
                self._later(lasts_s, (redis, "is_slow", False))
                what = f"slow, for {lasts_s:.2f} s"
            case "set back":
                redis.set_back_ms += 90_000
                self.world.fault("clock", "the clock of Redis is set back by 90 s")
                return
            case _:
                redis.lose_data()
                what = "empty"
        self.world.fault("redis", f"Redis is {what}")

    def _kill_soon(self) -> None:
        """Kill a replica at some await point: after a few turns, or at its next commit."""
        ready = self._ready()
        if not ready:
            return
        victim, turns = self._chance.choice(ready), self._chance.randrange(8)

        def kill_in(turns: int) -> None:
            if turns:
                self.world.loop.call_soon(kill_in, turns - 1)
            else:
                self.world.fault("kill", f"kill -9 {victim.process.name}")
                victim.kill()

        if self._chance.random() < 0.6:

            def on_commit() -> None:
                self.database.on_commit.remove(on_commit)
                self.world.loop.call_soon(kill_in, turns)

            self.database.on_commit.append(on_commit)
        else:
            kill_in(turns)

    def _drain(self) -> None:
        ready = self._ready()
        if ready:
            victim = self._chance.choice(ready)
            victim.is_ready = False
            victim.process.start(victim.stop())

    def _turn_clock(self) -> None:
        ready = self._ready()
        if ready:
            replica = self._chance.choice(ready)
            replica.skew_ms = self._chance.randrange(-MAX_SKEW_MS, MAX_SKEW_MS) // 2
            name = replica.process.name
            self.world.fault("clock", f"{name}: the wall clock is {replica.skew_ms:+} ms off now")

    def _heal(self) -> None:
        self._is_healing = True
        self.world.note("everything is healed")
        self.database.heal()
        if self.redis:
            self.redis.heal()
        for each in self.upstreams.values():
            each.trouble = "well"
            each.is_flaky = 0.0

    # The end.

    def close(self) -> None:
        """End everything that still runs."""
        for each in self._keepers:
            each.cancel()
        for each in self.replicas:
            if each.process.is_alive:
                each.process.kill()
        self.database.close()

    def _give_up(self) -> None:
        waiting = [each for each in self.oracle.exchanges.values() if each.end == "open"]
        self.oracle.breaks("deadline", f"{', '.join(map(str, waiting))} never end")
        assert self._main is not None
        self._main.cancel()

    async def _end(self) -> None:
        world, oracle = self.world, self.oracle
        await asyncio.sleep(QUIET_S)
        for each in self._running.values():
            oracle.check_leftovers(each)
        oracle.check_budgets()
        oracle.check_ledger(self.replicas)
        oracle.check_sums()
        auditor = Process("auditor#1")
        auditing = auditor.start(self._audit())
        await asyncio.wait([auditing], timeout=30)
        if not auditing.done():
            oracle.breaks("holds", "the database does not answer the auditor")
        else:
            auditing.result()
        world.note("the end")
        auditor.kill()

    async def _audit(self) -> None:
        """Try to hold all that is left of each budget, as a new replica could."""
        engine = self.database.open_engine()
        holds = HoldStore(engine, process="auditor", now_ms=self.world.now_ms)
        held = {row[0] for row in self.database.plain.execute("SELECT subject FROM holds")}
        for subject, budgets in self.oracle.budgets.items():
            if str(subject) not in held:
                continue
            spending = await holds.read_spending(subject, budgets, at_ms=self.world.now_ms())
            left = min(each.amount_nano_usd - spent for each, spent in spending.items())
            if left > 0:
                await self._hold_all(holds, subject, left)
        engine.dispose()

    async def _hold_all(self, holds: HoldStore, subject: Subject, left: int) -> None:
        budgets = self.oracle.budgets[subject]
        lease = await holds.lease(
            subject, budgets, at_ms=self.world.now_ms(), minimum=left, extra=0, unused=None
        )
        if lease.granted_nano_usd != left:
            self.oracle.breaks(
                "holds", f"{lease.reserved_nano_usd} nano-USD of {subject} are still held"
            )
        await holds.release([subject])


def simulate(seed: int, *, replica: type[Replica] = Replica) -> SeedReport:
    """Run one seed; `replica` may be one with a wrong part, to see whether it is found."""
    state = random.getstate()
    seed_everything(seed)

    async def run() -> SeedReport:
        simulation = Simulation(seed, replica)
        world, oracle = simulation.world, simulation.oracle
        world.loop.set_exception_handler(oracle.unseen)
        try:
            await simulation.run()
        except asyncio.CancelledError:
            pass
        finally:
            simulation.close()
        oracle.counts["faults"] = world.faults
        counts = dict(sorted(oracle.counts.items()))
        return SeedReport(seed, oracle.broken, counts, world.lines())

    try:
        return virtual_time.run(run(), loop_factory=ProcessLoop)
    finally:
        random.setstate(state)
