"""Keeps batches in the database, and says which process works on which.

A process that works on a batch holds a lease on it and renews it. Everything it writes is written
only if it still holds it, so two processes never answer the same line.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update

from embedway.batches.job import UNFINISHED, BatchJob, BatchStatus
from embedway.core.errors import NotFound, quote_text
from embedway.core.page import Page
from embedway.files.file import Segment, StoredFile
from embedway.files.store import add_file, add_segments, count_segments
from embedway.storage import pages, records
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import locked_transaction
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import batches

LEASE_MS = 15_000
"""How long a lease lasts. It is renewed long before."""

_ID = re.compile(r"batch_[0-9a-f]{24}")

Done = TypeVar("Done")


class LeaseLost(Exception):
    """Another process may work on the batch now, so nothing was written."""


class BatchStore:
    """The batches of all projects. Coroutines raise `StorageUnavailable` if the database fails."""

    def __init__(
        self,
        engine: Engine,
        *,
        worker: str,
        now_ms: Callable[[], int],
        availability: DatabaseAvailability | None = None,
    ) -> None:
        """Take leases in the name of `worker`, this process."""
        self._engine = engine
        self._worker = worker
        self._now_ms = now_ms
        unavailable = "Batches cannot be looked up right now. Try again."
        self._reads = QueryThreads(
            "batches-read", use="read", availability=availability, unavailable=unavailable
        )
        self._writes = QueryThreads(
            "batches", use="commit", availability=availability, unavailable=unavailable
        )

    async def add(self, batch: BatchJob) -> None:
        """Store a new batch."""
        row = records.to_row(batch)
        await self._write(
            batch.id, lambda connection: connection.execute(insert(batches).values(row))
        )

    async def get(self, project_id: str, id: str) -> BatchJob:
        """Return a batch of a project.

        Raises:
            NotFound: The project has no such batch.
        """
        batch = None
        if _ID.fullmatch(id):  # Postgres would refuse some of all others
            batch = await self._read(lambda connection: _find(connection, id))
        if batch is None or batch.project_id != project_id:
            shown = quote_text(id) if _ID.fullmatch(id) else "of this id"
            raise NotFound(f"There is no batch {shown}.", param="batch_id")
        return batch

    async def list_batches(
        self, project_id: str, *, after: str | None, limit: int
    ) -> Page[BatchJob]:
        """Return a page of a project's batches, newest first.

        Raises:
            InvalidRequest: The project has no batch `after`.
        """
        return await self._read(
            lambda connection: pages.read_page(
                connection,
                select(batches).where(batches.c.project_id == project_id),
                type=BatchJob,
                by=(batches.c.created_ms, batches.c.id),
                after=after,
                limit=limit,
                descending=True,
            )
        )

    async def request_cancel(self, id: str) -> None:
        """Ask the process that works on a batch to end it, unless it is ending already."""

        def cancel(connection: Connection) -> None:
            batch = _find(connection, id)
            if batch and batch.status in {"validating", "in_progress"}:
                reached_ms = {**batch.reached_ms, "cancelling": self._now_ms()}
                statement = update(batches).where(batches.c.id == id)
                connection.execute(statement.values(status="cancelling", reached_ms=reached_ms))

        await self._write(id, cancel)

    async def claim(self, *, without: Collection[str] = ()) -> BatchJob | None:
        """Take the lease on the oldest batch that no process works on, and return it, or None.

        Those of the projects `without` are left to others.

        Process ids are never used twice, so a process that starts again gets its own batches only
        after their leases have ended.
        """
        free = select(batches).where(
            batches.c.status.in_(UNFINISHED),
            batches.c.lease_ms <= self._now_ms(),
            batches.c.project_id.not_in(without),
        )

        def find(connection: Connection) -> BatchJob | None:
            row = connection.execute(free.order_by(batches.c.created_ms).limit(1)).mappings()
            found = row.first()
            return records.from_row(found, BatchJob) if found else None

        while batch := await self._read(find):
            taken = msgspec.structs.replace(
                batch, worker=self._worker, lease_ms=self._now_ms() + LEASE_MS
            )

            def take(
                connection: Connection, before: BatchJob = batch, after: BatchJob = taken
            ) -> bool:
                if _find(connection, before.id) != before:
                    return False
                self._change(connection, before.id, worker=after.worker, lease_ms=after.lease_ms)
                return True

            if await self._write(batch.id, take):
                return taken
        return None

    async def renew(self, id: str) -> BatchStatus:
        """Renew the lease on a batch, and return its status.

        Raises:
            LeaseLost: Another process has taken it.
        """

        def renew(connection: Connection) -> BatchStatus:
            batch = self._held(connection, id)
            self._change(connection, id, lease_ms=self._now_ms() + LEASE_MS)
            return batch.status

        return await self._write(id, renew)

    async def release(self, id: str, *, after_ms: int = 0) -> None:
        """Let any process claim a batch, `after_ms` from now, unless another one has taken it."""
        lease_ms = self._now_ms() + after_ms

        def release(connection: Connection) -> None:
            with suppress(LeaseLost):
                self._held(connection, id)
                self._change(connection, id, lease_ms=lease_ms)

        await self._write(id, release)

    async def save(
        self,
        batch: BatchJob,
        *,
        segments: Sequence[Segment] = (),
        files: Sequence[StoredFile] = (),
    ) -> None:
        """Store how far a batch has come, and what was written for it since, or nothing of it.

        A client may have asked for its cancellation meanwhile. That stays until the batch ends.
        Calling it again with the same values changes nothing, so it can be called again if it is
        not known whether it succeeded.

        Raises:
            LeaseLost: Another process has taken the batch.
        """
        row = records.to_row(batch)
        del row["id"], row["lease_ms"]

        def save(connection: Connection) -> None:
            known = self._held(connection, batch.id)
            is_saved = (
                known.next_line == batch.next_line if segments else known.status == batch.status
            )
            if is_saved and (segments or files):
                return
            row["reached_ms"] = {**known.reached_ms, **batch.reached_ms}
            if known.status == "cancelling" and batch.status in UNFINISHED:
                row["status"] = known.status
            self._change(connection, batch.id, **row)
            add_segments(connection, segments)
            for file in files:
                add_file(connection, file)

        await self._write(batch.id, save)

    async def count_segments(self, file_id: str) -> int:
        """Return how many segments a file has."""
        return await self._read(lambda connection: count_segments(connection, file_id)[0])

    async def count_bytes(self, file_id: str) -> int:
        """Return how many bytes the segments of a file have."""
        return await self._read(lambda connection: count_segments(connection, file_id)[1])

    def with_status(self, batch: BatchJob, status: BatchStatus) -> BatchJob:
        """Return the batch with a status that begins now."""
        reached_ms = {**batch.reached_ms, status: self._now_ms()}
        return msgspec.structs.replace(batch, status=status, reached_ms=reached_ms)

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._reads.close()
        self._writes.close()

    def _held(self, connection: Connection, id: str) -> BatchJob:
        batch = _find(connection, id)
        if batch is None or batch.worker != self._worker:
            raise LeaseLost
        return batch

    def _change(self, connection: Connection, id: str, **values: object) -> None:
        connection.execute(update(batches).where(batches.c.id == id).values(values))

    async def _read(self, find: Callable[[Connection], Done]) -> Done:
        return await self._reads.read(self._engine, find)

    async def _write(self, id: str, change: Callable[[Connection], Done]) -> Done:
        """Change one batch, while no other process can change it."""

        def write() -> Done:
            with locked_transaction(self._engine, lock=f"batch {id}") as connection:
                return change(connection)

        return await self._writes.run(write)


def _find(connection: Connection, id: str) -> BatchJob | None:
    row = connection.execute(select(batches).where(batches.c.id == id)).mappings().first()
    return records.from_row(row, BatchJob) if row else None
