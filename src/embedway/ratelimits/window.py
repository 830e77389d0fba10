"""Counts what was used in the last second, minute, hour or day.

A period is divided into 20 slots. A slot stores how much was used in it and when it was last used,
and expires one period after that last use. So no interval of one period ever exceeds the limit,
room comes back at most one slot late, and no client waits longer than one period.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, get_args

from embedway.core.limit import SLOT_MS, SLOTS, Limit, LimitPeriod, LimitUnit
from embedway.core.subject import Subject
from embedway.ratelimits.limiter import LimitKey

MAX_WINDOWS = 100_000
"""The most windows of end users that one process keeps, unless projects share them unevenly."""
FAR_MS = 1000
"""A clock that goes back further than this was set back and will not catch up soon."""


class SteadyClock:
    """A clock that never goes back.

    When its source goes back a little, it stands still; when further, it goes on from where it was.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._ahead_ms = 0
        self._last_ms = 0

    def __call__(self) -> int:
        """Return the time in ms."""
        now_ms = self._now_ms() + self._ahead_ms
        if now_ms < self._last_ms:
            if self._last_ms - now_ms > FAR_MS:
                self._ahead_ms += self._last_ms - now_ms
            return self._last_ms
        self._last_ms = now_ms
        return now_ms


class SlidingWindow:
    """What was counted against one limit in the last period, by slot."""

    __slots__ = ("_slot_ms", "counts", "last_used_ms", "newest_slot", "total")

    def __init__(self, per: LimitPeriod) -> None:
        self._slot_ms = SLOT_MS[per]
        self.counts: dict[int, int] = {}
        """How much was used in each slot, oldest first."""
        self.last_used_ms: dict[int, int] = {}
        """When each slot was last used, in ms."""
        self.total = 0
        self.newest_slot = 0
        """The latest slot in which a request was counted here."""

    def forget(self, now_ms: int) -> None:
        """Drop expired slots."""
        expired_ms = now_ms - SLOTS * self._slot_ms
        counts = self.counts
        while counts:
            oldest = next(iter(counts))
            if self.last_used_ms[oldest] > expired_ms:
                return
            self.total -= counts.pop(oldest)
            del self.last_used_ms[oldest]

    def add(self, now_ms: int, amount: int) -> None:
        """Count `amount` at `now_ms`."""
        slot = now_ms // self._slot_ms
        if slot not in self.counts:
            self.forget(now_ms)
            self.newest_slot = max(self.newest_slot, slot)
        self.put(slot, amount, now_ms)

    def put(self, slot: int, amount: int, last_ms: int) -> None:
        """Count `amount` more in `slot`, used at `last_ms`."""
        if slot in self.counts:
            self.counts[slot] += amount
            self.last_used_ms[slot] = max(self.last_used_ms[slot], last_ms)
        else:
            is_late = bool(self.counts) and slot < next(reversed(self.counts))
            self.counts[slot] = amount
            self.last_used_ms[slot] = last_ms
            if is_late:
                self.counts = dict(sorted(self.counts.items()))
        self.total += amount

    def change(self, at_ms: int, amount: int) -> None:
        """Add `amount`, which may be negative, to the slot of `at_ms` unless it has expired."""
        slot = at_ms // self._slot_ms
        if slot in self.counts:
            amount = max(amount, -self.counts[slot])
            self.counts[slot] += amount
            self.total += amount

    def free_at_ms(self, room: int) -> int:
        """Return when at most `room` of the current count will be left, in ms; 0 if it is now."""
        left = self.total
        free_at_ms = 0
        for slot, count in self.counts.items():
            if left <= room:
                break
            left -= count
            free_at_ms = self.last_used_ms[slot] + SLOTS * self._slot_ms
        return free_at_ms

    def wait_ms(self, units: int, *, amount: int, now_ms: int) -> int:
        """Return how long until a limit of `amount` has room for `units`, which is no more.

        The wait is 0 if there is room now. It is one period at most, even if another process's
        clock ran ahead of this one.
        """
        if not units or self.total + units <= amount:
            return 0
        self.forget(now_ms)
        if self.total + units <= amount:
            return 0
        return min(self.free_at_ms(amount - units) - now_ms, SLOTS * self._slot_ms)

    def reset_ms(self, now_ms: int) -> int:
        """Return how long until nothing of the current count is left."""
        if not self.total:
            return 0
        latest = next(reversed(self.counts))
        if self.counts[latest]:
            return self.last_used_ms[latest] + SLOTS * self._slot_ms - now_ms
        return self.free_at_ms(0) - now_ms


_WindowT = TypeVar("_WindowT", bound=SlidingWindow)


class WindowTable(Generic[_WindowT]):
    """The windows of all limits in use.

    Adding a window drops others that were not used for a whole period. A window in use is never
    dropped: when there are too many, new end users are refused, but only those of projects that
    hold more than an equal part of all windows. Keys and projects always get a window.
    """

    def __init__(
        self,
        make: Callable[[LimitPeriod], _WindowT],
        *,
        max_windows: int = MAX_WINDOWS,
        on_drop: Callable[[_WindowT], object] = lambda _: None,
    ) -> None:
        self._make = make
        self._max_windows = max_windows
        self._on_drop = on_drop
        self._tables: dict[LimitUnit, dict[LimitPeriod, OrderedDict[Subject, _WindowT]]] = {
            unit: {per: OrderedDict() for per in get_args(LimitPeriod)}
            for unit in get_args(LimitUnit)
        }
        self._user_counts = Counter[str]()
        """How many windows of end users each project holds, by project id."""

    def __len__(self) -> int:
        return sum(len(table) for _, _, table in self._each())

    def __iter__(self) -> Iterator[tuple[LimitKey, _WindowT]]:
        """Yield every window with its key. The amounts in these keys mean nothing."""
        for unit, per, table in self._each():
            limit = Limit(of=unit, amount=1, per=per)
            for subject, window in table.items():
                yield LimitKey(subject=subject, limit=limit), window

    def get(self, key: LimitKey) -> _WindowT | None:
        """Return the window of a limit, or None."""
        limit = key.limit
        return self._tables[limit.of][limit.per].get(key.subject)

    def has_room(self, key: LimitKey, now_ms: int) -> bool:
        """Whether the limit has a window or can get one."""
        if self.get(key) is not None or key.subject.kind != "end user":
            return True
        self._drop_idle(now_ms)
        project_id = key.subject.project_id
        if self._user_counts.total() < self._max_windows:
            return True
        projects = len(self._user_counts.keys() | {project_id})
        return self._user_counts[project_id] < max(self._max_windows // projects, 1)

    def get_or_create(self, key: LimitKey, now_ms: int) -> _WindowT:
        """Return the window of a limit and mark it as used now. Call `has_room` first."""
        limit, subject = key.limit, key.subject
        table = self._tables[limit.of][limit.per]
        window = table.get(subject)
        slot = now_ms // SLOT_MS[limit.per]
        if window is None:
            self._drop_idle(now_ms)
            window = table[subject] = self._make(limit.per)
            if subject.kind == "end user":
                self._user_counts[subject.project_id] += 1
        elif window.newest_slot != slot:
            # The first window of each table is then the one used longest ago.
            table.move_to_end(subject)
        window.newest_slot = max(window.newest_slot, slot)
        return window

    def _drop_idle(self, now_ms: int) -> None:
        for _, per, table in self._each():
            oldest = now_ms // SLOT_MS[per] - SLOTS
            # Two are dropped for each one added, so idle ones are all gone sooner or later.
            for _ in range(2):
                if not table or next(iter(table.values())).newest_slot >= oldest:
                    break
                subject, window = table.popitem(last=False)
                self._on_drop(window)
                if subject.kind == "end user":
                    self._user_counts[subject.project_id] -= 1
                    if not self._user_counts[subject.project_id]:
                        del self._user_counts[subject.project_id]

    def _each(self) -> Iterator[tuple[LimitUnit, LimitPeriod, OrderedDict[Subject, _WindowT]]]:
        for unit, tables in self._tables.items():
            for per, table in tables.items():
                yield unit, per, table
