"""Whether a deployment may be asked: never while it rests, one at a time on trial, never lost."""

import itertools
import random
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.provider_error import TRANSIENT, FailureKind, ProviderError
from embedway.health.health import (
    COUNTED_FAILURES,
    FAILURES_IN_A_ROW,
    FIRST_EJECTION_S,
    FIRST_REST_S,
    HANGING_CALLS,
    JITTER,
    LONGEST_EJECTION_S,
    LONGEST_REST_S,
    MAX_IN_FLIGHT,
    MAX_UNDECLARED,
    MIN_CALLS_FOR_SHARE,
    OPERATOR_FAILURES,
    SILENT_S,
    DeploymentHealth,
    HealthRegistry,
)

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
THE_CLIENTS = set(KINDS) - COUNTED_FAILURES - OPERATOR_FAILURES - {"rate_limit"}


def served(id: str = "m", *, declared: bool = True) -> Deployment:
    return Deployment(Model(id=id, declared=declared), DeploymentSpec(provider="p"))


class Calls:
    """A deployment and its calls, on a clock that is moved by hand."""

    def __init__(self, *, declared: bool = True, seed: int = 1) -> None:
        self.now_s = 1000.0
        self.ejections: list[float] = []
        self.recoveries = 0
        self.health = DeploymentHealth(
            served(declared=declared),
            on_ejected=lambda _, seconds: self.ejections.append(seconds),
            on_recovered=self._recover,
            uniform=random.Random(seed).uniform,
        )

    def _recover(self, _: Deployment) -> None:
        self.recoveries += 1

    @property
    def standing(self) -> str:
        return self.health.state(self.now_s)

    def end(
        self,
        kind: FailureKind | None = None,
        *,
        took_s: float = 0.0,
        rest_s: float | None = None,
        **said: Any,
    ) -> None:
        """Ends a call that is in flight."""
        error = None if kind is None else ProviderError(kind, **said)
        self.health.end_call(error, tokens=10, seconds=took_s, now_s=self.now_s, rest_s=rest_s)

    def call(self, kind: FailureKind | None = None, **end: Any) -> None:
        """Makes a call that ends at once."""
        self.health.start_call(self.now_s)
        self.end(kind, **end)

    def eject(self) -> float:
        """Fails until it is ejected; returns for how long."""
        before = len(self.ejections)
        while len(self.ejections) == before:
            self.call("failed")
        return self.ejections[-1]

    def wait(self) -> float:
        """Waits the given time and a little more, because clocks are not exact."""
        seconds = self.health.wait_s(self.now_s)
        self.now_s += seconds + 1e-6
        return seconds


def test_kinds() -> None:
    """Each kind is the client's fault, the operator's, a rate limit or a failure that counts."""
    assert TRANSIENT - {"rate_limit"} | {"malformed"} == COUNTED_FAILURES
    of_input = {"request", "item_too_long", "item_failed", "batch_too_large"}
    assert of_input | {"dimensions"} == THE_CLIENTS


@pytest.mark.parametrize("kind", sorted(COUNTED_FAILURES))
def test_row(kind: FailureKind) -> None:
    """Failures in a row eject, and a success between them starts the row anew."""
    calls = Calls()
    for _ in range(3):
        for _ in range(FAILURES_IN_A_ROW - 1):
            calls.call(kind)
        calls.call()
    assert calls.standing == "healthy"
    for _ in range(FAILURES_IN_A_ROW):
        assert calls.standing == "healthy"
        calls.call(kind)
    assert calls.standing == "ejected"
    assert len(calls.ejections) == 1


def test_readmitted() -> None:
    """A readmitted deployment may be called at once, and its next success is its recovery."""
    calls = Calls()
    calls.call("credentials")
    assert calls.standing == "ejected"
    calls.health.readmit()
    assert (calls.standing, calls.recoveries) == ("healthy", 0)
    for _ in range(2):
        calls.now_s += 1
        calls.call()
    assert calls.recoveries == 1


def test_forgotten() -> None:
    """A deployment that no configuration has any more does not hide that the others fail."""
    registry = HealthRegistry(now_s=lambda: 1000.0)
    model = Model(id="m")
    kept, gone, busy = (Deployment(model, DeploymentSpec(provider=each)) for each in "abc")
    registry.get(kept).start_call(1000.0)
    registry.get(kept).end_call(ProviderError("credentials"), tokens=1, seconds=0, now_s=1000.0)
    registry.get(gone)
    registry.get(busy).start_call(1000.0)
    registry.forget_others({kept.id})
    assert [each.deployment for each in registry.statuses()] == [kept, busy]
    registry.get(busy).cancel_call()
    registry.forget_others({kept.id})
    assert registry.ejected_models() == {"m"}


def test_share() -> None:
    """Half of the calls of late failing ejects, without a row, but only if there were enough."""
    calls = Calls()
    for _ in range(int(MIN_CALLS_FOR_SHARE) // 2 - 1):
        calls.call()
        calls.call("failed")
    assert calls.standing == "healthy"
    calls.call()
    calls.call("failed")
    assert calls.standing == "ejected"


def test_share_fades() -> None:
    """Failures of long ago do not count in the share."""
    calls = Calls()
    for _ in range(int(MIN_CALLS_FOR_SHARE) // 2 - 1):
        calls.call()
        calls.call("failed")
    calls.now_s += 60
    for _ in range(20):
        calls.call()
        calls.call("failed")
        calls.call()
    assert calls.standing == "healthy"


def test_starts_anew() -> None:
    """What ejected it is not held against it once it is back."""
    calls = Calls()
    for kind in [None] * 16 + (["failed"] * 4 + [None]) * 4 + ["failed"] * 4:
        if not calls.ejections:
            calls.call(kind)
    calls.wait()
    calls.call()
    calls.call("failed")
    assert len(calls.ejections) == 1
    assert calls.standing == "healthy"


@pytest.mark.parametrize("kind", sorted(THE_CLIENTS | {"rate_limit"}))
def test_not_its_fault(kind: FailureKind) -> None:
    """What is the client's own fault, or that it is busy, never ejects."""
    calls = Calls()
    for _ in range(100):
        calls.call(kind, retry_after_s=0.0)
    assert calls.ejections == []
    assert calls.standing == "healthy"


@pytest.mark.parametrize("kind", sorted(OPERATOR_FAILURES))
def test_for_the_operator(kind: FailureKind) -> None:
    """What only the operator can cure ejects at once, for the longest time."""
    calls = Calls()
    calls.call(kind)
    assert calls.ejections == [LONGEST_EJECTION_S]


def test_made_up_name() -> None:
    """That there is no model of a name that a client made up is no fault of the deployment."""
    calls = Calls(declared=False)
    calls.call("model")
    assert calls.standing == "healthy"


def test_another_key() -> None:
    """What failed with one of several keys says nothing while there is another."""
    calls = Calls()
    for kind in ("credentials", "rate_limit"):
        error = ProviderError(kind, retry_after_s=30.0)
        error.retry_immediately = True
        calls.health.start_call(calls.now_s)
        calls.health.end_call(error, tokens=10, seconds=0.1, now_s=calls.now_s)
    assert calls.standing == "healthy"


def test_longer_each_time() -> None:
    """Each ejection in a row is twice as long, up to the longest; a success halves the count."""
    calls = Calls()
    bound = FIRST_EJECTION_S
    assert bound * (1 - JITTER) <= calls.eject() <= bound
    for _ in range(8):
        calls.wait()
        assert calls.standing == "healthy"
        calls.call("failed")
        bound = min(bound * 2, LONGEST_EJECTION_S)
        assert bound * (1 - JITTER) <= calls.ejections[-1] <= bound
    calls.wait()
    calls.call()
    assert calls.standing == "healthy"
    # Six counted, halved: the next is the fourth.
    assert FIRST_EJECTION_S * 8 * (1 - JITTER) <= calls.eject() <= FIRST_EJECTION_S * 8


def test_one_trial() -> None:
    """After an ejection one trial call may go out; when it succeeds, all may."""
    calls = Calls()
    calls.eject()
    calls.wait()
    calls.health.start_call(calls.now_s)
    assert calls.standing == "ejected"
    assert calls.health.wait_s(calls.now_s) > 0
    calls.end()
    assert calls.standing == "healthy"
    calls.health.start_call(calls.now_s)
    assert calls.standing == "healthy"


@pytest.mark.parametrize("end", ["cancelled", "request", "rate_limit"])
def test_undecided_trial(end: Any) -> None:
    """A trial that shows neither success nor failure makes room for the next."""
    calls = Calls()
    calls.eject()
    calls.wait()
    calls.health.start_call(calls.now_s)
    if end == "cancelled":
        calls.health.cancel_call()
    else:
        calls.end(end, retry_after_s=1.0)
        calls.now_s += 1.1
    assert calls.standing == "healthy"
    calls.health.start_call(calls.now_s)
    assert calls.standing == "ejected"


@pytest.mark.parametrize("end", [None, "timeout", "cancelled"])
def test_older_calls(end: Any) -> None:
    """Calls from before an ejection neither end, prolong nor take the trial after it."""
    calls = Calls()
    for _ in range(3):
        calls.health.start_call(calls.now_s)
    calls.eject()
    calls.now_s += 2
    if end == "cancelled":
        calls.health.cancel_call()
    else:
        calls.end(end, took_s=10.0)
    assert calls.standing == "ejected"
    calls.wait()
    assert calls.standing == "healthy"
    calls.health.start_call(calls.now_s)
    calls.end("timeout", took_s=20.0)
    assert len(calls.ejections) == 1
    assert calls.standing == "ejected"
    calls.end()
    assert calls.standing == "healthy"


def test_asked_nonetheless() -> None:
    """A call to an ejected deployment, when there is no other, does not prolong its ejection."""
    calls = Calls()
    calls.eject()
    calls.now_s += 1
    before_s = calls.health.wait_s(calls.now_s)
    for _ in range(10):
        calls.call("failed")
    assert calls.health.wait_s(calls.now_s) == before_s
    calls.call()
    assert calls.standing == "healthy"


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded"])
def test_retry_after(kind: FailureKind) -> None:
    """It is not asked before it said, even if calls that were under way succeed or say less."""
    calls = Calls()
    calls.health.start_call(calls.now_s)
    calls.call(kind, retry_after_s=60.0)
    calls.end()
    calls.call(kind, retry_after_s=1.0)
    calls.now_s += 59.9
    assert calls.standing == "limited"
    assert calls.health.wait_s(calls.now_s) == pytest.approx(0.1)
    calls.now_s += 0.2
    assert calls.standing == "healthy"


def test_overloaded_counts() -> None:
    """Overload counts as a failure and as a pause, and the longer wait is reported."""
    calls = Calls()
    for _ in range(FAILURES_IN_A_ROW):
        calls.call("overloaded", retry_after_s=1.0)
    assert len(calls.ejections) == 1
    assert calls.standing == "limited"
    assert calls.health.wait_s(calls.now_s) == pytest.approx(calls.ejections[0])


def test_nothing_left() -> None:
    """A good answer that says that nothing is left of a limit has it rest."""
    calls = Calls()
    calls.call(rest_s=7.0)
    assert calls.standing == "limited"
    assert calls.health.wait_s(calls.now_s) == pytest.approx(7.0)


def test_rests_grow() -> None:
    """Without a Retry-After rests grow up to the longest, once for all calls that met one limit."""
    calls = Calls()
    bound = FIRST_REST_S
    for _ in range(8):
        for _ in range(3):
            calls.call("rate_limit")
        assert bound * (1 - JITTER) <= calls.wait() <= bound
        bound = min(bound * 2, LONGEST_REST_S)
    calls.call()
    calls.call("rate_limit")
    assert calls.wait() <= FIRST_REST_S


def test_full() -> None:
    """No more calls than the cap are in flight, and the next may go when one ends."""
    calls = Calls()
    for _ in range(MAX_IN_FLIGHT):
        assert calls.standing == "healthy"
        calls.health.start_call(calls.now_s)
    assert calls.standing == "full"
    assert calls.health.wait_s(calls.now_s) > 0
    calls.end()
    assert calls.standing == "healthy"


def test_timeouts_are_slow() -> None:
    """A timeout is learnt as at least so slow, and never as faster than was expected."""
    slow, quick = Calls(), Calls()
    prior = slow.health.latency.estimate(10, now_s=slow.now_s)
    for _ in range(FAILURES_IN_A_ROW - 1):
        slow.call("timeout", took_s=30.0)
        quick.call("timeout", took_s=0.01)
        slow.now_s += 0.1
    assert slow.health.latency.estimate(10, now_s=slow.now_s) > 10 * prior
    assert quick.health.latency.estimate(10, now_s=slow.now_s) >= prior * 0.999


def test_forgets_how_fast_it_was() -> None:
    """After an ejection nothing is known of its speed, whatever calls from before it still tell."""
    calls = Calls()
    prior = calls.health.latency.estimate(10, now_s=calls.now_s)
    calls.health.start_call(calls.now_s)
    for _ in range(FAILURES_IN_A_ROW):
        calls.call("timeout", took_s=30.0)
        calls.now_s += 60.0
    assert calls.ejections
    calls.end("timeout", took_s=1000.0)
    assert calls.health.latency.estimate(10, now_s=calls.now_s) == prior
    assert calls.health.latency.is_stale(calls.now_s)


def test_hangs() -> None:
    """Where some calls are in flight and none is answered others go first, until one is."""
    calls = Calls()
    for _ in range(HANGING_CALLS):
        calls.now_s += SILENT_S
        assert calls.standing == "healthy"
        calls.health.start_call(calls.now_s)
    calls.end()
    calls.health.start_call(calls.now_s)
    calls.now_s += SILENT_S * 0.9
    assert calls.standing == "healthy"
    calls.now_s += SILENT_S * 0.2
    assert calls.standing == "full"
    calls.health.start_call(calls.now_s)
    calls.end("timeout", took_s=SILENT_S)
    assert calls.standing == "full"
    calls.end()
    assert calls.standing == "healthy"


def test_bounded() -> None:
    """Names that clients make up are forgotten, the one asked for longest ago first, if idle."""
    healths = HealthRegistry(now_s=lambda: 0.0)
    declared = healths.get(served("declared"))
    busy = healths.get(served("busy", declared=False))
    busy.start_call(0.0)
    kept, lost = (healths.get(served(name, declared=False)) for name in ("kept", "lost"))
    for number in range(MAX_UNDECLARED - 3):
        healths.get(served(str(number), declared=False))
    assert healths.get(served("kept", declared=False)) is kept
    healths.get(served("one more", declared=False))
    assert healths.get(served("kept", declared=False)) is kept
    assert healths.get(served("lost", declared=False)) is not lost
    for number in range(2 * MAX_UNDECLARED):
        healths.get(served(f"more {number}", declared=False))
    assert healths.get(served("busy", declared=False)) is busy
    assert healths.get(served("declared")) is declared
    assert len(healths._undeclared) <= MAX_UNDECLARED


class HealthMachine(RuleBasedStateMachine):
    """Any calls, ends and pauses, against a model that knows each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()
        self.numbers = itertools.count()
        self.in_flight: dict[int, float] = {}
        """When each began."""
        self.trials: set[int] = set()
        """Those that began since the last ejection."""
        self.ejected = False
        self.until_s = 0.0
        """Not to be asked before, as it said."""
        self.row = 0
        """Failures in a row, of calls since the last ejection."""

    @rule(seconds=st.floats(0.001, 3) | st.floats(1, 200))
    def pause(self, seconds: float) -> None:
        self.calls.now_s += seconds

    @rule()
    def wait_as_told(self) -> None:
        self.calls.wait()

    @rule(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        for _ in range(count):
            if self.calls.standing != "healthy":
                return
            now_s = self.calls.now_s
            assert now_s >= self.until_s, "asked while limited"
            if self.ejected:
                assert not self.trials & self.in_flight.keys(), "a second trial"
            number = next(self.numbers)
            self.calls.health.start_call(self.calls.now_s)
            self.in_flight[number] = now_s
            self.trials.add(number)

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        kind=st.none() | st.sampled_from(KINDS) | st.just("failed"),
        said_s=st.none() | st.floats(0, 100),
    )
    def end(self, data: st.DataObject, kind: FailureKind | None, said_s: float | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        now_s, began_s = self.calls.now_s, self.in_flight.pop(number)
        before = len(self.calls.ejections)
        if kind is None:
            self.calls.end(took_s=now_s - began_s, rest_s=said_s)
        else:
            self.calls.end(kind, took_s=now_s - began_s, retry_after_s=said_s)
        if said_s is not None and kind in {None, "rate_limit", "overloaded"}:
            self.until_s = max(self.until_s, now_s + said_s)
        since = number in self.trials
        ejected_now = len(self.calls.ejections) > before
        if since and kind is None:
            self.ejected, self.row = False, 0
        if since and kind in COUNTED_FAILURES:
            self.row += 1
            assert ejected_now or not (self.ejected or self.row >= FAILURES_IN_A_ROW)
        if since and kind in OPERATOR_FAILURES:
            assert ejected_now
        if ejected_now:
            assert since and kind in COUNTED_FAILURES | OPERATOR_FAILURES
            self.ejected, self.row = True, 0
            self.trials.clear()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        del self.in_flight[data.draw(st.sampled_from(sorted(self.in_flight)))]
        self.calls.health.cancel_call()

    @invariant()
    def agrees(self) -> None:
        health, now_s = self.calls.health, self.calls.now_s
        assert health.in_flight == len(self.in_flight)
        assert (health.wait_s(now_s) == 0) == (self.calls.standing == "healthy")
        assert (self.calls.standing == "limited") >= (now_s < self.until_s)
        if not self.ejected:
            assert self.calls.standing != "ejected"

    def teardown(self) -> None:
        """Once its calls are over it comes back in time, and stays if the next succeeds."""
        for _ in self.in_flight:
            self.calls.health.cancel_call()
        longest_s = max(LONGEST_EJECTION_S, LONGEST_REST_S, 100)
        assert self.calls.wait() <= longest_s
        assert self.calls.standing == "healthy"
        self.calls.call()
        self.calls.health.start_call(self.calls.now_s)
        assert self.calls.standing == "healthy"


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
