"""Finds the files of a corpus, in a folder or in an S3-compatible store."""

import io
import re
from collections.abc import Callable
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import obstore
from obstore.store import S3Store

S3_PREFIX = "s3://"
FORMATS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
"""The ends of the names of files that can be read; all but the first also with `.gz`."""
_MAGIC = re.compile(r"[*?\[]")


class SourceError(Exception):
    """A source cannot be read; the message says why and what to do."""


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a source."""

    name: str
    """Its path or address."""
    label: str
    """Its path within the source, which stays the same wherever that is."""
    size: int
    open: Callable[[], BinaryIO]

    @property
    def format(self) -> str:
        """The end of its name, such as `.csv`, without `.gz`."""
        return _format(self.name)


def find_files(place: str) -> list[SourceFile]:
    """Return the readable files of a source in the order of their names.

    Args:
        place: A file, a folder, a pattern such as `docs/*.csv`, or an `s3://` address of these.

    Raises:
        SourceError: They cannot be listed.
    """
    if place.startswith(S3_PREFIX):
        return _find_objects(place)
    path = Path(place)
    if has_magic(place) and not path.exists():
        steps = [index for index, step in enumerate(path.parts) if _MAGIC.search(step)]
        root = Path(*path.parts[: steps[0]])
        found = [each for each in root.glob(str(Path(*path.parts[steps[0] :]))) if each.is_file()]
    elif path.is_dir():
        root, found = path, [each for each in path.rglob("*") if each.is_file()]
    else:
        root, found = path.parent, [path] if path.is_file() else []
    return [
        SourceFile(
            str(each),
            each.relative_to(root).as_posix(),
            each.stat().st_size,
            lambda each=each: each.open("rb"),
        )
        for each in sorted(found)
        if _is_readable(each.name)
    ]


def _format(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()


def _is_readable(name: str) -> bool:
    return _format(name) in FORMATS and not name.endswith(".parquet.gz")


def _find_objects(place: str) -> list[SourceFile]:
    bucket, _, key = place.removeprefix(S3_PREFIX).partition("/")
    store = S3Store(bucket, client_options={"allow_http": True})
    is_pattern = _MAGIC.search(key) is not None
    root = _MAGIC.split(key, maxsplit=1)[0].rpartition("/")[0] if is_pattern else key.rstrip("/")
    if not is_pattern and _is_readable(key):
        root = key.rpartition("/")[0]
    listed = obstore.list(store, prefix=root or None)  # pyright: ignore[reportUnknownMemberType]  # partly untyped
    try:
        found = sorted(listed.collect(), key=lambda each: each["path"])
    except Exception as error:  # noqa: BLE001  # the library has many kinds
        raise SourceError(f"{place} cannot be listed: {str(error).partition(chr(10))[0]}") from None
    folder = f"{root}/" if root else ""

    def is_named(path: str) -> bool:
        if is_pattern:
            return fnmatch(path, key)
        return path == key if _is_readable(key) else path.startswith(folder)

    return [
        SourceFile(
            f"{S3_PREFIX}{bucket}/{each['path']}",
            each["path"].removeprefix(folder),
            each["size"],
            lambda path=each["path"]: cast("BinaryIO", ObjectReader(store, path)),
        )
        for each in found
        if _is_readable(each["path"]) and is_named(each["path"])
    ]


class ObjectReader(io.BufferedReader):
    """An object of an S3-compatible store as a file."""

    def __init__(self, store: S3Store, path: str) -> None:
        """Open an object."""
        super().__init__(cast("io.RawIOBase", _RawObject(store, path)), 2**20)


class _RawObject(io.RawIOBase):
    def __init__(self, store: S3Store, path: str) -> None:
        self._reader = obstore.open_reader(store, path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = bytes(self._reader.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()
