"""Simulates a day with six deployments in trouble, beside an oracle that knows their state.

    python -m benchmarks.routing [--hours 4.5] [--seed 1] [--preference speed] [--json]

Hours pass in seconds: see `benchmarks.simulation`. Two simple policies route the same requests: one
always starts with the first declared deployment, one takes turns. Both fail over as the gateway
does.
"""

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import get_args

import msgspec
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.simulation import BLIND, DAY, Outcome, Phase, Simulation, simulate
from embedway.core.request import Preference

ALL = "all day"
BEFORE_S = 300.0
"""How long before a phase a deployment's usual share of the answers is measured, in seconds."""
USED = 0.05
"""The smallest usual share at which a deployment's return can be recognised."""
NEXT = 20
"""A deployment is back when it has half of its usual share of this many answers."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one policy in one phase."""

    phase: str
    requests: int
    unservable: int
    """The requests that came while no deployment was up."""
    served: float
    """The share of the other requests that were answered."""
    optimal: float
    """The share of answers at the lowest price of the deployments that were up."""
    price: float
    """The mean price, divided by that lowest price."""
    p50_s: float
    p99_s: float
    oracle_p99_s: float
    """The p99 if the fastest deployment that was up had answered each request."""
    calls: float
    """The calls per request."""
    wrong: int
    """The answers with vectors of another space."""


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """How requests left a deployment that was down, and came back."""

    phase: str
    deployment: str
    usual: float
    """Its share of the answers before."""
    left_s: float | None
    """The time until it was ejected."""
    calls: int
    """The calls to it while it was down."""
    back_s: float | None
    """The time from its recovery until it had half of its share again."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One policy's day."""

    policy: str
    phases: Sequence[Figures]
    """The figures by phase; the last are those of the whole day."""
    returns: Sequence[Return]
    errors: dict[str, int]
    probes: int
    too_early: int
    """The calls before the end of a deployment's `Retry-After`."""
    most_running: int
    """The most calls at one deployment at a time."""


def summarize(policy: str, simulation: Simulation) -> Report:
    """Return the report on a simulated day."""
    outcomes = simulation.outcomes
    names = list(dict.fromkeys(phase.name for phase in simulation.day))
    by_phase = {
        name: [each for each in outcomes if simulation.day[each.phase].name == name]
        for name in names
    }
    errors: dict[str, int] = {}
    for each in outcomes:
        if each.error:
            errors[each.error] = errors.get(each.error, 0) + 1
    return Report(
        policy=policy,
        phases=[_figures(name, by_phase[name]) for name in names] + [_figures(ALL, outcomes)],
        returns=_returns(simulation),
        errors=errors,
        probes=sum(each.probes for each in simulation.deployments),
        too_early=sum(each.too_early for each in simulation.deployments),
        most_running=max(each.most_running for each in simulation.deployments),
    )


def _figures(phase: str, outcomes: Sequence[Outcome]) -> Figures:
    servable = [each for each in outcomes if each.cheapest is not None]
    served = [each for each in servable if each.by]
    best_usd = [each.cheapest * each.tokens / 1e6 for each in served]
    optimal = [
        each.cost_usd <= usd * (1 + 1e-6) for each, usd in zip(served, best_usd, strict=True)
    ]
    return Figures(
        phase=phase,
        requests=len(outcomes),
        unservable=len(outcomes) - len(servable),
        served=len(served) / len(servable) if servable else math.nan,
        optimal=sum(optimal) / len(served) if served else math.nan,
        price=sum(each.cost_usd for each in served) / sum(best_usd) if served else math.nan,
        p50_s=_quantile([each.seconds for each in served], 0.5),
        p99_s=_quantile([each.seconds for each in served], 0.99),
        oracle_p99_s=_quantile([each.fastest_s for each in served], 0.99),
        calls=sum(each.calls for each in outcomes) / len(outcomes) if outcomes else math.nan,
        wrong=sum(each.wrong for each in outcomes),
    )


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * len(values))] if values else math.nan


def _returns(simulation: Simulation) -> list[Return]:
    returns: list[Return] = []
    start_s = 0.0
    for phase, end_s in zip(simulation.day, simulation.ends_s, strict=True):
        for deployment in simulation.deployments:
            now = phase.conditions.get(deployment.name)
            if now and (now.dead or now.hangs or now.key_refused or now.foreign):
                each = _return(simulation, phase, deployment.name, start_s, end_s)
                returns += [each] if each.usual >= USED else []
        start_s = end_s
    return returns


def _return(
    simulation: Simulation, phase: Phase, name: str, start_s: float, end_s: float
) -> Return:
    answers = sorted((each for each in simulation.outcomes if each.by), key=lambda each: each.at_s)
    before = [each for each in answers if start_s - BEFORE_S <= each.at_s < start_s]
    usual = sum(each.by == name for each in before) / max(len(before), 1)
    after = [each for each in answers if each.at_s >= end_s]
    back = (
        each.at_s - end_s
        for at, each in enumerate(after)
        if each.by == name
        and sum(one.by == name for one in after[at : at + NEXT]) >= NEXT * usual / 2
    )
    ejected = (at_s for at_s, who in simulation.ejected if who == name and start_s <= at_s < end_s)
    left_s = next(ejected, None)
    calls = next(each.calls_s for each in simulation.deployments if each.name == name)
    return Return(
        phase=phase.name,
        deployment=name,
        usual=usual,
        left_s=None if left_s is None else left_s - start_s,
        calls=sum(start_s <= at_s - simulation.start_s < end_s for at_s in calls),
        back_s=next(back, None),
    )


def report(policy: str, *, hours: float, seed: int, day: Sequence[Phase] = DAY) -> Report:
    """Simulate a day with a policy: a preference, or one of `BLIND`."""
    return summarize(policy, simulate(policy, hours=hours, seed=seed, day=day))


def _silently(make: Callable[[str], Report], policy: str) -> Report:
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    return make(policy)


def _table(reports: Sequence[Report]) -> Table:
    table = Table()
    for heading in ("policy", "phase"):
        table.add_column(heading)
    for heading in (
        *("requests", "served %", "cheapest %", "price x", "p50 ms", "p99 ms", "oracle ms"),
        *("p99 x", "calls", "wrong"),
    ):
        table.add_column(heading, justify="right")
    for one in reports:
        for at, each in enumerate(one.phases):
            last = at == len(one.phases) - 1
            table.add_row(
                "" if at else one.policy,
                each.phase,
                str(each.requests),
                f"{each.served:.2%}"[:-1],
                f"{each.optimal:.1%}"[:-1],
                f"{each.price:.2f}",
                f"{each.p50_s * 1000:.0f}",
                f"{each.p99_s * 1000:.0f}",
                f"{each.oracle_p99_s * 1000:.0f}",
                f"{each.p99_s / each.oracle_p99_s:.2f}",
                f"{each.calls:.3f}",
                str(each.wrong),
                end_section=last,
            )
    return table


def _table_of_returns(reports: Sequence[Report]) -> Table:
    table = Table()
    for heading in ("policy", "phase", "deployment"):
        table.add_column(heading)
    for heading in ("usual %", "left after s", "calls while down", "back after s"):
        table.add_column(heading, justify="right")
    for one in reports:
        for each in one.returns:
            table.add_row(
                one.policy,
                each.phase,
                each.deployment,
                f"{each.usual:.0%}"[:-1],
                "-" if each.left_s is None else f"{each.left_s:.1f}",
                str(each.calls),
                "-" if each.back_s is None else f"{each.back_s:.1f}",
            )
    return table


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hours", type=float, default=4.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preference", choices=get_args(Preference))
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args()
    wanted = [options.preference] if options.preference else get_args(Preference)
    started_s = time.perf_counter()
    one = partial(report, hours=options.hours, seed=options.seed)
    with ProcessPoolExecutor() as pool:
        reports = list(pool.map(partial(_silently, one), [*wanted, *BLIND]))
    if options.json:
        sys.stdout.buffer.write(msgspec.json.encode(reports) + b"\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(_table(reports), _table_of_returns(reports))
    for told in reports:
        console.print(
            f"{told.policy}: {told.errors or 'no errors'}, {told.probes} probes, {told.too_early} "
            f"calls too early, at most {told.most_running} calls at a time"
        )
    requests = sum(each.phases[-1].requests for each in reports)
    console.print(f"{requests} requests in {time.perf_counter() - started_s:.0f} s")


if __name__ == "__main__":
    main()
