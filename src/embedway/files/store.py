"""Stores files: their records in the database, their content in the object store.

A file is written as segments. Its record exists before its first segment, and outlives the last
one, so that whatever a process that died has left is found and deleted later.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from embedway.core import ids
from embedway.core.errors import FilesUnavailable, InvalidRequest, NotFound, quote_text
from embedway.core.page import Page
from embedway.files.file import Purpose, Segment, StoredFile, new_file_id
from embedway.files.objects import ObjectStore
from embedway.storage import pages, records
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import locked_transaction
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import file_segments, files

SEGMENT_BYTES = 8 * 2**20
"""How much of a file to hold in memory and to write at a time."""
UPLOAD_MS = 6 * 3_600_000
"""Uploads that are not complete after this time are deleted."""
REMOVALS = 100
"""The most files to delete in one go."""

_ID = re.compile(r"file-[0-9a-f]{24}")

Order = Literal["asc", "desc"]
Done = TypeVar("Done")


class FileStore:
    """The files of all projects.

    Coroutines raise `StorageUnavailable` if the database fails, and `FilesUnavailable` if the
    object store does.
    """

    def __init__(
        self,
        engine: Engine,
        objects: ObjectStore,
        *,
        now_ms: Callable[[], int],
        availability: DatabaseAvailability | None = None,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._now_ms = now_ms
        unavailable = "Files cannot be looked up right now. Try again."
        self._reads = QueryThreads(
            "files-read", use="read", availability=availability, unavailable=unavailable
        )
        self._writes = QueryThreads(
            "files", use="commit", availability=availability, unavailable=unavailable
        )

    async def begin_upload(self, project_id: str, *, purpose: Purpose) -> StoredFile:
        """Make the record of a file whose content is about to arrive, and with it its name."""
        now_ms = self._now_ms()
        file = StoredFile(
            id=new_file_id(),
            project_id=project_id,
            name="",
            purpose=purpose,
            bytes=0,
            state="uploading",
            created_ms=now_ms,
            expires_ms=now_ms + UPLOAD_MS,
        )
        await self._write(lambda connection: add_file(connection, file))
        return file

    async def finish_upload(
        self,
        file: StoredFile,
        segments: Sequence[Segment],
        *,
        name: str,
        expires_s: int | None,
        max_project_bytes: int,
    ) -> StoredFile:
        """Make an uploaded file visible.

        Args:
            file: What `begin_upload` returned.
            segments: Its segments, which are written.
            name: The name that the client gave it.
            expires_s: After how many seconds it is deleted; None if only on demand.
            max_project_bytes: The most bytes that all files of its project may have.

        Raises:
            InvalidRequest: The project would have more.
        """
        expires_ms = None if expires_s is None else file.created_ms + 1000 * expires_s
        done = msgspec.structs.replace(
            file,
            name=name,
            bytes=sum(each.bytes for each in segments),
            state="ready",
            expires_ms=expires_ms,
        )

        def finish() -> None:
            lock = f"files of {file.project_id}"
            with locked_transaction(self._engine, lock=lock) as connection:
                stored = _project_bytes(connection, file.project_id)
                if stored + done.bytes > max_project_bytes:
                    raise quota_error(stored, done.bytes, max_project_bytes)
                add_segments(connection, segments)
                _change(connection, done)

        await self._writes.run(finish)
        return done

    async def write_segment(self, file_id: str, number: int, content: bytes) -> Segment:
        """Write a segment. It is not a part of the file before it is in the database."""
        # The random part keeps two processes that write the same segment apart.
        path = f"{file_id}/{number:06d}-{ids.random_bytes(4).hex()}"
        await self._objects.write(path, content)
        return Segment(file_id=file_id, number=number, path=path, bytes=len(content))

    async def write_segments(
        self, file_id: str, content: AsyncIterable[bytes]
    ) -> Sequence[Segment]:
        """Write content that arrives in pieces of any size."""
        segments: list[Segment] = []
        pieces: list[bytes] = []
        size = 0
        async for piece in content:
            pieces.append(piece)
            size += len(piece)
            if size >= SEGMENT_BYTES:
                segments.append(await self.write_segment(file_id, len(segments), b"".join(pieces)))
                pieces.clear()
                size = 0
        if pieces or not segments:
            segments.append(await self.write_segment(file_id, len(segments), b"".join(pieces)))
        return segments

    async def get(self, project_id: str, id: str) -> StoredFile:
        """Return a file of a project.

        Raises:
            NotFound: The project has no such file.
        """
        file = None
        if _ID.fullmatch(id):  # Postgres would refuse some of all others
            file = await self._read(lambda connection: _find(connection, id))
        if file is None or file.project_id != project_id or file.state != "ready":
            shown = quote_text(id) if _ID.fullmatch(id) else "of this id"
            raise NotFound(f"There is no file {shown}.", param="file_id")
        return file

    async def list_files(
        self,
        project_id: str,
        *,
        purpose: str | None,
        after: str | None,
        limit: int,
        order: Order,
    ) -> Page[StoredFile]:
        """Return a page of a project's files.

        Raises:
            InvalidRequest: The project has no file `after`.
        """
        whole = select(files).where(files.c.project_id == project_id, files.c.state == "ready")
        filters = [] if purpose is None else [files.c.purpose == purpose]
        return await self._read(
            lambda connection: pages.read_page(
                connection,
                whole,
                *filters,
                type=StoredFile,
                by=(files.c.created_ms, files.c.id),
                after=after,
                limit=limit,
                descending=order == "desc",
            )
        )

    async def read(self, file_id: str, *, start: int = 0) -> AsyncGenerator[bytes]:
        """Yield the content of a file from byte `start` on, in pieces of some megabytes.

        Raises:
            FilesUnavailable: A segment is gone, or cannot be read.
        """
        at = 0
        for segment in await self._read(lambda connection: _segments(connection, file_id)):
            if at + segment.bytes > start:
                content = await self._objects.read(segment.path)
                if len(content) != segment.bytes:
                    raise FilesUnavailable(f"The file {file_id} is damaged. Upload it again.")
                yield content[max(start - at, 0) :]
            at += segment.bytes

    async def delete(self, file: StoredFile) -> None:
        """Delete a file with its content."""
        # Hidden first: should deleting its content fail, `remove_expired` goes on with it.
        hidden = msgspec.structs.replace(file, state="deleting", expires_ms=self._now_ms())
        await self._write(lambda connection: _change(connection, hidden))
        await self._remove(file.id)

    async def remove_unused_segments(self, file_id: str) -> None:
        """Delete what processes that died have written for a file that is now complete."""
        known = await self._read(lambda connection: _segments(connection, file_id))
        unknown = set(await self._objects.find(file_id)) - {each.path for each in known}
        await self._objects.delete(sorted(unknown))

    async def remove_expired(self) -> bool:
        """Delete files whose time has come; return whether there may be more."""
        due = select(files.c.id).where(files.c.expires_ms <= self._now_ms()).limit(REMOVALS)
        found = await self._read(lambda connection: connection.execute(due).scalars().all())
        for file_id in found:
            await self._remove(file_id)
        return len(found) == REMOVALS

    async def project_bytes(self, project_id: str) -> int:
        """Return how many bytes all files of a project have."""
        return await self._read(lambda connection: _project_bytes(connection, project_id))

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._reads.close()
        self._writes.close()

    async def _remove(self, file_id: str) -> None:
        await self._objects.delete(await self._objects.find(file_id))

        def forget(connection: Connection) -> None:
            connection.execute(delete(file_segments).where(file_segments.c.file_id == file_id))
            connection.execute(delete(files).where(files.c.id == file_id))

        await self._write(forget)

    async def _read(self, find: Callable[[Connection], Done]) -> Done:
        return await self._reads.read(self._engine, find)

    async def _write(self, change: Callable[[Connection], object]) -> None:
        def write() -> None:
            with self._engine.begin() as connection:
                change(connection)

        await self._writes.run(write)


def add_file(connection: Connection, file: StoredFile) -> None:
    """Add the record of a file whose segments are there, or will be in the same transaction."""
    connection.execute(insert(files).values(records.to_row(file)))


def add_segments(connection: Connection, segments: Sequence[Segment]) -> None:
    """Make written segments a part of their files."""
    if segments:
        rows = [records.to_row(each) for each in segments]
        connection.execute(insert(file_segments), rows)


def count_segments(connection: Connection, file_id: str) -> tuple[int, int]:
    """Return how many segments a file has, and how many bytes these have."""
    counts = select(func.count(), func.sum(file_segments.c.bytes))
    number, size = connection.execute(counts.where(file_segments.c.file_id == file_id)).one()
    return int(number), int(size or 0)


def quota_error(stored: int, size: int, most: int) -> InvalidRequest:
    """Return the error for a file of `size` bytes that its project has no room for."""
    return InvalidRequest(
        f"The files of this project have {stored} bytes, and this one {size} or more; together "
        f"they may have {most}. Delete files that you no longer need.",
        param="file",
    )


def _find(connection: Connection, id: str) -> StoredFile | None:
    row = connection.execute(select(files).where(files.c.id == id)).mappings().first()
    return records.from_row(row, StoredFile) if row else None


def _segments(connection: Connection, file_id: str) -> Sequence[Segment]:
    query = select(file_segments).where(file_segments.c.file_id == file_id)
    rows: Sequence[Any] = (
        connection.execute(query.order_by(file_segments.c.number)).mappings().all()
    )
    return [records.from_row(row, Segment) for row in rows]


def _change(connection: Connection, file: StoredFile) -> None:
    connection.execute(update(files).where(files.c.id == file.id).values(records.to_row(file)))


def _project_bytes(connection: Connection, project_id: str) -> int:
    query = select(func.sum(files.c.bytes)).where(files.c.project_id == project_id)
    return int(connection.scalar(query) or 0)
