"""The store of batches, on both databases: one worker at a time, and nothing is stored twice."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import pytest
from sqlalchemy import Engine

from embedway.batches.job import BatchJob, Submitter
from embedway.batches.store import LEASE_MS, BatchStore, LeaseLost
from embedway.core.errors import NotFound
from embedway.files.file import Segment, StoredFile

BATCH = BatchJob(
    id="batch_" + "1" * 24,
    project_id="p",
    submitter=Submitter(key_id="k", scopes=("embeddings",), on_behalf_of=None),
    metadata={},
    input_file_id="file-1",
    output_file_id="file-2",
    error_file_id="file-3",
    output_expires_s=None,
    status="in_progress",
    created_ms=1,
    expires_ms=10**12,
)
SEGMENT = Segment(file_id="file-2", number=0, path="file-2/0", bytes=5)
FILE = StoredFile(
    id="file-2",
    project_id="p",
    name="out",
    purpose="batch_output",
    bytes=5,
    state="ready",
    created_ms=1,
    expires_ms=None,
)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """Return a clock that tests set."""
    return Clock()


@pytest.fixture
def open_store(any_database: Engine, clock: Clock) -> Iterator[Callable[[str], BatchStore]]:
    """Return a function that opens the store of a worker."""
    opened: list[BatchStore] = []

    def open_one(worker: str) -> BatchStore:
        opened.append(BatchStore(any_database, worker=worker, now_ms=clock))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_one_worker_at_a_time(open_store: Callable[[str], BatchStore], clock: Clock) -> None:
    """A batch has one worker, until its lease ends or it releases it; others can write nothing."""

    async def run() -> None:
        one, two = open_store("one"), open_store("two")
        await one.add(BATCH)
        claimed = await asyncio.gather(*(each.claim() for each in (one, two) * 4))
        [first] = [each for each in claimed if each]
        owner, other = (one, two) if first.worker == "one" else (two, one)
        for act in (other.renew(BATCH.id), other.save(first)):
            with pytest.raises(LeaseLost):
                await act
        await other.release(BATCH.id)  # it is not its own
        clock.ms += LEASE_MS - 1
        assert await other.claim() is None
        assert await owner.renew(BATCH.id) == "in_progress"
        clock.ms += LEASE_MS
        assert await other.claim()
        with pytest.raises(LeaseLost):
            await owner.save(first)
        await other.release(BATCH.id)
        assert await owner.claim(without=["p"]) is None
        assert await owner.claim()

    asyncio.run(run())


def test_saved_once(open_store: Callable[[str], BatchStore]) -> None:
    """What is saved again, because its commit was in doubt, is there once."""

    async def run() -> None:
        store = open_store("one")
        await store.add(BATCH)
        claimed = await store.claim()
        assert claimed
        further = msgspec.structs.replace(claimed, next_line=5, completed=4)
        done = msgspec.structs.replace(further, status="completed")
        for _ in range(2):
            await store.save(further, segments=[SEGMENT])
        assert await store.count_bytes("file-2") == 5
        for _ in range(2):
            await store.save(done, files=[FILE])
        assert (await store.get("p", BATCH.id)).status == "completed"
        assert await store.claim() is None

    asyncio.run(run())


def test_cancellation_stays(open_store: Callable[[str], BatchStore]) -> None:
    """A client's wish to cancel is not overwritten by the worker's progress."""

    async def run() -> None:
        store = open_store("one")
        await store.add(BATCH)
        claimed = await store.claim()
        assert claimed
        await store.request_cancel(BATCH.id)
        await store.save(
            msgspec.structs.replace(claimed, next_line=5, reached_ms={"in_progress": 1}),
            segments=[SEGMENT],
        )
        saved = await store.get("p", BATCH.id)
        assert (saved.status, saved.next_line) == ("cancelling", 5)
        assert set(saved.reached_ms) == {"in_progress", "cancelling"}
        assert await store.renew(BATCH.id) == "cancelling"
        await store.save(msgspec.structs.replace(saved, status="cancelled"))
        await store.request_cancel(BATCH.id)
        assert (await store.get("p", BATCH.id)).status == "cancelled"

    asyncio.run(run())


@pytest.mark.parametrize("id", ["batch_" + "2" * 24, "", "x\0", "'", BATCH.id.upper()])
def test_not_found(open_store: Callable[[str], BatchStore], id: str) -> None:
    """Other ids, and those of other projects, are not found."""

    async def run() -> None:
        store = open_store("one")
        await store.add(BATCH)
        for project in ("p", "q"):
            with pytest.raises(NotFound):
                await store.get(project, id)
        with pytest.raises(NotFound):
            await store.get("q", BATCH.id)

    asyncio.run(run())
