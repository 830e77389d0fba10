"""Decides from the results of calls whether a deployment may be called now.

Three independent rules: a cap on calls in flight, a pause after a rate limit, and ejection after
failures.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.provider_error import FailureKind, ProviderError
from embedway.health.latency import LatencyEstimator

HealthState = Literal["healthy", "ejected", "limited", "full"]

MAX_IN_FLIGHT = 256
"""The most calls in flight to one deployment. The connection pool queues some of them."""
HANGING_CALLS = 5
"""With this many calls in flight and no response for `SILENT_S`, a deployment seems to hang. Its
calls time out much later, and more would pile up until then."""
SILENT_S = 3.0
FAILURES_IN_A_ROW = 5
"""Failures in a row that eject a deployment, as in Envoy's `consecutive_5xx`."""
FAILED_SHARE = 0.5
"""Share of failed calls that ejects a deployment."""
MIN_CALLS_FOR_SHARE = 20.0
"""Fewest recent calls to compute the share from, or one failure in two calls would eject."""
SHARE_HALF_LIFE_S = 10.0
"""A call counts half in the share after this long."""
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0
"""A recovered deployment should not wait longer, and one trial call a minute costs little."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
"""Longest pause after rate limits that do not say how long to wait."""
MAX_IN_A_ROW = 6
"""Count no more ejections or pauses in a row: the longest is reached by then."""
JITTER = 0.1
"""Shorten ejections and pauses at random by up to this share, to spread out replicas."""
DEFAULT_WAIT_S = 0.5
"""The wait to report when it depends on the end of a call."""
CLOCK_SLACK_S = 0.1
"""Tolerance when a call's duration shows whether it began before an ejection."""
MAX_UNDECLARED = 1024
"""The most undeclared deployments to remember, because clients can make up any number of names."""

COUNTED_FAILURES: frozenset[FailureKind] = frozenset(
    {"overloaded", "timeout", "unreachable", "failed", "malformed"}
)
"""Failures that count against a deployment. Rate limits and the client's errors do not."""
OPERATOR_FAILURES: frozenset[FailureKind] = frozenset({"credentials", "quota", "model"})
"""Failures that only the operator can cure. They eject at once, for the longest time."""


class DeploymentStatus(msgspec.Struct, frozen=True):
    """The health of one deployment at one moment."""

    deployment: Deployment
    state: HealthState
    in_flight: int
    """Calls in flight."""
    wait_s: float
    """The seconds until it may be called; 0.0 if it may be called now."""


def _ignore(*_: object) -> None:
    pass


class DeploymentHealth:
    """The health of one deployment.

    After an ejection, one trial call at a time may go out, and all other calls see it as ejected
    until a trial succeeds. Call `state` right before `start_call`, with no `await` in between.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        on_ejected: Callable[[Deployment, float], None] = _ignore,
        on_recovered: Callable[[Deployment], None] = _ignore,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start healthy. `HealthRegistry` explains the arguments."""
        self.in_flight = 0
        self._silent_s = 0.0
        """When the last response came, or the first of the calls in flight began."""
        self.latency = LatencyEstimator()
        self._deployment = deployment
        self._on_ejected = on_ejected
        self._on_recovered = on_recovered
        self._uniform = uniform
        self._failures_in_a_row = 0
        """Failures since the last success."""
        self._calls = self._failed = 0.0
        """Recent calls, and the failed ones among them; they decay over time."""
        self._counted_s = 0.0
        self._ejected = False
        """Stays set after the time is over, until a trial call succeeds."""
        self._is_reported = False
        """Whether `on_ejected` was called since `on_recovered` was."""
        self._ejected_s = -math.inf
        self._ejected_until_s = 0.0
        self._ejections = 0
        self._older = 0
        """Calls in flight from before the ejection: none of them is a trial."""
        self._limited_until_s = 0.0
        self._full_until_s = 0.0
        self._rests = 0
        """Rate limits in a row that did not say how long to wait."""

    def state(self, now_s: float) -> HealthState:
        """Return whether it may be called. A rate limit goes before all else."""
        if now_s < self._limited_until_s:
            return "limited"
        if self._ejected and (now_s < self._ejected_until_s or self._has_trial):
            return "ejected"
        full = (
            self.in_flight >= MAX_IN_FLIGHT
            or now_s < self._full_until_s
            or (self.in_flight >= HANGING_CALLS and now_s - self._silent_s >= SILENT_S)
        )
        return "full" if full else "healthy"

    def status(self, now_s: float) -> DeploymentStatus:
        """Return its state, calls in flight and wait."""
        return DeploymentStatus(
            self._deployment, self.state(now_s), self.in_flight, self.wait_s(now_s)
        )

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until it may be called; 0.0 if it may be called now."""
        wait_s = max(self._limited_until_s, self._full_until_s) - now_s
        if self._ejected:
            wait_s = max(wait_s, self._ejected_until_s - now_s)
        if wait_s > 0:
            return wait_s
        return 0.0 if self.state(now_s) == "healthy" else DEFAULT_WAIT_S

    def start_call(self, now_s: float) -> None:
        """Count a call that goes out."""
        if not self.in_flight:
            self._silent_s = now_s
        self.in_flight += 1

    def end_call(
        self,
        error: ProviderError | None,
        *,
        tokens: int,
        seconds: float,
        now_s: float,
        rest_s: float | None = None,
    ) -> None:
        """Record the end of a call of `tokens` that took `seconds`, at `now_s`.

        `error` says why it failed; None for a success. `rest_s` is how many seconds it takes until
        the provider's rate limit has room again, if its response says so.
        """
        old = now_s - seconds < self._ejected_s + CLOCK_SLACK_S
        self._leave(old=old)
        if error is None or error.kind != "timeout":
            self._silent_s = now_s
        if error is None:
            self.latency.observe(tokens=tokens, seconds=seconds, now_s=now_s)
            if rest_s is not None:
                self._rest(rest_s, now_s=now_s)
            elif now_s >= self._full_until_s:
                self._rests = 0
        else:
            if error.kind == "timeout" and not old:
                # The call would have taken even longer, so a time below the estimate says nothing.
                expected_s = self.latency.estimate(tokens, now_s=now_s)
                self.latency.observe(tokens=tokens, seconds=max(seconds, expected_s), now_s=now_s)
            self._learn_limits(error, now_s=now_s)
        # An ejection is already the consequence of calls that began before it.
        if not old:
            self._judge(error, now_s=now_s)

    def readmit(self) -> None:
        """End an ejection or a pause, because the operator changed the provider.

        Only a call can tell whether that cured it, so the next success reports the recovery.
        """
        self._ejected, self._ejections, self._rests = False, 0, 0
        self._limited_until_s = self._full_until_s = 0.0

    def cancel_call(self) -> None:
        """Record a call that was cancelled or never sent. It is neither success nor failure."""
        # It may have been the trial. If older calls are in flight, count it as one of them: the
        # next trial then waits for them to end, but there are never two trials.
        self._leave(old=True)

    @property
    def _has_trial(self) -> bool:
        return self.in_flight > self._older

    def _leave(self, *, old: bool) -> None:
        self.in_flight -= 1
        if old:
            self._older = max(self._older - 1, 0)

    def _learn_limits(self, error: ProviderError, *, now_s: float) -> None:
        retry_after_s = error.retry_after_s
        if error.retry_immediately:
            return  # another key is not limited
        if error.kind in {"rate_limit", "overloaded"} and retry_after_s is not None:
            self._rest(retry_after_s, now_s=now_s)
        elif error.kind == "rate_limit" and now_s >= self._full_until_s:
            # A guess: other deployments go first, but a request with no other may try.
            self._rests = min(self._rests + 1, MAX_IN_A_ROW)
            rest_s = self._doubled(FIRST_REST_S, self._rests, LONGEST_REST_S)
            self._full_until_s = now_s + rest_s

    def _rest(self, seconds: float, *, now_s: float) -> None:
        self._limited_until_s = max(self._limited_until_s, now_s + seconds)

    def _judge(self, error: ProviderError | None, *, now_s: float) -> None:
        if error is None:
            self._failures_in_a_row = 0
            self._count(0.0, now_s=now_s)
            if self._ejected:
                self._ejected = False
                self._ejections //= 2
            if self._is_reported:
                self._is_reported = False
                self._on_recovered(self._deployment)
        elif error.retry_immediately or (self._ejected and now_s < self._ejected_until_s):
            pass  # another key may work; or it was called although ejected, which is no news
        elif error.kind in OPERATOR_FAILURES:
            # A missing model says nothing about a deployment whose name the client made up.
            if error.kind != "model" or self._deployment.model.declared:
                self._eject(LONGEST_EJECTION_S, now_s=now_s)
        elif error.kind in COUNTED_FAILURES:
            self._failures_in_a_row += 1
            self._count(1.0, now_s=now_s)
            share = (
                self._calls >= MIN_CALLS_FOR_SHARE and self._failed >= FAILED_SHARE * self._calls
            )
            if self._ejected or share or self._failures_in_a_row >= FAILURES_IN_A_ROW:
                self._eject(None, now_s=now_s)

    def _count(self, failed: float, *, now_s: float) -> None:
        faded = 0.5 ** (max(now_s - self._counted_s, 0.0) / SHARE_HALF_LIFE_S)
        self._counted_s = max(self._counted_s, now_s)
        self._calls = self._calls * faded + 1
        self._failed = self._failed * faded + failed

    def _eject(self, seconds: float | None, *, now_s: float) -> None:
        self._ejections = min(self._ejections + 1, MAX_IN_A_ROW)
        if seconds is None:
            seconds = self._doubled(FIRST_EJECTION_S, self._ejections, LONGEST_EJECTION_S)
        self._ejected, self._ejected_s, self._ejected_until_s = True, now_s, now_s + seconds
        self._older = self.in_flight
        self._calls = self._failed = 0.0
        self.latency = LatencyEstimator()  # its past latency says nothing about the future
        self._is_reported = True
        self._on_ejected(self._deployment, seconds)

    def _doubled(self, first_s: float, times: int, longest_s: float) -> float:
        return min(first_s * 2 ** (times - 1), longest_s) * self._uniform(1 - JITTER, 1.0)


class HealthRegistry:
    """The health of every deployment; one for the process."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        on_ejected: Callable[[Deployment, float], None] = _ignore,
        on_recovered: Callable[[Deployment], None] = _ignore,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start with all deployments healthy.

        Args:
            now_s: The monotonic clock of all times here.
            on_ejected: Called at each ejection with the deployment and the seconds.
            on_recovered: Called with a deployment when a trial call after an ejection succeeds.
            uniform: Draws the jitter.
        """
        self.now_s = now_s
        self._on_ejected = on_ejected
        self._on_recovered = on_recovered
        self._uniform = uniform
        self._declared: dict[str, DeploymentHealth] = {}
        self._undeclared: OrderedDict[str, DeploymentHealth] = OrderedDict()
        """The most recently used is last."""

    def get(self, deployment: Deployment) -> DeploymentHealth:
        """Return the health of a deployment; a new one is healthy."""
        is_declared = deployment.model.declared
        healths = self._declared if is_declared else self._undeclared
        health = healths.get(deployment.id)
        if health is None:
            if not is_declared:
                self._drop_oldest()
            health = healths[deployment.id] = DeploymentHealth(
                deployment,
                on_ejected=self._on_ejected,
                on_recovered=self._on_recovered,
                uniform=self._uniform,
            )
        elif not is_declared:
            self._undeclared.move_to_end(deployment.id)
        return health

    def readmit(self, provider: str) -> None:
        """End the ejections and pauses of a provider's deployments."""
        for healths in (self._declared, self._undeclared):
            for id, health in healths.items():
                if id.partition(":")[0] == provider:
                    health.readmit()

    def forget_others(self, ids: Container[str]) -> None:
        """Forget the declared deployments that are not in `ids`, unless calls to them go on."""
        self._declared = {
            id: each for id, each in self._declared.items() if id in ids or each.in_flight
        }

    def statuses(self) -> list[DeploymentStatus]:
        """List the health of every deployment that requests have considered."""
        now_s = self.now_s()
        healths = (*self._declared.values(), *self._undeclared.values())
        return [each.status(now_s) for each in healths]

    def ejected_models(self) -> set[str]:
        """Return the ids of the models of which every deployment considered is ejected."""
        statuses = self.statuses()
        ejected = {each.deployment.model.id for each in statuses if each.state == "ejected"}
        return ejected - {each.deployment.model.id for each in statuses if each.state != "ejected"}

    def _drop_oldest(self) -> None:
        if len(self._undeclared) < MAX_UNDECLARED:
            return
        idle = (id for id, each in self._undeclared.items() if not each.in_flight)
        if (oldest := next(idle, None)) is not None:
            del self._undeclared[oldest]
