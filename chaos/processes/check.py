"""Compares what was measured with what is promised."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Check:
    """One promise, and what was measured of it."""

    promise: str
    """What is counted or measured, as a row's heading."""
    bound: str
    """What it should be, such as `0` or `at least 80%`."""
    measured: str
    is_kept: bool
    is_timing: bool = False
    """Whether it depends on how fast this machine is at that moment, and on how long the run is."""

    def of_short_run(self) -> Self:
        """Return the check of a run that is too short to judge what depends on time."""
        if not self.is_timing or self.is_kept:
            return self
        return replace(self, measured=f"{self.measured}, too short to judge", is_kept=True)


def none_of(promise: str, count: int, *, out_of: int, found: str = "") -> Check:
    """Return the check that nothing of a kind happened; it is broken too if nothing was tried.

    `found` says what happened instead.
    """
    measured = f"{count} of {out_of:,}" + (f": {found}" if found else "")
    return Check(promise, "0", measured, is_kept=not count and out_of > 0)


def at_most(
    promise: str, bound: float, measured: float, unit: str, *, is_timing: bool = False
) -> Check:
    """Return the check of an upper bound."""
    is_kept, shown = measured <= bound, f"{_digits(measured)}{unit}"
    return Check(promise, f"at most {bound:,g}{unit}", shown, is_kept, is_timing)


def at_least(
    promise: str, bound: float, measured: float, unit: str, *, is_timing: bool = False
) -> Check:
    """Return the check of a lower bound."""
    is_kept, shown = measured >= bound, f"{_digits(measured)}{unit}"
    return Check(promise, f"at least {bound:,g}{unit}", shown, is_kept, is_timing)


def holds(promise: str, is_kept: bool, measured: str = "") -> Check:  # noqa: FBT001
    """Return the check of something that is so or not."""
    return Check(promise, "yes", measured or ("yes" if is_kept else "no"), is_kept)


def _digits(number: float) -> str:
    """Return a number with three digits, or more if it is a thousand or more."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
