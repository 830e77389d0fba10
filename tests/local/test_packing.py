"""Texts that wait are packed into rows that are full, and requests end in a fair order."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.concurrency.group_worker import Job
from embedway.local.bert import IDS_PER_TEXT
from embedway.local.packing import OLDEST_EVERY, ROW_SIZES, RowQueue, row_size

Texts = Job[int, None]
"""A request, whose items are the lengths of its texts in ids."""


def jobs(*requests: list[int], tenant: str = "") -> list[Texts]:
    """Return these requests of one tenant."""

    async def make() -> list[Texts]:  # a job needs an event loop for its future
        return [Job(lengths, [*lengths], tenant=tenant) for lengths in requests]

    return asyncio.run(make())


def queue_of(*requests: list[int]) -> tuple[RowQueue[int, None], list[Texts]]:
    """Return a queue with these requests, and the requests."""
    queue, made = RowQueue[int, None](), jobs(*requests)
    for each in made:
        queue.add(each)
    return queue, made


def ends(queue: RowQueue[int, None], requests: list[Texts]) -> list[int]:
    """Empty a queue; return after how many rows each request had all its texts taken."""
    ended: dict[int, int] = {}
    rows = 0
    while queue:
        queue.take()
        rows += 1
        ended |= {id(job): rows for job in requests if not job.waiting and id(job) not in ended}
    return [ended[id(job)] for job in requests]


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(1, ROW_SIZES[-1]), min_size=1, max_size=40), max_size=12))
def test_every_text_is_in_one_row_that_has_room(requests: list[list[int]]) -> None:
    """Each text is taken once, and what is taken together fits into the smallest row for it."""
    queue, made = queue_of(*requests)
    taken: list[tuple[int, int]] = []
    while queue:
        row = queue.take()
        used = sum(job.items[at] for job, at in row)
        size = row_size(max(used, len(row) * IDS_PER_TEXT))
        assert row and size <= ROW_SIZES[-1]
        taken += [(made.index(job), at) for job, at in row]
    expected = [(n, at) for n, each in enumerate(requests) for at in range(len(each))]
    assert sorted(taken) == expected


def test_rows_are_full() -> None:
    """Rows of texts of real lengths have little padding, from one request and from many."""
    chance = random.Random(5)
    lengths = [max(3, min(128, int(chance.lognormvariate(2.6, 0.7)))) for _ in range(3000)]
    for requests in ([lengths], [[each] for each in lengths]):
        queue, _ = queue_of(*requests)
        used = total = 0
        while queue:
            ids = sum(job.items[at] for job, at in queue.take())
            used, total = used + ids, total + row_size(ids)
        assert used / total > 0.97


def test_equal_requests_end_one_after_another() -> None:
    """Requests that need the same end in the order they came in, and the last one no later."""
    ended = ends(*queue_of(*[[40] * 32 for _ in range(32)]))
    assert ended == sorted(ended)
    assert ended[-1] <= 32 * 32 / 3 + 1
    assert sum(ended) / 32 <= 0.6 * ended[-1]


def test_a_small_request_overtakes_a_large_one() -> None:
    """A request for one text that comes after a large one is in the next row or the one after."""
    queue, _ = queue_of([100] * 2048)
    queue.take()
    (small,) = jobs([100])
    queue.add(small)
    queue.take()
    queue.take()
    assert not small.waiting


def test_a_large_request_is_never_starved() -> None:
    """However many small requests come, a large one gets a row of `OLDEST_EVERY`."""
    queue, (large,) = queue_of([128] * 50)
    for _ in range(50 * OLDEST_EVERY):
        for each in jobs([128], [128]):
            queue.add(each)
        queue.take()
    assert not large.waiting


def test_a_removed_request_is_not_taken() -> None:
    """A request that was removed leaves the others as they are."""
    queue, made = queue_of([5] * 3, [6] * 3, [7] * 3)
    queue.remove(made[1])
    queue.remove(made[1])
    taken: list[int] = []
    while queue:
        taken += [job.items[at] for job, at in queue.take()]
    assert sorted(taken) == [5, 5, 5, 7, 7, 7]


def test_tenants_share_equally() -> None:
    """A tenant with one large request waits for no more than its share of a crowd's many."""
    queue, _ = queue_of(*[[128]] * 500)
    (large,) = jobs([128] * 50, tenant="another")
    queue.add(large)
    rows = 0
    while large.waiting:
        queue.take()
        rows += 1
    assert rows <= 101


def test_a_tenant_that_was_away_has_no_credit() -> None:
    """A tenant that sent nothing for long does not hold up those who did."""
    queue, _ = queue_of(*[[128]] * 200)
    for _ in range(100):
        queue.take()
    (late,) = jobs([128] * 50, tenant="another")
    queue.add(late)
    for _ in range(60):
        queue.take()
    assert 15 <= len(late.waiting) <= 25
