"""Whether a deployment may be asked now, from how the calls to it ended.

Three rules, each on its own: a cap on calls in flight, a rest after a rate limit, and ejection
after failures. It neither sends nor chooses; clock and chance are given to it.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from embedway.catalog.deployment import Deployment
from embedway.core.provider_error import FailureKind, ProviderError
from embedway.health.latency import LatencyEstimator

HealthState = Literal["healthy", "ejected", "limited", "full"]

MAX_IN_FLIGHT = 256
"""Calls to one deployment; the provider's pool of connections queues some of them."""
HANGING_CALLS = 5
SILENT_S = 3.0
"""With so many calls in flight and none answered for so long it seems to hang; its calls time out
much later, and until then ever more would join them."""
FAILURES_IN_A_ROW = 5
"""Envoy's `consecutive_5xx`."""
FAILED_SHARE = 0.5
FAILED_OF = 20.0
"""Calls of late that the share is taken of at least, or one failure of two would eject."""
SHARE_HALF_LIFE_S = 10.0
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0
"""Who is well again should not wait longer, and a try a minute costs little."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
MOST_IN_A_ROW = 6
"""Ejections or rests that are counted: the longest is reached by then."""
JITTER = 0.1
"""By how much an ejection or rest is shortened at random, so that replicas do not return as one."""
SOON_S = 0.5
"""The wait for a call's end, which nobody can foretell."""
SLACK_S = 0.1
"""By how much a call's seconds may be off, when they tell whether it is older than an ejection."""
MAX_UNDECLARED = 1024
"""Deployments of names that clients made up."""

FAILURES: frozenset[FailureKind] = frozenset(
    {"overloaded", "timeout", "unreachable", "failed", "malformed"}
)
"""What counts against a deployment; that it is busy, or the client's own fault, does not."""
FOR_THE_OPERATOR: frozenset[FailureKind] = frozenset({"credentials", "quota", "model"})
"""What no retry cures: ejected at once, for the longest time."""


def _nobody(_served: Deployment, _seconds: float) -> None:
    pass


class DeploymentHealth:
    """One deployment's.

    After an ejection it is half open: one call at a time may try it, and everybody else sees it as
    ejected, until a try succeeds. Ask `standing` right before `began`, with no `await` between.
    """

    def __init__(
        self,
        served: Deployment,
        *,
        on_ejected: Callable[[Deployment, float], None] = _nobody,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Makes one that is healthy.

        Args:
            served: The deployment.
            on_ejected: Told the deployment and for how many seconds, at each ejection.
            uniform: Draws the jitter.
        """
        self.in_flight = 0
        self._silent_s = 0.0
        """When it last answered, or began to be asked."""
        self.latency = LatencyEstimator()
        self._served = served
        self._on_ejected = on_ejected
        self._uniform = uniform
        self._row = 0
        """Failures since the last success."""
        self._calls = self._failed = 0.0
        """Decayed counts."""
        self._counted_s = 0.0
        self._ejected = False
        """Until a try succeeds, half open included."""
        self._ejected_s = -math.inf
        self._ejected_until_s = 0.0
        self._ejections = 0
        self._older = 0
        """Calls in flight that had begun when it was ejected: none of them is a try."""
        self._limited_until_s = 0.0
        self._full_until_s = 0.0
        self._rests = 0
        """Rests in a row whose length it did not say."""

    def state(self, now_s: float) -> HealthState:
        """Whether it may be asked; a rate limit goes before all else: it is never overridden."""
        if now_s < self._limited_until_s:
            return "limited"
        if self._ejected and (now_s < self._ejected_until_s or self._tried):
            return "ejected"
        full = (
            self.in_flight >= MAX_IN_FLIGHT
            or now_s < self._full_until_s
            or (self.in_flight >= HANGING_CALLS and now_s - self._silent_s >= SILENT_S)
        )
        return "full" if full else "healthy"

    def wait_s(self, now_s: float) -> float:
        """Seconds until it may be asked; 0.0 now."""
        wait_s = max(self._limited_until_s, self._full_until_s) - now_s
        if self._ejected:
            wait_s = max(wait_s, self._ejected_until_s - now_s)
        if wait_s > 0:
            return wait_s
        return 0.0 if self.state(now_s) == "healthy" else SOON_S

    def start_call(self, now_s: float) -> None:
        """Counts a call that goes out."""
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
        """Learns from a call's end.

        Args:
            error: How it failed; None for a success.
            tokens: Of the batch.
            seconds: Since it began.
            now_s: When it ended.
            rest_s: For how long the answer says that nothing is left of a rate limit.
        """
        old = now_s - seconds < self._ejected_s + SLACK_S
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
                # It would have taken longer still: that is no news if it is less than expected.
                expected_s = self.latency.estimate(tokens, now_s=now_s)
                self.latency.observe(tokens=tokens, seconds=max(seconds, expected_s), now_s=now_s)
            self._learn_limits(error, now_s=now_s)
        # Of what happened before an ejection, the ejection was the consequence.
        if not old:
            self._judge(error, now_s=now_s)

    def cancel_call(self) -> None:
        """Records a call that was given up or never sent. It is neither success nor failure."""
        # It may have been the try. While older calls are in flight nobody knows, and it counts as
        # one of them: the next try then waits for their end, but there are never two.
        self._leave(old=True)

    @property
    def _tried(self) -> bool:
        return self.in_flight > self._older

    def _leave(self, *, old: bool) -> None:
        self.in_flight -= 1
        if old:
            self._older = max(self._older - 1, 0)

    def _learn_limits(self, error: ProviderError, *, now_s: float) -> None:
        said_s = error.retry_after_s
        if error.retry_immediately:
            return  # another key is not limited
        if error.kind in {"rate_limit", "overloaded"} and said_s is not None:
            self._rest(said_s, now_s=now_s)
        elif error.kind == "rate_limit" and now_s >= self._full_until_s:
            # A guess: others are asked first, but who has nobody else may try.
            self._rests = min(self._rests + 1, MOST_IN_A_ROW)
            rest_s = self._doubled(FIRST_REST_S, self._rests, LONGEST_REST_S)
            self._full_until_s = now_s + rest_s

    def _rest(self, seconds: float, *, now_s: float) -> None:
        self._limited_until_s = max(self._limited_until_s, now_s + seconds)

    def _judge(self, error: ProviderError | None, *, now_s: float) -> None:
        if error is None:
            self._row = 0
            self._count(0.0, now_s=now_s)
            if self._ejected:
                self._ejected = False
                self._ejections //= 2
        elif error.retry_immediately or (self._ejected and now_s < self._ejected_until_s):
            pass  # another key may do; or it was asked although ejected, and this is no news
        elif error.kind in FOR_THE_OPERATOR:
            # Who makes a name up learns nothing about the deployment if there is no such model.
            if error.kind != "model" or self._served.model.declared:
                self._eject(LONGEST_EJECTION_S, now_s=now_s)
        elif error.kind in FAILURES:
            self._row += 1
            self._count(1.0, now_s=now_s)
            share = self._calls >= FAILED_OF and self._failed >= FAILED_SHARE * self._calls
            if self._ejected or share or self._row >= FAILURES_IN_A_ROW:
                self._eject(None, now_s=now_s)

    def _count(self, failed: float, *, now_s: float) -> None:
        faded = 0.5 ** (max(now_s - self._counted_s, 0.0) / SHARE_HALF_LIFE_S)
        self._counted_s = max(self._counted_s, now_s)
        self._calls = self._calls * faded + 1
        self._failed = self._failed * faded + failed

    def _eject(self, seconds: float | None, *, now_s: float) -> None:
        self._ejections = min(self._ejections + 1, MOST_IN_A_ROW)
        if seconds is None:
            seconds = self._doubled(FIRST_EJECTION_S, self._ejections, LONGEST_EJECTION_S)
        self._ejected, self._ejected_s, self._ejected_until_s = True, now_s, now_s + seconds
        self._older = self.in_flight
        self._calls = self._failed = 0.0
        self.latency = LatencyEstimator()  # how fast it was says nothing of how fast it will be
        self._on_ejected(self._served, seconds)

    def _doubled(self, first_s: float, times: int, longest_s: float) -> float:
        return min(first_s * 2 ** (times - 1), longest_s) * self._uniform(1 - JITTER, 1.0)


class HealthRegistry:
    """Of every deployment; one for the process."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        on_ejected: Callable[[Deployment, float], None] = _nobody,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Starts with everybody healthy.

        Args:
            now_s: The monotonic clock that all times of these are of.
            on_ejected: Told the deployment and for how many seconds, at each ejection.
            uniform: Draws the jitter.
        """
        self.now_s = now_s
        self._on_ejected = on_ejected
        self._uniform = uniform
        self._declared: dict[str, DeploymentHealth] = {}
        self._undeclared: OrderedDict[str, DeploymentHealth] = OrderedDict()
        """The one asked for last is last."""

    def get(self, served: Deployment) -> DeploymentHealth:
        """The deployment's; healthy if it is not known yet."""
        if served.model.declared:
            health = self._declared.get(served.id)
            if health is None:
                health = self._declared[served.id] = self._new(served)
            return health
        health = self._undeclared.get(served.id)
        if health is None:
            self._drop()
            health = self._undeclared[served.id] = self._new(served)
        else:
            self._undeclared.move_to_end(served.id)
        return health

    def _new(self, served: Deployment) -> DeploymentHealth:
        return DeploymentHealth(served, on_ejected=self._on_ejected, uniform=self._uniform)

    def _drop(self) -> None:
        if len(self._undeclared) < MAX_UNDECLARED:
            return
        idle = (id for id, each in self._undeclared.items() if not each.in_flight)
        if (oldest := next(idle, None)) is not None:
            del self._undeclared[oldest]
