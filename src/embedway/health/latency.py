"""Estimates how long a deployment takes for a batch, from recent calls to it.

Fits a line, seconds over tokens, to them by least squares.
"""

import math

HALF_LIFE_S = 120.0
"""A call counts half after this long: long enough to bridge a lull, short enough to adapt."""
MEMORY = 20
"""The most calls to remember. Otherwise a deployment with a thousand calls a minute would notice a
change only after the half-life."""
PRIOR = ((10.0, 0.3), (10_000.0, 1.5))
"""Two assumed calls, in tokens and seconds, for a deployment without calls."""
PRIOR_WEIGHTS = (0.1, 0.001)
"""The weights of the assumed calls; a real call has 1 and outweighs them. A large batch says far
more about the time per token, so a thousandth of one holds its own against small batches but not
against middling ones. They never fade: without calls, the estimate returns to them in about a
quarter of an hour, and a slow deployment gets another chance."""
OUTLIER = 4.0
"""One call counts as at most this many times slower or faster than the estimate."""
STALE_S = 240.0
"""Distrust an estimate after this long without calls."""
FASTEST_S = 0.001
"""The lowest estimate. Below this, differences are noise."""

_WEIGHED = tuple((weight, x, y) for weight, (x, y) in zip(PRIOR_WEIGHTS, PRIOR, strict=True))
_N0 = sum(weight for weight, _, _ in _WEIGHED)
_X0 = sum(weight * x for weight, x, _ in _WEIGHED)
_Y0 = sum(weight * y for weight, _, y in _WEIGHED)
_XX0 = sum(weight * x * x for weight, x, _ in _WEIGHED)
_XY0 = sum(weight * x * y for weight, x, y in _WEIGHED)


class LatencyEstimator:
    """Estimates the latency of one deployment."""

    __slots__ = ("_at_s", "_n", "_was_outlier", "_x", "_xx", "_xy", "_y")

    def __init__(self) -> None:
        # Decayed sums over the calls: of 1, tokens, seconds, and their products.
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._at_s = -math.inf
        """When the sums were last decayed."""
        self._was_outlier = False
        """Whether the last call was an outlier."""

    def observe(self, *, tokens: int, seconds: float, now_s: float) -> None:
        """Learn from a call that ended at `now_s`."""
        expected = self.estimate(tokens, now_s=now_s)
        likely = min(max(seconds, expected / OUTLIER), expected * OUTLIER)
        # One outlier may be bad luck. Two in a row are a change: forget half of what came before.
        is_outlier = likely != seconds
        keep = self._faded(now_s) * (0.5 if is_outlier and self._was_outlier else 1 - 1 / MEMORY)
        self._was_outlier = is_outlier
        self._at_s = max(self._at_s, now_s)
        self._n = self._n * keep + 1
        self._x = self._x * keep + tokens
        self._y = self._y * keep + likely
        self._xx = self._xx * keep + float(tokens) * tokens
        self._xy = self._xy * keep + tokens * likely

    def estimate(self, tokens: int, *, now_s: float) -> float:
        """Return the seconds that a batch takes; more tokens never take less."""
        faded = self._faded(now_s)
        n, x, y = self._n * faded + _N0, self._x * faded + _X0, self._y * faded + _Y0
        xx, xy = self._xx * faded + _XX0, self._xy * faded + _XY0
        # The two assumed calls differ in size, which keeps the divisor above 0.
        slope = (n * xy - x * y) / (n * xx - x * x)
        start = (y - slope * x) / n
        if slope < 0:
            slope, start = 0.0, y / n
        elif start < 0:
            slope, start = xy / xx, 0.0
        return max(start + slope * tokens, FASTEST_S)

    def is_stale(self, now_s: float) -> bool:
        """Return whether one more call would teach much: the last is long ago or was an outlier."""
        return self._was_outlier or now_s - self._at_s >= STALE_S

    def _faded(self, now_s: float) -> float:
        elapsed_s = now_s - self._at_s
        return 0.5 ** (elapsed_s / HALF_LIFE_S) if elapsed_s > 0 else 1.0
