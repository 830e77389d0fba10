"""The request's preference ranks deployments, within the operator's order."""

import random
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.catalog.policy import ModelPolicy
from embedway.core.provider_error import FailureKind, ProviderError
from embedway.core.request import Preference
from embedway.health import health, latency
from embedway.health.health import MAX_IN_FLIGHT, DeploymentHealth, HealthRegistry
from embedway.routing import rank as ranking
from embedway.routing.plan import Candidate
from embedway.routing.rank import rank

PREFERENCES: tuple[Preference, ...] = get_args(Preference)
MODEL = Model(id="m")


class Place:
    """Deployments of one model, by the names of their providers, at 1000 s."""

    def __init__(self, prices: Mapping[str, float | None], *, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.healths = HealthRegistry(now_s=lambda: 1000.0, uniform=self.random.uniform)
        self.served = {
            name: Deployment(
                MODEL,
                DeploymentSpec(
                    provider=name,
                    price_per_mtok_usd=None if price is None else Decimal(str(price)),
                ),
            )
            for name, price in prices.items()
        }

    def takes(self, name: str, seconds: float) -> None:
        """Lets it be known as so slow."""
        for _ in range(200):
            self.health(name).latency.observe(tokens=100, seconds=seconds, now_s=1000.0)

    def fails(
        self, name: str, kind: FailureKind, *, times: int = 5, wait_s: float | None = None
    ) -> None:
        for _ in range(times):
            self.health(name).start_call(1000.0)
            error = ProviderError(kind, retry_after_s=wait_s)
            self.health(name).end_call(error, tokens=100, seconds=0.1, now_s=1000.0)

    def busy(self, name: str, calls: int) -> None:
        for _ in range(calls):
            self.health(name).start_call(1000.0)

    def health(self, name: str) -> DeploymentHealth:
        return self.healths.get(self.served[name])

    def ranked(self, preference: Preference, **policy: Any) -> list[Candidate]:
        return rank(
            list(self.served.values()),
            preference=preference,
            tokens=100,
            healths=self.healths,
            policy=ModelPolicy(**policy),
            now_s=1000.0,
            random=self.random,
        )

    def names(self, preference: Preference, **policy: Any) -> list[str]:
        return [each.deployment.provider for each in self.ranked(preference, **policy)]

    def firsts(
        self, preference: Preference, *, times: int = 4000, **policy: Any
    ) -> Mapping[str, float]:
        """The share of requests that each is the first for."""
        counts = Counter(self.names(preference, **policy)[0] for _ in range(times))
        return {name: counts[name] / times for name in self.served}


def usual(place: Place, preference: Preference, **policy: Any) -> tuple[str, ...]:
    """The order most requests get."""
    orders = Counter(tuple(place.names(preference, **policy)) for _ in range(20))
    return orders.most_common(1)[0][0]


names = st.sampled_from("abcdefg")
price = st.none() | st.sampled_from([0.0, 0.01, 0.02, 0.1]) | st.floats(0, 10)


@st.composite
def places(draw: st.DrawFn) -> Place:
    prices = draw(st.dictionaries(names, price, min_size=1))
    place = Place(prices, seed=draw(st.integers(0, 100)))
    for name in prices:
        place.takes(name, draw(st.sampled_from([0.01, 0.1, 0.105, 3.0])))
        match draw(st.sampled_from(["well", "well", "busy", "full", "ejected", "limited"])):
            case "busy":
                place.busy(name, 7)
            case "full":
                place.busy(name, MAX_IN_FLIGHT)
            case "ejected":
                place.fails(name, "failed")
            case "limited":
                place.fails(name, "rate_limit", wait_s=draw(st.floats(0.1, 100)))
            case _:
                pass
    return place


policies = st.fixed_dictionaries(
    {
        "order": st.lists(names, unique=True, max_size=3).map(tuple),
        "weights": st.dictionaries(names, st.sampled_from([0.0, 0.5, 1.0, 3.0])),
    }
)


@given(places(), st.sampled_from(PREFERENCES), policies)
def test_any(place: Place, preference: Preference, policy: dict[str, Any]) -> None:
    """Everybody is ranked once: who may be asked, then who may be soon, then who must not be."""
    result = place.ranked(preference, **policy)
    assert sorted(each.deployment.id for each in result) == sorted(
        each.id for each in place.served.values()
    )
    turns = [{"healthy": 0, "ejected": 1, "full": 1, "limited": 2}[one.health] for one in result]
    assert turns == sorted(turns)
    for turn in (1, 2):
        waits = [each.wait_s for each, its in zip(result, turns, strict=True) if its == turn]
        assert waits == sorted(waits)
    for each in result:
        health = place.healths.get(each.deployment)
        assert each.health == health.state(1000.0)
        assert each.wait_s == health.wait_s(1000.0)
        assert each.latency_s == health.latency.estimate(100, now_s=1000.0)
        assert each.reason


@given(places(), policies)
def test_wishes(place: Place, policy: dict[str, Any]) -> None:
    """The operator's order goes first, then all others, then weight 0."""
    order, weights = policy["order"], policy["weights"]

    def turn(name: str) -> int:
        if weights.get(name) == 0:
            return 100
        return order.index(name) if name in order else 50

    for preference in PREFERENCES:
        healthy = [each for each in place.ranked(preference, **policy) if not each.wait_s]
        turns = [turn(each.deployment.provider) for each in healthy]
        assert turns == sorted(turns)


@given(places())
def test_cost(place: Place) -> None:
    """With `cost` the cheapest available one goes first; unknown prices go last."""
    healthy = [each for each in place.ranked("cost") if each.health == "healthy"]
    prices = [each.deployment.spec.price_per_mtok_usd for each in healthy]
    assert prices == sorted(prices, key=lambda each: (each is None, each))


def test_speed() -> None:
    """With `speed` the fastest for this batch goes first, whatever it costs."""
    place = Place({"slow": 0.01, "fast": 0.5, "middle": None})
    for name, seconds in (("slow", 1.0), ("middle", 0.4), ("fast", 0.1)):
        place.takes(name, seconds)
    assert usual(place, "speed") == ("fast", "middle", "slow")


def test_balanced() -> None:
    """`balanced` weighs a doubled price like a doubled time, and an unknown price as very dear."""
    place = Place({"cheap": 0.01, "good": 0.02, "dear": 0.1, "unknown": None})
    for name, seconds in (("cheap", 1.0), ("good", 0.2), ("dear", 0.1), ("unknown", 0.1)):
        place.takes(name, seconds)
    assert usual(place, "balanced") == ("good", "dear", "cheap", "unknown")
    ratios = {each.deployment.provider: each for each in place.ranked("balanced")}
    assert ratios["good"].time_ratio == pytest.approx(2, rel=0.05)
    assert ratios["good"].price_ratio == pytest.approx(0.021 / 0.011)
    assert ratios["unknown"].price_ratio == pytest.approx(2 * 0.101 / 0.011)


def test_free() -> None:
    """Free is cheaper than any price, known or not, but not infinitely: speed still counts."""
    place = Place({"free": 0.0, "paid": 0.01})
    place.takes("free", 10.0)
    place.takes("paid", 0.05)
    assert usual(place, "balanced") == ("paid", "free")
    place.takes("free", 0.2)
    assert usual(place, "balanced") == ("free", "paid")
    unknown = Place({"unknown": None, "free": 0.0})
    assert usual(unknown, "balanced") == ("free", "unknown")


@pytest.mark.parametrize("preference", PREFERENCES)
def test_ties_are_spread(preference: Preference) -> None:
    """About equally good deployments take turns, clearly worse ones do not."""
    place = Place({"a": 0.01, "b": 0.01, "c": 0.01, "worse": 0.2})
    for name, seconds in (("a", 0.1), ("b", 0.104), ("c", 0.102), ("worse", 1.0)):
        place.takes(name, seconds)
    firsts = place.firsts(preference)
    assert firsts["worse"] < 0.02
    for name in "abc":
        assert 0.28 < firsts[name] < 0.39


@pytest.mark.parametrize("load", [0, 50])
def test_weights(load: int) -> None:
    """Ties share by weight, at rest and, where calls in flight are by weight too, under load."""
    place = Place({"a": 0.01, "b": 0.01, "c": 0.01, "spare": 0.01})
    weights = {"a": 6.0, "b": 3.0, "spare": 0.0}
    for name, weight in (("a", 6), ("b", 3), ("c", 1)):
        place.busy(name, load * weight // 10)
    firsts = place.firsts("cost", weights=weights)
    assert firsts["spare"] == 0
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert firsts[name] == pytest.approx(share, abs=0.05)


def test_in_flight() -> None:
    """Between two equally good ones, the one with calls piling up gets few more."""
    place = Place({"hangs": 0.01, "well": 0.01})
    place.busy("hangs", 99)
    assert place.firsts("cost")["hangs"] < 0.05


@pytest.mark.parametrize(("preference", "share"), [("speed", 0.02), ("balanced", 0.01)])
def test_explored(preference: Preference, share: float) -> None:
    """Now and then one of whom little is known goes first: it may have become the faster one."""
    place = Place({"fast": 0.01, "old": 0.02, "odd": 0.03, "known": 0.02, "spare": 0.01, "gone": 1})
    place.health("old").latency.observe(tokens=100, seconds=1.0, now_s=1000.0 - latency.STALE_S)
    for name, seconds in (("fast", 0.1), ("odd", 2.0), ("known", 1.0)):
        place.takes(name, seconds)
    place.health("odd").latency.observe(tokens=100, seconds=60.0, now_s=1000.0)
    place.fails("gone", "failed")
    firsts = place.firsts(preference, times=8000, weights={"spare": 0.0})
    assert share / 2 < firsts["old"] + firsts["odd"] < share * 1.6
    assert firsts["old"] > 0
    assert firsts["odd"] > 0
    assert firsts["known"] == firsts["spare"] == firsts["gone"] == 0


def test_not_explored() -> None:
    """Requests with `cost`, and those under an order, never explore."""
    place = Place({"cheap": 0.01, "dear": 0.02, "dearer": 0.03})
    assert place.firsts("cost")["cheap"] == 1
    assert place.firsts("speed", order=("dear", "cheap"))["dear"] == 1
    nobody = dict.fromkeys(place.served, 0.0)
    place.takes("cheap", 0.01)
    assert place.firsts("speed", weights=nobody)["cheap"] == 1


def test_alone() -> None:
    """A single candidate is ranked too, with its estimate and whether it may be asked."""
    place = Place({"only": None})
    (one,) = place.ranked("balanced")
    assert one.reason == "the only candidate"
    place.fails("only", "rate_limit", wait_s=12.0)
    (one,) = place.ranked("balanced")
    assert (one.health, one.wait_s) == ("limited", 12.0)
    assert one.reason == "rate-limited, for 12.0 s more"


def test_documented() -> None:
    """The page about routing has the numbers that are in force."""
    page = " ".join(
        (Path(__file__).parent.parent.parent / "docs" / "routing.md").read_text().split()
    )
    (few, quick_s), (many, slow_s) = latency.PRIOR
    for said in (
        f"(price + {ranking.PRICE_FLOOR}) / (lowest price + {ranking.PRICE_FLOOR})",
        f"within {ranking.TIE_RATIOS['speed'] - 1:.0%} of the best",
        f"For up to {ranking.EXPLORATION_SHARES['speed'] * 100:g} of 100 requests with `speed`",
        f"and {ranking.EXPLORATION_SHARES['balanced'] * 100:g} of 100 with `balanced`",
        f"not been asked for {latency.STALE_S / 60:g} minutes",
        f"A call counts half after {latency.HALF_LIFE_S:g} s",
        f"no more than the last {latency.MEMORY} or so",
        f"{quick_s:g} s are expected for {few:g} tokens and {slow_s:g} s for {many:,.0f}",
        f"| {health.MAX_IN_FLIGHT} calls are in flight |",
        f"| {health.HANGING_CALLS} calls are in flight, and none was answered for "
        f"{health.SILENT_S:g} s |",
        f"else {health.FIRST_REST_S:g} s, doubled each time up to {health.LONGEST_REST_S:g} s",
        f"| {health.FAILURES_IN_A_ROW} failures in a row | {health.FIRST_EJECTION_S:g} s, doubled",
        f"at most {health.LONGEST_EJECTION_S:g} s |",
        f"a call counts half after {health.SHARE_HALF_LIFE_S:g} s)",
        f"of at least {health.MIN_CALLS_FOR_SHARE:g} |",
        f"| {health.LONGEST_EJECTION_S:g} s at once",
        f"shortened by up to {health.JITTER:.0%} at random",
    ):
        assert said in page, said


def test_nobody() -> None:
    """Without candidates the ranking is empty."""
    assert Place({}).ranked("cost") == []


def test_reasons() -> None:
    """Each place has a reason that people understand."""
    place = Place({"a": 0.01, "b": 0.02, "unknown": None, "spare": 0.01})
    place.takes("a", 0.25)
    place.takes("b", 0.5)

    def reasons(preference: Preference, **policy: Any) -> list[str]:
        return [each.reason for each in place.ranked(preference, **policy)]

    assert reasons("cost", weights={"spare": 0}) == [
        "cheapest: 0.01 USD per million tokens",
        "0.02 USD per million tokens",
        "price unknown",
        "weight 0 in embedway.toml: after everybody else",
    ]
    assert reasons("cost", order=("b",))[0] == "order of embedway.toml"
    assert "fastest: about 250 ms for this batch" in reasons("speed")
    assert "balanced: 1.9 x price, 2.0 x time" in reasons("balanced")
    place.busy("a", MAX_IN_FLIGHT)
    place.fails("b", "model", times=1)
    assert "no room, for about 0.5 s more" in reasons("cost")
    assert "ejected after failures, for 60.0 s more" in reasons("cost")


def test_chance_is_given() -> None:
    """The same chance gives the same order."""
    orders = [Place(dict.fromkeys("abcde", 0.01), seed=7).names("balanced") for _ in range(2)]
    assert orders[0] == orders[1]
