"""Works on the items of many requests in one thread, a group at a time.

Tokenising, inference and ledger commits all work like this: each request waits with a list of
items, one thread takes what is waiting as one group, and each request gets its own results. This
module owns the queue, its bound, its fairness and the way back to the event loop; the caller
decides what an item is and how to work on a group.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from embedway.concurrency.threads import THREADS, Threads
from embedway.core.errors import ServiceOverloaded

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[list[T]], Iterable[tuple[Sequence[int], Sequence[R]]]]
"""Works on a group; yields positions in it with their results as soon as it has them."""


class _Job(Generic[T, R]):
    __slots__ = ("future", "items", "missing", "results", "taken", "weights")

    def __init__(self, items: Sequence[T], weights: list[int]) -> None:
        self.items = items
        self.weights = weights
        self.future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self.taken = 0
        self.missing = len(items)
        self.results: list[R | None] = [None] * len(items)


class _SingleJob(_Job[T, R]):
    """A job of one item. Its future gets that item's result rather than a list."""

    __slots__ = ()


class GroupWorker(Generic[T, R]):
    """A thread that works on the items of all waiting jobs in groups of bounded weight.

    A group takes an equal share of every waiting job in turn, so a small job waits for a group or
    two, never for all of a large job ahead of it.
    """

    def __init__(
        self,
        work: Work[T, R],
        *,
        name: str,
        group_weight: int,
        max_waiting_weight: int,
        weigh: Callable[[T], int] = lambda _: 1,
        threads: Threads = THREADS,
    ) -> None:
        """Start the thread.

        Args:
            work: The function that the thread calls with each group.
            name: The thread's name, also used in messages.
            group_weight: The weight at which a group is full.
            max_waiting_weight: The most weight that may wait. A heavier job is accepted if nothing
                else is waiting.
            weigh: Returns the weight of an item.
            threads: Starts the thread.
        """
        self._work = work
        self._name = name
        self._group_weight = group_weight
        self._max_waiting_weight = max_waiting_weight
        self._weigh = weigh
        self._jobs: deque[_Job[T, R]] = deque()
        self._changed = threads.condition()
        self._closing = False
        self._waking: asyncio.AbstractEventLoop | None = None
        """The event loop that is about to wake the thread."""
        self.waiting_weight = 0
        """The weight of all items not yet taken into a group."""
        self._thread = threads.start(self._run, name=name)

    async def submit(self, items: Sequence[T]) -> list[R]:
        """Return the results of `items`, in order. Cancelling drops the items not yet started.

        Raises:
            ServiceOverloaded: Too much is waiting, or the worker is closing.
        """
        if not items:
            return []
        job = _Job[T, R](items, [self._weigh(item) for item in items])
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
        job = _SingleJob[T, R]((item,), [self._weigh(item)])
        self._enqueue(job)
        return job.future  # pyright: ignore[reportReturnType]  # `_settle` gives it one result

    def _enqueue(self, job: _Job[T, R]) -> None:
        total = sum(job.weights)
        with self._changed:
            full = self.waiting_weight and self.waiting_weight + total > self._max_waiting_weight
            if full or self._closing:
                raise ServiceOverloaded(
                    f"Too much work is waiting ({self._name}). Try again shortly."
                )
            self._jobs.append(job)
            self.waiting_weight += total
        loop = job.future.get_loop()
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Wake the thread, once for all jobs of one turn of the event loop."""
        self._waking = None
        with self._changed:
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish the waiting jobs and end the thread. Blocks until it has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, job: _Job[T, R]) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self.waiting_weight -= sum(job.weights[job.taken :])

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

    def _take(self) -> list[tuple[_Job[T, R], int]]:
        """Return the next group as (job, item index) pairs; empty once closed and drained."""
        group: list[tuple[_Job[T, R], int]] = []
        weight = 0
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            share = self._group_weight // max(1, len(self._jobs))
            while self._jobs and weight < self._group_weight:
                job = self._jobs.popleft()
                turn = 0
                while job.taken < len(job.items) and (turn == 0 or turn < share):
                    group.append((job, job.taken))
                    turn += job.weights[job.taken]
                    job.taken += 1
                weight += turn
                if job.taken < len(job.items):
                    self._jobs.append(job)
            self.waiting_weight -= weight
        return group

    def _answer(self, answered: list[tuple[_Job[T, R], int]], results: Sequence[R]) -> None:
        done: list[_Job[T, R]] = []
        for (job, at), result in zip(answered, results, strict=True):
            job.results[at] = result
            job.missing -= 1
            if not job.missing:
                done.append(job)
        if done:
            # Wake the loop once for all finished jobs.
            self._to_loop(done[0], lambda: [_settle(job) for job in done])

    def _fail(self, jobs: dict[int, _Job[T, R]], error: Exception) -> None:
        for job in jobs.values():
            self._drop(job)
            self._to_loop(job, lambda job=job: _settle(job, error))

    @staticmethod
    def _to_loop(job: _Job[T, R], callback: Callable[[], object]) -> None:
        loop = job.future.get_loop()
        # After the loop is closed, nothing waits for the result.
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)


def _settle(job: "_Job[T, R]", error: Exception | None = None) -> None:
    if job.future.done():
        return
    if error is None:
        result = job.results[0] if isinstance(job, _SingleJob) else job.results
        job.future.set_result(result)  # pyright: ignore[reportArgumentType]  # none missing
    else:
        job.future.set_exception(error)
