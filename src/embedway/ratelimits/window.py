"""What was used in the last second, minute, hour or day.

Time is cut in slots, 20 to a length. A slot keeps how much was used in it and when last, and leaves
once that last use is a length old: so never more than the limit in any stretch of that length, room
comes back a slot late at most, and nobody waits longer than a length. Knows no store and no wire.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, get_args

from embedway.core.limit import SLOT_MS, SLOTS, Limit, LimitPeriod, LimitUnit
from embedway.core.subject import Subject
from embedway.ratelimits.key import LimitKey

MAX_METERS = 100_000
"""The most windows of end users that one process keeps, unless projects share them unevenly."""
FAR_MS = 1000
"""A clock that went back so far was set, and will not catch up."""


class SteadyClock:
    """A clock that never goes back: it stands still meanwhile, or goes on from where it was."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._ahead_ms = 0
        self._last_ms = 0

    def __call__(self) -> int:
        """Milliseconds on a clock of its own."""
        now_ms = self._now_ms() + self._ahead_ms
        if now_ms < self._last_ms:
            if self._last_ms - now_ms > FAR_MS:
                self._ahead_ms += self._last_ms - now_ms
            return self._last_ms
        self._last_ms = now_ms
        return now_ms


class SlidingWindow:
    """What one meter counted in the last second, minute, hour or day, slot by slot.

    A slot leaves as a whole, once its last use is a length old.
    """

    __slots__ = ("_slot_ms", "counts", "lasts", "newest", "total")

    def __init__(self, per: LimitPeriod) -> None:
        self._slot_ms = SLOT_MS[per]
        self.counts: dict[int, int] = {}
        """What was used in each slot, the oldest first."""
        self.lasts: dict[int, int] = {}
        """When each slot was last used, in ms."""
        self.total = 0
        self.newest = 0
        """The latest slot in which anybody asked for this meter."""

    def forget(self, now_ms: int) -> None:
        """Drop the slots whose last use is a length old."""
        left_ms = now_ms - SLOTS * self._slot_ms
        counts = self.counts
        while counts:
            oldest = next(iter(counts))
            if self.lasts[oldest] > left_ms:
                return
            self.total -= counts.pop(oldest)
            del self.lasts[oldest]

    def add(self, now_ms: int, amount: int) -> None:
        """Count `amount` now."""
        slot = now_ms // self._slot_ms
        if slot not in self.counts:
            self.forget(now_ms)
            self.newest = max(self.newest, slot)
        self.put(slot, amount, now_ms)

    def put(self, slot: int, amount: int, last_ms: int) -> None:
        """Count `amount` more in `slot`, used at `last_ms`."""
        if slot in self.counts:
            self.counts[slot] += amount
            self.lasts[slot] = max(self.lasts[slot], last_ms)
        else:
            late = bool(self.counts) and slot < next(reversed(self.counts))
            self.counts[slot] = amount
            self.lasts[slot] = last_ms
            if late:
                self.counts = dict(sorted(self.counts.items()))
        self.total += amount

    def change(self, at_ms: int, amount: int) -> None:
        """Correct what was counted at `at_ms`, unless it has left; never to less than nothing."""
        slot = at_ms // self._slot_ms
        if slot in self.counts:
            amount = max(amount, -self.counts[slot])
            self.counts[slot] += amount
            self.total += amount

    def free_ms(self, room: int) -> int:
        """When no more than `room` of what is counted now will still count."""
        left = self.total
        free_ms = 0
        for slot, count in self.counts.items():
            if left <= room:
                break
            left -= count
            free_ms = self.lasts[slot] + SLOTS * self._slot_ms
        return free_ms

    def wait_ms(self, asked: int, *, amount: int, now_ms: int) -> int:
        """How long until a limit of `amount` has room for `asked`, which is no more; 0 if it has.

        It is a length at most, also where the clock of another process ran ahead of this one.
        """
        if not asked or self.total + asked <= amount:
            return 0
        self.forget(now_ms)
        if self.total + asked <= amount:
            return 0
        return min(self.free_ms(amount - asked) - now_ms, SLOTS * self._slot_ms)

    def reset_ms(self, now_ms: int) -> int:
        """How long until nothing of what is counted now counts any more."""
        if not self.total:
            return 0
        latest = next(reversed(self.counts))
        if self.counts[latest]:
            return self.lasts[latest] + SLOTS * self._slot_ms - now_ms
        return self.free_ms(0) - now_ms


Kept = TypeVar("Kept", bound=SlidingWindow)


class WindowTable(Generic[Kept]):
    """The windows of all meters that are in use.

    Windows that nobody used for the length of their limit are dropped as others come. Nothing that
    is in force is dropped: when there are too many, new end users find no room, but only those of
    projects that hold more than an equal share of all windows. Keys and projects always do.
    """

    def __init__(
        self,
        make: Callable[[LimitPeriod], Kept],
        *,
        most: int = MAX_METERS,
        on_drop: Callable[[Kept], object] = lambda _: None,
    ) -> None:
        self._make = make
        self._most = most
        self._on_drop = on_drop
        self._shelves: dict[LimitUnit, dict[LimitPeriod, OrderedDict[Subject, Kept]]] = {
            of: {per: OrderedDict() for per in get_args(LimitPeriod)} for of in get_args(LimitUnit)
        }
        self._of_users = Counter[str]()
        """How many windows of end users each project holds."""

    def __len__(self) -> int:
        return sum(len(shelf) for _, _, shelf in self._each())

    def __iter__(self) -> Iterator[tuple[LimitKey, Kept]]:
        """All of them; the amounts of these meters mean nothing."""
        for of, per, shelf in self._each():
            limit = Limit(of=of, amount=1, per=per)
            for subject, window in shelf.items():
                yield LimitKey(subject=subject, limit=limit), window

    def get(self, meter: LimitKey) -> Kept | None:
        """The window of `meter`, if there is one."""
        limit = meter.limit
        return self._shelves[limit.of][limit.per].get(meter.subject)

    def has_room(self, meter: LimitKey, now_ms: int) -> bool:
        """Whether `meter` has a window or can get one."""
        if self.get(meter) is not None or meter.subject.kind != "end user":
            return True
        self._drop_idle(now_ms)
        project_id = meter.subject.project_id
        if self._of_users.total() < self._most:
            return True
        projects = len(self._of_users.keys() | {project_id})
        return self._of_users[project_id] < max(self._most // projects, 1)

    def used(self, meter: LimitKey, now_ms: int) -> Kept:
        """The window of `meter`, to be used now; it has room."""
        limit, subject = meter.limit, meter.subject
        shelf = self._shelves[limit.of][limit.per]
        window = shelf.get(subject)
        slot = now_ms // SLOT_MS[limit.per]
        if window is None:
            self._drop_idle(now_ms)
            window = shelf[subject] = self._make(limit.per)
            if subject.kind == "end user":
                self._of_users[subject.project_id] += 1
        elif window.newest != slot:
            # So that on each shelf the first is the one that was used longest ago.
            shelf.move_to_end(subject)
        window.newest = max(window.newest, slot)
        return window

    def _drop_idle(self, now_ms: int) -> None:
        for _, per, shelf in self._each():
            oldest = now_ms // SLOT_MS[per] - SLOTS
            # Two go for one that comes: sooner or later all that are idle are gone.
            for _ in range(2):
                if not shelf or next(iter(shelf.values())).newest >= oldest:
                    break
                subject, window = shelf.popitem(last=False)
                self._on_drop(window)
                if subject.kind == "end user":
                    self._of_users[subject.project_id] -= 1
                    if not self._of_users[subject.project_id]:
                        del self._of_users[subject.project_id]

    def _each(self) -> Iterator[tuple[LimitUnit, LimitPeriod, OrderedDict[Subject, Kept]]]:
        for of, shelves in self._shelves.items():
            for per, shelf in shelves.items():
                yield of, per, shelf
