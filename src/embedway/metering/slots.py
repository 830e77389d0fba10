"""What was used in the last second, minute, hour or day.

Time is cut in slots, 20 to a length. What is used counts in the slot that it happened in and leaves
once all of that slot is a whole length old: so never more than the limit in any stretch of that
length, and room comes back a slot late at most. Knows no store and no wire.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, get_args

from embedway.core.limits import SLOT_MS, SLOTS, Limit, Meter, Of, Per
from embedway.core.subjects import Subject

MAX_METERS = 100_000
"""That are kept of one process."""
FAR_MS = 1000
"""A clock that went back so far was set, and will not catch up."""


class Steady:
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


class Window:
    """What one meter counted in each slot of the last length."""

    __slots__ = ("counts", "newest", "total")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Takes what was counted, by slot."""
        self.counts: dict[int, int] = dict(sorted(counts.items())) if counts else {}
        self.total = sum(self.counts.values())
        self.newest = max(self.counts, default=0)
        """The last slot that it was used in."""

    def forget(self, slot: int) -> None:
        """Lets go of what is a whole length old in `slot`."""
        counts = self.counts
        while counts:
            oldest = next(iter(counts))
            if oldest >= slot - SLOTS:
                return
            self.total -= counts.pop(oldest)

    def add(self, slot: int, amount: int) -> None:
        """Counts `amount` in `slot`."""
        if slot in self.counts:
            self.counts[slot] += amount
        else:
            self.forget(slot)
            late = bool(self.counts) and slot < next(reversed(self.counts))
            self.counts[slot] = amount
            if late:
                self.counts = dict(sorted(self.counts.items()))
        self.total += amount
        self.newest = max(self.newest, slot)

    def change(self, slot: int, amount: int) -> None:
        """Counts `amount` more or less in `slot`, if that has not left; never less than nothing."""
        if slot in self.counts:
            amount = max(amount, -self.counts[slot])
            self.counts[slot] += amount
            self.total += amount

    def free_slot(self, room: int) -> int:
        """The first slot in which no more than `room` of what is counted now still counts."""
        left = self.total
        free = 0
        for slot, count in self.counts.items():
            if left <= room:
                break
            left -= count
            free = slot + SLOTS + 1
        return free

    def wait_ms(self, per: Per, asked: int, *, amount: int, now_ms: int) -> int:
        """Until there is room for `asked`, no more than `amount`; 0 if there is now."""
        if not asked or self.total + asked <= amount:
            return 0
        slot_ms = SLOT_MS[per]
        self.forget(now_ms // slot_ms)
        if self.total + asked <= amount:
            return 0
        return self.free_slot(amount - asked) * slot_ms - now_ms

    def reset_ms(self, per: Per, now_ms: int) -> int:
        """Until nothing of what is counted now counts any more."""
        if not self.total:
            return 0
        last = next(reversed(self.counts))
        free_slot = last + SLOTS + 1 if self.counts[last] else self.free_slot(0)
        return free_slot * SLOT_MS[per] - now_ms


Kept = TypeVar("Kept", bound=Window)


class Windows(Generic[Kept]):
    """The windows of all meters that are in use.

    Those that nobody used for the length of their limit are dropped as others come; if there are
    too many all the same, the one that was used longest ago.
    """

    def __init__(self, make: Callable[[], Kept], *, most: int = MAX_METERS) -> None:
        self._make = make
        self._most = most
        self._shelves: dict[Of, dict[Per, OrderedDict[Subject, Kept]]] = {
            of: {per: OrderedDict() for per in get_args(Per)} for of in get_args(Of)
        }

    def __len__(self) -> int:
        return sum(len(shelf) for _, _, shelf in self._each())

    def __iter__(self) -> Iterator[tuple[Meter, Kept]]:
        """All of them; the amounts of these meters mean nothing."""
        for of, per, shelf in self._each():
            limit = Limit(of=of, amount=1, per=per)
            for subject, window in shelf.items():
                yield Meter(subject=subject, limit=limit), window

    def get(self, meter: Meter) -> Kept | None:
        """The window of `meter`, if there is one."""
        limit = meter.limit
        return self._shelves[limit.of][limit.per].get(meter.subject)

    def used(self, meter: Meter, now_ms: int) -> Kept:
        """The window of `meter`, to be used now."""
        limit = meter.limit
        shelf = self._shelves[limit.of][limit.per]
        window = shelf.get(meter.subject)
        slot = now_ms // SLOT_MS[limit.per]
        if window is None:
            self._make_room(now_ms)
            window = shelf[meter.subject] = self._make()
        elif window.newest != slot:
            # So that on each shelf the first is the one that was used longest ago.
            shelf.move_to_end(meter.subject)
        window.newest = max(window.newest, slot)
        return window

    def _make_room(self, now_ms: int) -> None:
        for _, per, shelf in self._each():
            oldest = now_ms // SLOT_MS[per] - SLOTS
            # Two go for one that comes: sooner or later all that are idle are gone.
            for _ in range(2):
                if not shelf or next(iter(shelf.values())).newest >= oldest:
                    break
                shelf.popitem(last=False)
        if len(self) >= self._most:
            shelves = [each for each in self._each() if each[2]]
            _, _, longest_ago = min(shelves, key=_last_used_ms)
            longest_ago.popitem(last=False)

    def _each(self) -> Iterator[tuple[Of, Per, OrderedDict[Subject, Kept]]]:
        for of, shelves in self._shelves.items():
            for per, shelf in shelves.items():
                yield of, per, shelf


def _last_used_ms(shelf: tuple[Of, Per, OrderedDict[Subject, Kept]]) -> int:
    """When that window of a shelf was used that was used longest ago."""
    _, per, windows = shelf
    return next(iter(windows.values())).newest * SLOT_MS[per]
