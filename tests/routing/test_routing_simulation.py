"""What must hold of routing whatever the noise: the benchmark's day, shortened, on virtual time."""

import asyncio
import random
from collections.abc import Iterator
from functools import cache
from typing import get_args

import msgspec
import pytest
from benchmarks.routing import Report, summarize
from benchmarks.simulated import Condition
from benchmarks.simulation import Phase, Simulation, simulate
from chaos.simulation import virtual_time

from embedway.core.request import Preference
from embedway.health.health import MAX_IN_FLIGHT

PREFERENCES = get_args(Preference)
SETTLED_S = 10.0
"""After deployments die, until they are ejected."""


@pytest.fixture(autouse=True)
def _same_chance_afterwards() -> Iterator[None]:
    """A simulation seeds the chance of the whole process."""
    state = random.getstate()
    yield
    random.setstate(state)


@cache
def day(preference: str) -> Simulation:
    """Half an hour in which all happens that happens in a benchmark's day."""
    return simulate(preference, hours=0.5, seed=7)


@cache
def report(preference: str) -> Report:
    """What is told of that half hour."""
    return summarize(preference, day(preference))


@pytest.mark.parametrize("preference", PREFERENCES)
def test_no_vector_of_another_space(preference: str) -> None:
    """One deployment starts to answer from another space, and no client ever sees it."""
    assert report(preference).phases[-1].wrong == 0
    foreign = next(each for each in day(preference).deployments if each.name == "twin")
    assert foreign.condition.foreign


def test_wrong_vectors_are_noticed() -> None:
    """Routing without proofs hands out such vectors, and the simulation counts them."""
    foreign = [Phase(name="foreign", minutes=1, conditions={"twin": Condition(foreign=True)})]
    simulation = simulate("in turn", hours=1 / 60, seed=7, day=foreign)
    assert summarize("in turn", simulation).phases[-1].wrong > 10


@pytest.mark.parametrize("preference", PREFERENCES)
def test_never_before_it_said(preference: str) -> None:
    """No request goes out before the `Retry-After` of another one is over."""
    told = report(preference)
    limited = next(each for each in told.phases if each.phase == "two limit the rate")
    assert limited.calls > 1
    assert told.too_early == 0


@pytest.mark.parametrize("preference", PREFERENCES)
def test_served(preference: str) -> None:
    """Whatever can be served is, once those that just died are ejected."""
    simulation = day(preference)
    begun_s = dict(enumerate([0.0, *simulation.ends_s]))
    lost = [
        each
        for each in simulation.outcomes
        if each.cheapest is not None and not each.by and each.at_s > begun_s[each.phase] + SETTLED_S
    ]
    assert lost == []
    assert len(simulation.outcomes) > 5000


def test_in_flight() -> None:
    """However many requests come to one that hangs, its cap holds, and the others serve most."""
    well = Phase(name="well", minutes=1.5)
    hangs = Phase(name="hangs", minutes=0.5, conditions={"swift": Condition(hangs=True)})
    simulation = simulate("speed", hours=2 / 60, seed=7, day=[well, hangs], per_s=120)
    most = {each.name: each.most_running for each in simulation.deployments}
    assert most["swift"] == MAX_IN_FLIGHT
    assert summarize("speed", simulation).phases[1].served > 0.95


def test_same_seed() -> None:
    """The same seed gives the same report, another seed another."""
    one, again, other = (
        msgspec.json.encode(summarize("balanced", simulate("balanced", hours=0.05, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_clock_jumps() -> None:
    """Simulated hours pass at once and in order, and waiting for nothing is an error."""

    async def waits() -> tuple[list[str], float]:
        order: list[str] = []
        started_s = asyncio.get_running_loop().time()

        async def after(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            order.append(name)

        await asyncio.gather(after(7200, "later"), after(3600, "sooner"))
        return order, asyncio.get_running_loop().time() - started_s

    assert virtual_time.run(waits()) == (["sooner", "later"], pytest.approx(7200))

    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="not on this loop"):
        virtual_time.run(for_ever())
