"""In which order the deployments that may serve a request are asked.

Those that cannot be asked now go last; the others follow the operator's order, then what the
request prefers, and who is about as good as another takes turns with it. Who may serve at all,
and whether to wait for somebody, is decided elsewhere.
"""

import math
from collections.abc import Iterable, Sequence
from random import Random

from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.core.request import Preference
from embedway.health.health import DeploymentHealth, HealthRegistry, HealthState
from embedway.routing.plan import Candidate

ALIKE: dict[Preference, float] = {"cost": 1.0, "speed": 1.1, "balanced": 1.1}
"""Who is at most so many times worse than the best left is a tie with it."""
EXPLORED: dict[Preference, float] = {"cost": 0.0, "speed": 0.02, "balanced": 0.01}
"""The most of the requests for which another is asked first, if little is known of how fast it is
by now: to ask again tells little, and would make for most of the slow answers."""
PRICE_FLOOR = 0.001
"""USD per million tokens, added to each price when prices are compared as ratios: nothing is
infinitely cheaper than anything."""
UNKNOWN_PRICE = 2.0
"""Times the dearest price known among the candidates."""

_LAST: dict[HealthState, int] = {"healthy": 0, "ejected": 1, "full": 1, "limited": 2}


class _Candidate:
    """What ranks one; made for a single ranking."""

    __slots__ = (
        *("group", "health", "latency_s", "price", "price_ratio"),
        *("score", "served", "time_ratio", "weight"),
    )

    def __init__(
        self, served: Deployment, health: DeploymentHealth, latency_s: float, policy: ModelPolicy
    ) -> None:
        self.served = served
        self.health = health
        self.latency_s = latency_s
        self.weight = policy.weights.get(served.provider, 1.0)
        price = served.spec.price_per_mtok_usd
        self.price = None if price is None else float(price)
        order = policy.order
        named = order.index(served.provider) if served.provider in order else len(order)
        self.group = named if self.weight else len(order) + 1
        """What the operator says comes before any preference."""
        self.price_ratio = self.time_ratio = 1.0
        self.score = 0.0


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
    """All candidates, the one to ask first at the front.

    After those that may be asked now come the ejected and full ones, in the order in which they
    may be asked again, and last those that a rate limit forbids to ask.

    Args:
        candidates: Who may serve the request: filters are behind them.
        preference: The request's.
        tokens: Of the batch.
        healths: Of the deployments.
        policy: The operator's, for the model.
        now_s: On the clock of `healths`.
        random: Draws who is first among equals.
    """
    if len(candidates) == 1:
        health = healths.get(candidates[0])
        return [_placed(candidates[0], health, health.latency.estimate(tokens, now_s=now_s), now_s)]
    ready: list[_Candidate] = []
    resting: list[Candidate] = []
    for served in candidates:
        health = healths.get(served)
        latency_s = health.latency.estimate(tokens, now_s=now_s)
        if health.state(now_s) == "healthy":
            ready.append(_Candidate(served, health, latency_s, policy))
        else:
            resting.append(_placed(served, health, latency_s, now_s))
    resting.sort(key=lambda each: (_LAST[each.health], each.wait_s))
    return _by_wishes(ready, preference, policy, now_s, random) + resting


def _placed(
    served: Deployment, health: DeploymentHealth, latency_s: float, now_s: float
) -> Candidate:
    standing = health.state(now_s)
    if standing == "healthy":
        return Candidate(deployment=served, latency_s=latency_s)
    return Candidate(
        deployment=served, latency_s=latency_s, health=standing, wait_s=health.wait_s(now_s)
    )


def _by_wishes(
    ready: list[_Candidate],
    preference: Preference,
    policy: ModelPolicy,
    now_s: float,
    random: Random,
) -> list[Candidate]:
    if not ready:
        return []
    _score(ready, preference)
    ready.sort(key=lambda each: (each.group, each.score))
    ordered = [each for tie in _ties(ready, ALIKE[preference]) for each in _spread(tie, random)]
    explored = _explored(ordered, EXPLORED[preference], now_s, random)
    if explored is not None:
        ordered.remove(explored)
        ordered.insert(0, explored)
    unnamed = len(policy.order)
    result: list[Candidate] = []
    for each in ordered:
        by = preference if each.group == unnamed else "order" if each.weight else "weight"
        result.append(
            Candidate(
                deployment=each.served,
                latency_s=each.latency_s,
                decided_by="explored" if each is explored else by,
                price_ratio=each.price_ratio,
                time_ratio=each.time_ratio,
            )
        )
    return result


def _score(ready: list[_Candidate], preference: Preference) -> None:
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


def _ties(ready: list[_Candidate], alike: float) -> Iterable[list[_Candidate]]:
    """Of sorted ones: those that are about as good as the first of them."""
    tie: list[_Candidate] = []
    for each in ready:
        if tie and (each.group != tie[0].group or each.score > tie[0].score * alike):
            yield tie
            tie = []
        tie.append(each)
    yield tie


def _spread(tie: list[_Candidate], random: Random) -> list[_Candidate]:
    """In random order: the more weight and the fewer calls in flight, the sooner.

    In flight counts by share: equally fast ones get calls by their weights under any load, and one
    that hangs gets few. All are looked at, which two choices at random would save where there are
    hundreds; here are a handful, whose calls are all this process's own.
    """
    if len(tie) == 1:
        return tie
    mean = sum(each.weight for each in tie) / len(tie) or 1.0

    def turn(each: _Candidate) -> float:
        weight = each.weight or 1.0
        # The least of exponential draws is each one's with a probability of its rate's share.
        return random.expovariate(weight / (1 + each.health.in_flight * mean / weight))

    return sorted(tie, key=turn)


def _explored(
    ordered: list[_Candidate], share: float, now_s: float, random: Random
) -> _Candidate | None:
    first = ordered[0]
    if not share or not first.weight or random.random() >= share:
        return None
    # The operator's wishes hold for these requests too.
    others = [
        each
        for each in ordered[1:]
        if each.group == first.group and each.health.latency.is_stale(now_s)
    ]
    return random.choices(others, [each.weight for each in others])[0] if others else None
