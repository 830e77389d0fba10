"""The windows of all limits in use, in memory that several processes share.

A process that is killed leaves nothing half done: the system returns its lock, and what it was
writing is in a journal, which the next process to take the lock writes again.
"""

import fcntl
import mmap
import os
import tempfile
from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from embedway.core.errors import ServiceOverloaded
from embedway.core.limit import SLOT_MS, SLOTS
from embedway.core.subject import Subject
from embedway.ratelimits.limiter import LimitKey
from embedway.ratelimits.window import MAX_WINDOWS, SlidingWindow, SteadyClock

# The memory is an array of integers of 64 bits. First comes the head, one integer each:
_CLOCK = 0
"""The latest time that a process has seen, in ms."""
_USERS = 1
"""How many windows of end users there are."""
_PROJECTS = 2
"""How many projects have windows of end users."""
_TOP = 3
"""How many records were ever in use."""
_FREE = 4
"""The first of the records that are free again; 0 if there are none."""
_CURSOR = 5
"""The record at which the search for idle windows goes on."""
_PENDING = 6
"""1 while the journal holds something that may not be written yet."""
_JOURNAL = 64
_JOURNAL_SIZE = 8192
# Then the first record of each chain of records whose keys have the same hash; 0 if there is none.
_CHAINS = _JOURNAL + _JOURNAL_SIZE
_CHAIN_COUNT = 2**17
# Then the records, from number 1 on. A record is a window, or counts the windows of a project.
_RECORDS = _CHAINS + _CHAIN_COUNT
_MAX_RECORDS = 2**19
_MAX_SLOTS = SLOTS + 1
"""The most slots of a window that have not expired."""
_KEY, _NEXT, _OWNER, _IDLE_MS, _NEWEST, _COUNT, _SLOTS = 0, 2, 3, 4, 5, 6, 7
_RECORD_SIZE = _SLOTS + 3 * _MAX_SLOTS
_NEVER = 2**62
_SIZE = 8 * (_RECORDS + _RECORD_SIZE * (_MAX_RECORDS + 1))

_LOOKED_AT = 4096
"""How many records to search for idle windows when a window is added."""
_DROPPED = 8
"""The most windows to drop then, so that no process holds the lock for long."""

Record = int
"""The number of a record."""


def create_memory() -> int:
    """Return the descriptor of new memory for `SharedWindows`, for this process and its children.

    It reserves 270 MiB of addresses, and takes only as much memory as there are windows.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("embedway-limits")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _SIZE)
    return descriptor


class SharedWindows:
    """The windows in shared memory. All methods but `peek` need the lock: use `locked`."""

    def __init__(
        self, descriptor: int, *, now_ms: Callable[[], int], max_windows: int = MAX_WINDOWS
    ) -> None:
        """Open the memory that `create_memory` made.

        Args:
            descriptor: The memory. No other part of this process may open it.
            now_ms: A clock in ms that all processes read alike, as the system's monotonic one.
            max_windows: The most windows of end users, unless projects share them unevenly.
        """
        self._descriptor = descriptor
        self._now_ms = SteadyClock(now_ms)
        self._max_windows = max_windows
        memory = mmap.mmap(descriptor, _SIZE)
        self._numbers = memoryview(memory).cast("q")
        records = np.frombuffer(memory, np.int64, offset=8 * _RECORDS)
        self._idle_ms = records.reshape(-1, _RECORD_SIZE)[:, _IDLE_MS]

    def __len__(self) -> int:
        return int(np.count_nonzero(self._idle_ms[1 : self._numbers[_TOP] + 1] < _NEVER))

    @contextmanager
    def locked(self) -> Generator[int]:
        """Keep all other processes out, and give the time in ms, which never goes back.

        The lock is held for microseconds, so waiting for it may block.
        """
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)
        try:
            numbers = self._numbers
            if numbers[_PENDING]:
                self._redo()
            now_ms = max(self._now_ms(), numbers[_CLOCK])
            numbers[_CLOCK] = now_ms
            yield now_ms
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)

    def peek(self, keys: Sequence[LimitKey]) -> tuple[list[SlidingWindow | None], int]:
        """Return the windows of limits, or None, and the time in ms, without the lock.

        A window that another process is just changing may be half old and half new.
        """
        windows = [self.get(key) for key in keys]
        return windows, max(self._now_ms(), self._numbers[_CLOCK])

    def find(self, key: LimitKey) -> Record:
        """Return the record of a limit's window; 0 if it has none."""
        return self._find(*_digest_of_limit(key))

    def get(self, key: LimitKey) -> SlidingWindow | None:
        """Return a copy of a limit's window, or None."""
        record = self.find(key)
        return self.load(record, key) if record else None

    def load(self, record: Record, key: LimitKey) -> SlidingWindow:
        """Return a copy of the window in a record."""
        numbers, at = self._numbers, _place(record)
        window = SlidingWindow(key.limit.per)
        end = at + _SLOTS + 3 * numbers[at + _COUNT]
        values = numbers[at + _SLOTS : end].tolist()
        counts = values[1::3]
        window.counts = dict(zip(values[0::3], counts, strict=True))
        window.last_used_ms = dict(zip(values[0::3], values[2::3], strict=True))
        window.total = sum(counts)
        window.newest_slot = numbers[at + _NEWEST]
        return window

    def save(self, windows: Sequence[tuple[Record, LimitKey, SlidingWindow]], now_ms: int) -> None:
        """Write all of these windows, or none if the process is killed meanwhile."""
        changes: list[tuple[int, list[int]]] = []
        for record, key, window in windows:
            window.forget(now_ms)
            idle_ms = _idle_ms(window.newest_slot, SLOT_MS[key.limit.per])
            values = [idle_ms, window.newest_slot, len(window.counts)]
            last_used_ms = window.last_used_ms
            for slot, count in window.counts.items():
                values += (slot, count, last_used_ms[slot])
            changes.append((_place(record) + _IDLE_MS, values))
        self._write(changes)

    def has_room(self, key: LimitKey, now_ms: int) -> bool:
        """Whether the limit has a window or can get one, as `WindowTable.has_room` says."""
        del now_ms
        if key.subject.kind != "end user" or self.find(key):
            return True
        numbers = self._numbers
        if numbers[_USERS] < self._max_windows:
            return True
        owner = self._find(*_digest_of_project(key.subject.project_id))
        held = numbers[_place(owner) + _COUNT] if owner else 0
        projects = numbers[_PROJECTS] + (not owner)
        return held < max(self._max_windows // projects, 1)

    def create(self, key: LimitKey, now_ms: int) -> Record:
        """Make a record with an empty window for a limit that has none. Call `has_room` first.

        Raises:
            ServiceOverloaded: The memory is full.
        """
        change = _Change(self._numbers)
        owner = 0
        if key.subject.kind == "end user":
            digest = _digest_of_project(key.subject.project_id)
            owner = self._find(*digest)
            if not owner:
                owner = self._add(change, digest, idle_ms=_NEVER)
                change.add(_PROJECTS, 1)
            change.add(_place(owner) + _COUNT, 1)
            change.add(_USERS, 1)
        slot_ms = SLOT_MS[key.limit.per]
        idle_ms = _idle_ms(now_ms // slot_ms, slot_ms)
        record = self._add(change, _digest_of_limit(key), idle_ms=idle_ms, owner=owner)
        self._write(change.list())
        return record

    def drop_idle(self, now_ms: int) -> None:
        """Drop a few windows that were not used for a whole period.

        Each call looks on where the last one ended, so idle ones are all gone sooner or later.
        """
        numbers = self._numbers
        end = numbers[_TOP] + 1
        first = numbers[_CURSOR] if 0 < numbers[_CURSOR] < end else 1
        left = _LOOKED_AT
        for start, stop in ((first, min(first + left, end)), (1, first)):
            last = min(stop, start + left)
            idle = np.flatnonzero(self._idle_ms[start:last] <= now_ms)[:_DROPPED] + start
            for record in idle.tolist():
                self._drop(record)
            numbers[_CURSOR] = last
            left -= last - start
            if idle.size:
                break

    def _find(self, high: int, low: int) -> Record:
        numbers = self._numbers
        record = numbers[_CHAINS + low % _CHAIN_COUNT]
        for _ in range(_MAX_RECORDS):  # without the lock, a chain may seem to have no end
            at = _place(record)
            if not record or (numbers[at] == high and numbers[at + 1] == low):
                return record
            record = numbers[at + _NEXT]
        return 0

    def _add(
        self, change: "_Change", digest: tuple[int, int], *, idle_ms: int, owner: Record = 0
    ) -> Record:
        record = change.get(_FREE)
        if record:
            change.set(_FREE, change.get(_place(record) + _NEXT))
        else:
            record = change.get(_TOP) + 1
            if record > _MAX_RECORDS:
                raise ServiceOverloaded(
                    "This gateway counts the limits of too many end users. Limit them per minute "
                    "or hour instead of per day, so that they are counted for a shorter time."
                )
            change.set(_TOP, record)
        chain, at = _CHAINS + digest[1] % _CHAIN_COUNT, _place(record)
        fields = (*digest, change.get(chain), owner, idle_ms, 0, 0)
        for offset, value in enumerate(fields):
            change.set(at + offset, value)
        change.set(chain, record)
        return record

    def _drop(self, record: Record) -> None:
        change = _Change(self._numbers)
        owner = change.get(_place(record) + _OWNER)
        self._remove(change, record)
        if owner:
            change.add(_USERS, -1)
            count = _place(owner) + _COUNT
            change.add(count, -1)
            if not change.get(count):
                self._remove(change, owner)
                change.add(_PROJECTS, -1)
        self._write(change.list())

    def _remove(self, change: "_Change", record: Record) -> None:
        at = _place(record)
        link = _CHAINS + change.get(at + 1) % _CHAIN_COUNT
        while (linked := change.get(link)) != record:
            link = _place(linked) + _NEXT
        change.set(link, change.get(at + _NEXT))
        change.set(at + _NEXT, change.get(_FREE))
        change.set(at + _IDLE_MS, _NEVER)
        change.set(_FREE, record)

    def _write(self, changes: Sequence[tuple[int, list[int]]]) -> None:
        """Write all changes, each a place and its new values, as one."""
        numbers = self._numbers
        journal = [len(changes)]
        for at, values in changes:
            journal += (at, len(values))
            journal += values
        numbers[_JOURNAL : _JOURNAL + len(journal)] = array("q", journal)
        numbers[_PENDING] = 1
        for at, values in changes:
            numbers[at : at + len(values)] = array("q", values)
        numbers[_PENDING] = 0

    def _redo(self) -> None:
        """Write what is in the journal, because the process that was writing it was killed."""
        numbers, read = self._numbers, _JOURNAL + 1
        for _ in range(numbers[_JOURNAL]):
            at, length = numbers[read], numbers[read + 1]
            numbers[at : at + length] = numbers[read + 2 : read + 2 + length]
            read += 2 + length
        numbers[_PENDING] = 0


class _Change:
    """New values of single numbers, which are seen here before they are written."""

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers
        self._new: dict[int, int] = {}

    def get(self, at: int) -> int:
        return self._new[at] if at in self._new else self._numbers[at]

    def set(self, at: int, value: int) -> None:
        self._new[at] = value

    def add(self, at: int, amount: int) -> None:
        self._new[at] = self.get(at) + amount

    def list(self) -> list[tuple[int, list[int]]]:
        return [(at, [value]) for at, value in self._new.items()]


def _idle_ms(newest_slot: int, slot_ms: int) -> int:
    """Return the time from which a window that was last used in a slot is idle."""
    return (newest_slot + SLOTS + 1) * slot_ms


def _place(record: Record) -> int:
    return _RECORDS + _RECORD_SIZE * record


@lru_cache(maxsize=16_384)
def _digest_of_limit(key: LimitKey) -> tuple[int, int]:
    limit = key.limit
    return _digest(f"{limit.of}/{limit.per}/{key.subject}")


def _digest_of_project(id: str) -> tuple[int, int]:
    return _digest(f"users of/{Subject(kind='project', id=id, project_id=id)}")


def _digest(name: str) -> tuple[int, int]:
    # A digest, because a client may choose any id for its end users, however long.
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    high, low = memoryview(digest).cast("q")
    return high, low
