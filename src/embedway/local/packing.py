"""Decides which texts the model embeds next, and packs them into rows.

A row holds several texts one after another. All rows have one of a few sizes, because OpenVINO
prepares its kernels for each size.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Generic, TypeVar

from embedway.concurrency.group_worker import Group, Job

T = TypeVar("T")
R = TypeVar("R")

IDS_PER_TEXT = 4
"""A row has room for a text for so many ids. Shorter texts are rare."""
ROW_SIZES = (*range(16, 257, 16), 320, 384)
"""The sizes of rows, in ids."""
FULL_SIZES = (128, 384)
"""The sizes to fill while texts are waiting: the smallest that has room for the first text. Larger
ones gain nothing, because the attention of each text looks at its whole row."""
OLDEST_EVERY = 4
"""One of so many rows begins with a text of the request that has waited longest."""
MAX_LOOKED_AT = 64
"""The most requests to look through for texts that fit in what is left of a row."""


def row_size(ids: int, sizes: Sequence[int] = ROW_SIZES) -> int:
    """Return the smallest of `sizes` that has room for so many ids.

    Raises:
        ValueError: None has.
    """
    if ids > sizes[-1]:
        raise ValueError(f"{ids} ids do not fit into a row of {sizes[-1]}.")
    return sizes[bisect_left(sizes, ids)]


class _Tenant(Generic[T, R]):
    """The waiting jobs of one tenant."""

    __slots__ = ("jobs", "served", "turn")

    def __init__(self, served: int) -> None:
        self.jobs: list[tuple[int, int, Job[T, R]]] = []
        """In order, each after a rank and its number. The rank is the power of two of the rows it
        needed when it last began one, so that requests of about the same size keep their order."""
        self.served = served
        """The ids that were taken of its jobs, counted from the least served one when it came."""
        self.turn = 0

    def put(self, number: int, job: Job[T, R]) -> None:
        rows = -(-job.waiting_weight // FULL_SIZES[-1])
        insort(self.jobs, (rows.bit_length(), number, job), key=lambda each: each[:2])

    def next_place(self) -> int:
        """Return the place of the job to begin a row with."""
        self.turn += 1
        if self.turn % OLDEST_EVERY:
            return 0
        return min(range(len(self.jobs)), key=lambda place: self.jobs[place][1])


class RowQueue(Generic[T, R]):
    """A `JobQueue` whose groups fill one row each.

    A row begins with a text of the tenant that was served least. Among its requests, one that needs
    the fewest rows, to a power of two, is first, and the oldest of these. So requests end one after
    another, and small ones overtake large ones. One row in `OLDEST_EVERY` begins with the oldest
    request, so that none waits for ever. What is left of a row goes to the next requests in the
    same order.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant[T, R]] = {}
        """Those with waiting jobs."""
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def add(self, job: Job[T, R]) -> None:
        """Add a job. Its weights are the ids of its items.

        Raises:
            ValueError: An item is longer than every row.
        """
        row_size(max(job.weights))
        job.waiting.sort(key=job.weights.__getitem__)
        self._number += 1
        tenant = self._tenants.get(job.tenant)
        if tenant is None:
            least = min((each.served for each in self._tenants.values()), default=0)
            tenant = self._tenants[job.tenant] = _Tenant[T, R](least)
        tenant.put(self._number, job)

    def remove(self, job: Job[T, R]) -> None:
        """Remove a job if it is waiting."""
        if tenant := self._tenants.get(job.tenant):
            tenant.jobs = [each for each in tenant.jobs if each[2] is not job]
            self._forget_idle()

    def take(self) -> Group[T, R]:
        """Take the texts of the next row, the longest of each request first."""
        row: _Row[T, R] | None = None
        for tenant in sorted(self._tenants.values(), key=lambda each: each.served):
            place = 0
            if row is None:
                place = tenant.next_place()
                row = _Row(tenant.jobs[place][2])
            row.fill(tenant, place)
            if row.is_full:
                break
        self._forget_idle()
        return row.group if row else []

    def _forget_idle(self) -> None:
        for name in [name for name, each in self._tenants.items() if not each.jobs]:
            del self._tenants[name]


class _Row(Generic[T, R]):
    """A row that is being filled."""

    def __init__(self, first: Job[T, R]) -> None:
        """Make it large enough for the longest text of `first`."""
        self.group: Group[T, R] = []
        self._room = row_size(first.weights[first.waiting[-1]], FULL_SIZES)
        self._texts = self._room // IDS_PER_TEXT
        self._looks = MAX_LOOKED_AT

    @property
    def is_full(self) -> bool:
        return not (self._room and self._looks and len(self.group) < self._texts)

    def fill(self, tenant: _Tenant[T, R], place: int) -> None:
        """Take what fits of a tenant's jobs, from the one at `place` on."""
        is_first, jobs = not self.group, tenant.jobs
        while place < len(jobs) and not self.is_full:
            self._looks -= 1
            _, number, job = jobs[place]
            tenant.served += self._take(job)
            if is_first or not job.waiting:
                jobs.pop(place)
            if is_first and job.waiting:
                tenant.put(number, job)  # here or further to the front
            if job.waiting:
                place += 1
            is_first = False

    def _take(self, job: Job[T, R]) -> int:
        """Take what fits of a job, the longest first; return how many ids."""
        before = job.waiting_weight
        while not self.is_full:
            fitting = bisect_right(job.waiting, self._room, key=job.weights.__getitem__)
            if not fitting:
                break
            self.group.append(job.take(fitting - 1))
            self._room -= job.weights[self.group[-1][1]]
        return before - job.waiting_weight
