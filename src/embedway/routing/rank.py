"""Orders the deployments that may serve a request.

Deployments that cannot be called now go last. The others follow the operator's order, then the
request's preference, and about equally good ones take turns.
"""

import math
from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.core.request import Preference
from embedway.health.health import DeploymentHealth, HealthRegistry, HealthState
from embedway.routing.plan import Candidate

TIE_RATIOS: dict[Preference, float] = {"cost": 1.0, "speed": 1.1, "balanced": 1.1}
"""How many times worse than the best a deployment may score and still tie with it."""
EXPLORATION_SHARES: dict[Preference, float] = {"cost": 0.0, "speed": 0.02, "balanced": 0.01}
"""The largest share of requests that try a deployment of uncertain latency first. More would teach
little and cause most of the slow responses."""
PRICE_FLOOR = 0.001
"""USD per million tokens, added to each price to keep ratios to a price of 0 finite."""
UNKNOWN_PRICE = 2.0
"""An unknown price counts as this many times the highest known price of the candidates."""

_LAST: dict[HealthState, int] = {"healthy": 0, "ejected": 1, "full": 1, "limited": 2}


class _ScoredCandidate(msgspec.Struct, kw_only=True, eq=False):
    """A candidate's scores during one ranking."""

    deployment: Deployment
    health: DeploymentHealth
    latency_s: float
    weight: float
    group: int
    """Its place in the operator's order, which goes before any preference."""
    price: float | None
    price_ratio: float = 1.0
    time_ratio: float = 1.0
    score: float = 0.0


def rank(
    candidates: Sequence[Deployment],
    *,
    preference: Preference,
    tokens: int,
    healths: HealthRegistry,
    policy: ModelPolicy,
    now_s: float,
    random: Random,
) -> list[Candidate]:
    """Return all candidates, best first.

    After those that may be called now come the ejected and full ones, in the order in which they
    may be called again, and last the rate-limited ones.

    `tokens` is an estimate for the request, `now_s` the time on the clock of `healths`, and
    `random` breaks ties.
    """
    ready: list[_ScoredCandidate] = []
    unavailable: list[Candidate] = []
    for deployment in candidates:
        health = healths.get(deployment)
        latency_s, state = health.latency.estimate(tokens, now_s=now_s), health.state(now_s)
        if len(candidates) > 1 and state == "healthy":
            ready.append(_to_scored(deployment, health, latency_s, policy))
        else:
            wait_s = 0.0 if state == "healthy" else health.wait_s(now_s)
            unavailable.append(
                Candidate(deployment=deployment, latency_s=latency_s, health=state, wait_s=wait_s)
            )
    unavailable.sort(key=lambda each: (_LAST[each.health], each.wait_s))
    return _rank_ready(ready, preference, policy, now_s, random) + unavailable


def _to_scored(
    deployment: Deployment, health: DeploymentHealth, latency_s: float, policy: ModelPolicy
) -> _ScoredCandidate:
    price, order = deployment.spec.price_per_mtok_usd, policy.order
    weight = policy.weights.get(deployment.provider, 1.0)
    place = order.index(deployment.provider) if deployment.provider in order else len(order)
    return _ScoredCandidate(
        deployment=deployment,
        health=health,
        latency_s=latency_s,
        weight=weight,
        group=place if weight else len(order) + 1,
        price=None if price is None else float(price),
    )


def _rank_ready(
    ready: list[_ScoredCandidate],
    preference: Preference,
    policy: ModelPolicy,
    now_s: float,
    random: Random,
) -> list[Candidate]:
    if not ready:
        return []
    _score(ready, preference)
    ready.sort(key=lambda each: (each.group, each.score))
    ordered = [
        each for tie in _group_ties(ready, TIE_RATIOS[preference]) for each in _shuffle(tie, random)
    ]
    explored = _pick_explored(ordered, EXPLORATION_SHARES[preference], now_s, random)
    if explored is not None:
        ordered.remove(explored)
        ordered.insert(0, explored)
    unnamed = len(policy.order)
    result: list[Candidate] = []
    for each in ordered:
        decided_by = preference if each.group == unnamed else "order" if each.weight else "weight"
        result.append(
            Candidate(
                deployment=each.deployment,
                latency_s=each.latency_s,
                decided_by="explored" if each is explored else decided_by,
                price_ratio=each.price_ratio,
                time_ratio=each.time_ratio,
            )
        )
    return result


def _score(ready: list[_ScoredCandidate], preference: Preference) -> None:
    known = [PRICE_FLOOR + each.price for each in ready if each.price is not None]
    unknown = UNKNOWN_PRICE * max(known, default=PRICE_FLOOR)
    cheapest = min(known, default=unknown)
    fastest_s = min(each.latency_s for each in ready)
    for each in ready:
        price = unknown if each.price is None else PRICE_FLOOR + each.price
        each.price_ratio = price / cheapest
        each.time_ratio = each.latency_s / fastest_s
        match preference:
            case "cost":
                each.score = math.inf if each.price is None else each.price
            case "speed":
                each.score = each.time_ratio
            case "balanced":
                each.score = math.sqrt(each.price_ratio * each.time_ratio)


def _group_ties(ready: list[_ScoredCandidate], ratio: float) -> Iterable[list[_ScoredCandidate]]:
    """Group sorted candidates that are about as good as the first of the group."""
    tie: list[_ScoredCandidate] = []
    for each in ready:
        if tie and (each.group != tie[0].group or each.score > tie[0].score * ratio):
            yield tie
            tie = []
        tie.append(each)
    yield tie


def _shuffle(tie: list[_ScoredCandidate], random: Random) -> list[_ScoredCandidate]:
    """Shuffle ties: more weight and fewer calls in flight come sooner.

    Calls in flight count relative to weight, so that equally fast deployments share calls by their
    weights under any load, and one that hangs gets few.
    """
    if len(tie) == 1:
        return tie
    mean = sum(each.weight for each in tie) / len(tie) or 1.0

    def turn(each: _ScoredCandidate) -> float:
        weight = each.weight or 1.0
        # The smallest of exponential draws is each one's with the probability of its rate's share.
        return random.expovariate(weight / (1 + each.health.in_flight * mean / weight))

    return sorted(tie, key=turn)


def _pick_explored(
    ordered: list[_ScoredCandidate], share: float, now_s: float, random: Random
) -> _ScoredCandidate | None:
    first = ordered[0]
    if not share or not first.weight or random.random() >= share:
        return None
    # The operator's order holds for these requests too.
    others = [
        each
        for each in ordered[1:]
        if each.group == first.group and each.health.latency.is_stale(now_s)
    ]
    return random.choices(others, [each.weight for each in others])[0] if others else None
