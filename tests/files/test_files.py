"""Files in a folder and in an S3-compatible store, with both databases."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from object_server import BUCKET
from sqlalchemy import Engine

from embedway.core.errors import FilesUnavailable, InvalidRequest, NotFound
from embedway.files import store as file_store
from embedway.files.file import StoredFile
from embedway.files.objects import ObjectStore
from embedway.files.store import UPLOAD_MS, FileStore

CONTENT = os.urandom(5_000)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """Return a clock that tests set."""
    return Clock()


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files into many segments."""
    monkeypatch.setattr(file_store, "SEGMENT_BYTES", 1_000)


@pytest.fixture(params=["folder", "s3"])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    """Return an object store; each test runs on both kinds."""
    if request.param == "folder":
        return ObjectStore(tmp_path / "files")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return ObjectStore(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def files(any_database: Engine, objects: ObjectStore, clock: Clock) -> Iterator[FileStore]:
    """Return a file store."""
    made = FileStore(any_database, objects, now_ms=clock)
    yield made
    made.close()


async def arriving(content: bytes, size: int = 300) -> AsyncGenerator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def upload(
    files: FileStore, content: bytes = CONTENT, *, project: str = "p", **more
) -> StoredFile:
    file = await files.begin_upload(project, purpose="batch")
    segments = await files.write_segments(file.id, arriving(content))
    options = {"name": "a.jsonl", "expires_s": None, "max_project_bytes": 10**9} | more
    return await files.finish_upload(file, segments, **options)


async def content_of(files: FileStore, file: StoredFile, start: int = 0) -> bytes:
    return b"".join([piece async for piece in files.read(file.id, start=start)])


def test_read_back(files: FileStore) -> None:
    """A file is what was uploaded, from any place on, and belongs to its project alone."""

    async def run() -> None:
        for content in (CONTENT, b"", b"x" * 1_000, b"x" * 999):
            file = await upload(files, content)
            assert await files.get("p", file.id) == file
            assert (file.bytes, file.state) == (len(content), "ready")
            for start in (0, 1, 999, 1_000, 1_001, len(content)):
                assert await content_of(files, file, start) == content[start:]
            with pytest.raises(NotFound):
                await files.get("q", file.id)

    asyncio.run(run())


def test_delete(files: FileStore, objects: ObjectStore) -> None:
    """Deleting leaves nothing behind, and nothing of the file is found any more."""

    async def run() -> None:
        file, other = await upload(files), await upload(files)
        await files.delete(file)
        assert not await objects.find(file.id)
        assert await files.project_bytes("p") == other.bytes
        with pytest.raises(NotFound):
            await files.get("p", file.id)
        assert await content_of(files, other) == CONTENT

    asyncio.run(run())


def test_list(files: FileStore, clock: Clock) -> None:
    """Lists go page by page in both orders, and have only the project's complete files."""

    async def run() -> None:
        made = []
        for _ in range(5):
            made.append((await upload(files)).id)
            clock.ms += 1
        await upload(files, project="q")
        await files.begin_upload("p", purpose="batch")
        for order, expected in (("asc", made), ("desc", made[::-1])):
            found: list[str] = []
            while True:
                page = await files.list_files(
                    "p", purpose="batch", after=found[-1] if found else None, limit=2, order=order
                )
                found += [each.id for each in page.items]
                if not page.more:
                    break
            assert found == expected
        none = await files.list_files("p", purpose="other", after=None, limit=9, order="asc")
        assert not none.items
        with pytest.raises(InvalidRequest):
            await files.list_files("p", purpose=None, after="file-none", limit=9, order="asc")

    asyncio.run(run())


def test_quota(files: FileStore) -> None:
    """The files of a project are never too large together, even if many arrive at once."""

    async def one() -> bool:
        try:
            await upload(files, max_project_bytes=3 * len(CONTENT))
        except InvalidRequest as error:
            return "together they may have 15000" not in error.message
        return True

    async def run() -> None:
        assert sum(await asyncio.gather(*(one() for _ in range(8)))) == 3
        assert await files.project_bytes("p") == 3 * len(CONTENT)
        await upload(files, project="q", max_project_bytes=len(CONTENT))

    asyncio.run(run())


def test_expiry(files: FileStore, objects: ObjectStore, clock: Clock) -> None:
    """Files go when their time has come, and so do uploads whose process died."""

    async def run() -> None:
        kept, short = await upload(files), await upload(files, expires_s=3600)
        dead = await files.begin_upload("p", purpose="batch")
        await files.write_segments(dead.id, arriving(CONTENT))
        await files.remove_expired()
        assert (await files.get("p", short.id)).expires_ms == clock.ms + 3_600_000
        clock.ms += 3_600_000
        await files.remove_expired()
        with pytest.raises(NotFound):
            await files.get("p", short.id)
        assert await objects.find(dead.id)
        clock.ms += UPLOAD_MS
        await files.remove_expired()
        assert not await objects.find(dead.id)
        assert await content_of(files, kept) == CONTENT

    asyncio.run(run())


def test_unused_segments(files: FileStore, objects: ObjectStore) -> None:
    """Segments of processes that died are found and deleted; those of the file stay."""

    async def run() -> None:
        file = await upload(files)
        await files.write_segment(file.id, 3, b"lost")
        await files.remove_unused_segments(file.id)
        assert len(await objects.find(file.id)) == 5
        assert await content_of(files, file) == CONTENT

    asyncio.run(run())


def test_a_segment_that_is_gone(files: FileStore, objects: ObjectStore) -> None:
    """A file that cannot be read whole is an error, never a shorter file."""

    async def run() -> None:
        file = await upload(files)
        await objects.delete([(await objects.find(file.id))[2]])
        with pytest.raises(FilesUnavailable):
            await content_of(files, file)

    asyncio.run(run())


@pytest.mark.parametrize(
    "act",
    [
        lambda objects: objects.write("a/b", b"x"),
        lambda objects: objects.read("a/b"),
        lambda objects: objects.find("a"),
    ],
)
def test_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[ObjectStore], Awaitable[object]]
) -> None:
    """A store that is not there is an error that clients may retry, and is logged."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    for place in (tmp_path / "file" / "files", "s3://bucket/x"):
        with pytest.raises(FilesUnavailable) as error:
            asyncio.run(act(ObjectStore(place)))
        assert "retry-after" in error.value.headers
