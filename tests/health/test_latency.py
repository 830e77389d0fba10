"""The estimate of how long a deployment takes: always usable, quick to learn, hard to fool."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.health.latency import FASTEST_S, PRIOR, LatencyEstimator

calls = st.tuples(
    st.integers(0, 2_000_000), st.floats(0, 1e6), st.floats(0, 1e5) | st.sampled_from([0.0, 1e12])
)


def after(
    history: list[tuple[int, float]], *, every_s: float = 1.0
) -> tuple[LatencyEstimator, float]:
    """The estimate after calls of (tokens, seconds), and the time then."""
    latency, now_s = LatencyEstimator(), 0.0
    for tokens, seconds in history:
        now_s += every_s
        latency.observe(tokens=tokens, seconds=seconds, now_s=now_s)
    return latency, now_s


@given(
    st.lists(calls, max_size=40),
    st.lists(st.integers(0, 2_000_000), min_size=2, max_size=5),
    st.floats(0, 1e12),
)
def test_any_history(
    history: list[tuple[int, float, float]], sizes: list[int], later_s: float
) -> None:
    """Whatever was seen, an estimate is positive, finite and not less for more tokens."""
    latency, now_s = LatencyEstimator(), 0.0
    for tokens, seconds, pause_s in history:
        now_s += pause_s
        latency.observe(tokens=tokens, seconds=seconds, now_s=now_s)
    estimates = [latency.estimate(size, now_s=now_s + later_s) for size in sorted(sizes)]
    assert all(each >= FASTEST_S and math.isfinite(each) for each in estimates)
    assert estimates == sorted(estimates)


def test_prior() -> None:
    """A deployment that was never called is estimated by the documented prior."""
    for tokens, seconds in PRIOR:
        assert LatencyEstimator().estimate(int(tokens), now_s=5.0) == pytest.approx(seconds)


def test_line() -> None:
    """The estimate separates the cost of a call from that of each token."""
    chance = random.Random(1)
    sizes = [chance.choice([10, 300, 2000, 8000]) for _ in range(100)]
    noisy = [(size, (0.05 + size * 1e-4) * chance.uniform(0.8, 1.2)) for size in sizes]
    latency, now_s = after(noisy)
    assert 0.02 < latency.estimate(0, now_s=now_s) < 0.15
    assert latency.estimate(4000, now_s=now_s) == pytest.approx(0.45, rel=0.25)
    assert latency.estimate(16_000, now_s=now_s) == pytest.approx(1.65, rel=0.25)


def test_never_below_nothing() -> None:
    """If a line would start below zero, small batches still get an estimate above it."""
    latency, now_s = after([(10_000, 1.0), (20_000, 3.0)] * 20)
    assert 0.3 < latency.estimate(4000, now_s=now_s) < 0.8


@pytest.mark.parametrize("seconds", [0.0, 60.0, 1e9])
def test_one_outlier(seconds: float) -> None:
    """One call that is far off moves the estimate by less than a quarter."""
    latency, now_s = after([(100, 0.1)] * 50)
    before = latency.estimate(100, now_s=now_s)
    latency.observe(tokens=100, seconds=seconds, now_s=now_s)
    assert latency.estimate(100, now_s=now_s) == pytest.approx(before, rel=0.25)


@pytest.mark.parametrize("times", [10.0, 0.1])
def test_lasting_change(times: float) -> None:
    """A change that lasts is learnt within a few calls, however many there were before it."""
    latency, now_s = after([(100, 0.1)] * 1000, every_s=0.01)
    for _ in range(10):
        latency.observe(tokens=100, seconds=0.1 * times, now_s=now_s)
    assert 0.4 < latency.estimate(100, now_s=now_s) / (0.1 * times) < 2.5


def test_forgets() -> None:
    """Without calls the estimate goes back to the prior, so that who was slow is tried again."""
    latency, now_s = after([(10, 20.0)] * 100)
    estimates = [latency.estimate(10, now_s=now_s + minute * 60) for minute in range(0, 61, 10)]
    assert estimates[0] > 15
    assert estimates == sorted(estimates, reverse=True)
    assert estimates[-1] == pytest.approx(PRIOR[0][1], rel=0.01)


def test_own_speed() -> None:
    """The prior does not blur who is fast: after twenty calls twice as fast is seen as such."""
    fast, now_s = after([(10, 0.01)] * 20)
    slow, _ = after([(10, 0.02)] * 20)
    ratio = slow.estimate(10, now_s=now_s) / fast.estimate(10, now_s=now_s)
    assert 1.6 < ratio < 2.1


def test_clock_goes_back() -> None:
    """A call that is reported late, with an earlier time, is learnt like another."""
    latency, now_s = after([(10, 1.0)] * 3)
    latency.observe(tokens=10, seconds=1.0, now_s=now_s - 2)
    assert latency.estimate(10, now_s=now_s - 2) == pytest.approx(latency.estimate(10, now_s=now_s))
