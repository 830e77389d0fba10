"""Works on the items of many requests in threads, a group at a time.

Tokenising, inference and ledger commits all work like this: each request waits with a list of
items, a thread takes some of what is waiting as one group, and each request gets its own results.
This module owns the bound of what waits and the way back to the event loop. A `JobQueue` decides
which items are next, and the caller what an item is and how to work on a group.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from embedway.concurrency.threads import THREADS, Threads
from embedway.core.errors import ServiceOverloaded

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[list[T]], Iterable[tuple[Sequence[int], Sequence[R]]]]
"""Works on a group; yields positions in it with their results as soon as it has them."""


class Job(Generic[T, R]):
    """The items of one request."""

    __slots__ = (
        *("future", "items", "missing", "results", "tenant"),
        *("waiting", "waiting_weight", "weights"),
    )

    def __init__(self, items: Sequence[T], weights: list[int], *, tenant: str = "") -> None:
        self.items = items
        self.weights = weights
        self.tenant = tenant
        """Who sent the request, for queues that share between tenants."""
        self.future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self.waiting = list(range(len(items) - 1, -1, -1))
        """The indices of the items not yet taken. The queue takes them, usually the last first."""
        self.waiting_weight = sum(weights)
        """The weight of these items."""
        self.missing = len(items)
        self.results: list[R | None] = [None] * len(items)

    def take(self, place: int = -1) -> tuple["Job[T, R]", int]:
        """Take the item at this place in `waiting`."""
        at = self.waiting.pop(place)
        self.waiting_weight -= self.weights[at]
        return self, at


class _SingleJob(Job[T, R]):
    """A job of one item. Its future gets that item's result rather than a list."""

    __slots__ = ()


Group = list[tuple[Job[T, R], int]]
"""Items to work on together, as jobs and indices in them."""


class JobQueue(Protocol[T, R]):
    """Decides which items are worked on next. Called with the worker's lock held."""

    def __bool__(self) -> bool:
        """Return whether items are waiting."""
        ...

    def add(self, job: Job[T, R]) -> None:
        """Add a job."""
        ...

    def remove(self, job: Job[T, R]) -> None:
        """Remove a job if it is waiting."""
        ...

    def take(self) -> Group[T, R]:
        """Take the next group, at least one item."""
        ...


class EqualShares(Generic[T, R]):
    """A `JobQueue` that takes an equal share of every waiting job in turn.

    So a small job waits for a group or two, never for all of a large job ahead of it.
    """

    def __init__(self, group_weight: int) -> None:
        """Take groups that are full at `group_weight`."""
        self._group_weight = group_weight
        self._jobs: deque[Job[T, R]] = deque()

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Job[T, R]) -> None:
        """Add a job."""
        self._jobs.append(job)

    def remove(self, job: Job[T, R]) -> None:
        """Remove a job if it is waiting."""
        if job in self._jobs:
            self._jobs.remove(job)

    def take(self) -> Group[T, R]:
        """Take the next group."""
        group: Group[T, R] = []
        weight, share = 0, self._group_weight // len(self._jobs)
        while self._jobs and weight < self._group_weight:
            job = self._jobs.popleft()
            before = job.waiting_weight
            group.append(job.take())
            while job.waiting and before - job.waiting_weight < share:
                group.append(job.take())
            weight += before - job.waiting_weight
            if job.waiting:
                self._jobs.append(job)
        return group


class GroupWorker(Generic[T, R]):
    """Threads that work on the items of all waiting jobs in groups."""

    def __init__(
        self,
        work: Work[T, R],
        *,
        name: str,
        queue: JobQueue[T, R],
        max_waiting_weight: int,
        weigh: Callable[[T], int] = lambda _: 1,
        lanes: int = 1,
        threads: Threads = THREADS,
    ) -> None:
        """Start the threads.

        Args:
            work: The function that a thread calls with each group.
            name: The threads' name, also used in messages.
            queue: Decides which items are next.
            max_waiting_weight: The most weight that may wait. A heavier job is accepted if nothing
                else is waiting.
            weigh: Returns the weight of an item.
            lanes: The number of threads, each of which works on a group of its own.
            threads: Starts the threads.
        """
        self._work = work
        self._name = name
        self._queue = queue
        self._max_waiting_weight = max_waiting_weight
        self._weigh = weigh
        self._changed = threads.condition()
        self._closing = False
        self._waking: asyncio.AbstractEventLoop | None = None
        """The event loop that is about to wake a thread."""
        self.waiting_weight = 0
        """The weight of all items not yet taken into a group."""
        self._threads = [threads.start(self._run, name=name) for _ in range(lanes)]

    async def submit(self, items: Sequence[T], *, tenant: str = "") -> list[R]:
        """Return the results of `items`, in order. Cancelling drops the items not yet started.

        Args:
            items: What to work on.
            tenant: Who sent it, for queues that share between tenants.

        Raises:
            ServiceOverloaded: Too much is waiting, or the worker is closing.
        """
        if not items:
            return []
        weights = [self._weigh(item) for item in items]
        job: Job[T, R] = Job(items, weights, tenant=tenant)
        self._enqueue(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._drop(job)
            raise

    def put(self, item: T) -> asyncio.Future[R]:
        """Queue one item and return a future of its result.

        Cancelling the future does not remove the item from the queue.

        Raises:
            ServiceOverloaded: Too much is waiting, or the worker is closing.
        """
        # A call of `_SingleJob[T, R]` would take a hundredth of a small request's time.
        job: _SingleJob[T, R] = _SingleJob((item,), [self._weigh(item)])
        self._enqueue(job)
        return job.future  # pyright: ignore[reportReturnType]  # `_settle` gives it one result

    def _enqueue(self, job: Job[T, R]) -> None:
        total = job.waiting_weight
        with self._changed:
            full = self.waiting_weight and self.waiting_weight + total > self._max_waiting_weight
            if full or self._closing:
                raise ServiceOverloaded(
                    f"Too much work is waiting ({self._name}). Try again shortly."
                )
            self._queue.add(job)
            self.waiting_weight += total
        loop = job.future.get_loop()
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Wake a thread, once for all jobs of one turn of the event loop."""
        self._waking = None
        with self._changed:
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        """Whether the threads are running."""
        return all(each.is_alive() for each in self._threads)

    def close(self) -> None:
        """Finish the waiting jobs and end the threads. Blocks until they have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for each in self._threads:
            each.join()

    def _drop(self, job: Job[T, R]) -> None:
        with self._changed:
            self._queue.remove(job)
            self.waiting_weight -= job.waiting_weight
            job.waiting.clear()
            job.waiting_weight = 0

    def _run(self) -> None:
        while group := self._take():
            unanswered = set(range(len(group)))
            try:
                for positions, results in self._work([job.items[at] for job, at in group]):
                    answered = set(positions)
                    once = len(answered) == len(positions) == len(results)
                    if not (once and answered <= unanswered):
                        raise RuntimeError(f"{self._name} did not answer each item once")
                    self._answer([group[position] for position in positions], results)
                    unanswered -= answered
                if unanswered:
                    raise RuntimeError(f"{self._name} left {len(unanswered)} items unanswered")
            except BaseException as error:  # noqa: BLE001  # a background task's top: the jobs get it
                # A panic in Rust is not an Exception; without a wrapper, it would end the caller.
                known = isinstance(error, Exception)
                failure = error if known else RuntimeError(f"{self._name} failed: {error!r}")
                self._fail({id(group[at][0]): group[at][0] for at in unanswered}, failure)

    def _take(self) -> Group[T, R]:
        """Return the next group; empty once closed and drained."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            group = self._queue.take() if self._queue else []
            self.waiting_weight -= sum(job.weights[at] for job, at in group)
            if self._queue or self._closing:
                self._changed.notify()  # there is something to do for another thread
        return group

    def _answer(self, answered: Group[T, R], results: Sequence[R]) -> None:
        done: list[Job[T, R]] = []
        with self._changed:
            for (job, at), result in zip(answered, results, strict=True):
                job.results[at] = result
                job.missing -= 1
                if not job.missing:
                    done.append(job)
        if done:
            # Wake the loop once for all finished jobs.
            self._to_loop(done[0], lambda: [_settle(job) for job in done])

    def _fail(self, jobs: dict[int, Job[T, R]], error: Exception) -> None:
        for job in jobs.values():
            self._drop(job)
            self._to_loop(job, lambda job=job: _settle(job, error))

    @staticmethod
    def _to_loop(job: Job[T, R], callback: Callable[[], object]) -> None:
        loop = job.future.get_loop()
        # After the loop is closed, nothing waits for the result.
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)


def _settle(job: "Job[T, R]", error: Exception | None = None) -> None:
    if job.future.done():
        return
    if error is None:
        result = job.results[0] if isinstance(job, _SingleJob) else job.results
        job.future.set_result(result)  # pyright: ignore[reportArgumentType]  # none missing
    else:
        job.future.set_exception(error)
