"""How long a deployment takes for a batch, estimated from the calls to it.

A line, seconds over tokens, is fitted by least squares to the calls of late. It knows of no clock
and of no failures: who calls it says when, and what counts.
"""

import math

HALF_LIFE_S = 120.0
"""After which a call counts half: long enough to bridge a lull, short enough to follow the hour."""
MEMORY = 20
"""How many calls the line remembers at most, or one of a thousand a minute would learn of a change
only when the half-life has passed."""
PRIOR = ((10.0, 0.3), (10_000.0, 1.5))
"""What is assumed of a deployment that was not called: tokens, seconds."""
PRIOR_WEIGHTS = (0.1, 0.001)
"""Of these, in calls: the first real one outweighs them. A large batch has that much more say in
what a token takes, so that a thousandth of one holds its own against small batches but not against
middling ones. They never fade, so that without calls the estimate is back at the prior in about a
quarter of an hour, and who was slow is asked again."""
OUTLIER = 4.0
"""How many times slower or faster than the estimate one call may count at most."""
STALE_S = 240.0
"""Without calls for so long, it may have become another."""
FASTEST_S = 0.001
"""No estimate is below it: at that, differences are the machine's noise."""

_WEIGHED = tuple((weight, x, y) for weight, (x, y) in zip(PRIOR_WEIGHTS, PRIOR, strict=True))
_N0 = sum(weight for weight, _, _ in _WEIGHED)
_X0 = sum(weight * x for weight, x, _ in _WEIGHED)
_Y0 = sum(weight * y for weight, _, y in _WEIGHED)
_XX0 = sum(weight * x * x for weight, x, _ in _WEIGHED)
_XY0 = sum(weight * x * y for weight, x, y in _WEIGHED)


class LatencyEstimator:
    """The estimate for one deployment."""

    __slots__ = ("_at_s", "_far", "_n", "_x", "_xx", "_xy", "_y")

    def __init__(self) -> None:
        # Decayed sums over the calls: of 1, tokens, seconds, and their products.
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._at_s = -math.inf
        """When they were last decayed."""
        self._far = False
        """Whether the last call was an outlier."""

    def observe(self, *, tokens: int, seconds: float, now_s: float) -> None:
        """Learns from a call that ended `now_s`."""
        expected = self.estimate(tokens, now_s=now_s)
        likely = min(max(seconds, expected / OUTLIER), expected * OUTLIER)
        # One call far off may be bad luck; two in a row are a change, and half is forgotten.
        far = likely != seconds
        keep = self._faded(now_s) * (0.5 if far and self._far else 1 - 1 / MEMORY)
        self._far = far
        self._at_s = max(self._at_s, now_s)
        self._n = self._n * keep + 1
        self._x = self._x * keep + tokens
        self._y = self._y * keep + likely
        self._xx = self._xx * keep + float(tokens) * tokens
        self._xy = self._xy * keep + tokens * likely

    def estimate(self, tokens: int, *, now_s: float) -> float:
        """Seconds that a batch of `tokens` takes; more tokens never take less."""
        faded = self._faded(now_s)
        n, x, y = self._n * faded + _N0, self._x * faded + _X0, self._y * faded + _Y0
        xx, xy = self._xx * faded + _XX0, self._xy * faded + _XY0
        # The prior's two sizes keep the divisor above 0.
        slope = (n * xy - x * y) / (n * xx - x * x)
        start = (y - slope * x) / n
        if slope < 0:
            slope, start = 0.0, y / n
        elif start < 0:
            slope, start = xy / xx, 0.0
        return max(start + slope * tokens, FASTEST_S)

    def is_stale(self, now_s: float) -> bool:
        """Whether one more call would tell much: the last is long ago, or was a surprise."""
        return self._far or now_s - self._at_s >= STALE_S

    def _faded(self, now_s: float) -> float:
        elapsed_s = now_s - self._at_s
        return 0.5 ** (elapsed_s / HALF_LIFE_S) if elapsed_s > 0 else 1.0
