"""Reads the rows of a corpus in streams: Parquet, JSON lines, CSV and plain text.

A source is a file, a folder, a pattern such as `docs/*.csv`, or an `s3://` address. Files are read
one after another in the order of their names, a few hundred rows at a time.
"""

import csv
import gzip
import io
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatch
from glob import has_magic
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import obstore
from obstore.store import S3Store

from embedway.core import extras

S3_PREFIX = "s3://"
ROWS = 512
"""How many rows to read at a time."""
MAX_LINE_BYTES = 16 * 2**20
TOO_LONG = f"The line is longer than {MAX_LINE_BYTES} bytes."
FORMATS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
"""The ends of the names of files that can be read; all but the first also with `.gz`."""
_COMPARISON = re.compile(r"(?P<column>.+?)(?P<operator>!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class SourceError(Exception):
    """A source cannot be read; the message says why and what to do."""


class RowCondition(msgspec.Struct, frozen=True):
    """Selects rows by a column. Numbers are compared as numbers, everything else as text."""

    column: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "RowCondition":
        """Read a condition such as `language=en` or `stars>=4`.

        Raises:
            SourceError: It is none.
        """
        match = _COMPARISON.fullmatch(text)
        if match is None:
            raise SourceError(
                f"{text!r} is no condition. Write it as COLUMN=VALUE, or with !=, >, >=, < or <=."
            )
        return cls(match["column"].strip(), match["operator"], match["value"].strip())

    def accepts(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a row has what the condition asks for. A missing value meets only `!=`."""
        value = fields.get(self.column)
        if value is None:
            return self.operator == "!="
        try:
            return _OPERATORS[self.operator](float(value), float(self.value))
        except (TypeError, ValueError):
            return _OPERATORS[self.operator](_as_text(value), self.value)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a source."""

    id: str
    text: str
    digest: bytes
    """Changes with the text."""


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be embedded."""

    place: str
    """The file and the number of its row or line, from 1."""
    id: str | None
    reason: str


class RowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of one file."""

    rows: Sequence[Row]
    rejected: Sequence[RejectedRow]
    bytes_read: int
    """How many bytes of all files are read after these rows, about."""


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to read, and the columns that are read of them."""

    place: str
    text: str | None = None
    """The column with the text; None for plain text, where each line is one."""
    id: str | None = None
    """The column with the id; None for the number of the row and the name of its file."""
    where: tuple[RowCondition, ...] = ()
    limit: int | None = None
    """The most rows to read; None for all."""


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a source."""

    name: str
    """Its path or key."""
    size: int
    open: Callable[[], BinaryIO]


class Source:
    """The rows of a corpus."""

    def __init__(self, options: SourceOptions) -> None:
        """Find the files.

        Raises:
            SourceError: There are none, or they need a column that `options` does not name.
        """
        self._options = options
        self.files = _find_files(options.place)
        """The files in the order in which they are read."""
        if not self.files:
            raise SourceError(
                f"There is no file to read at {options.place!r}. Its name must end in one of "
                f"{', '.join(FORMATS)}; all but the first also with .gz."
            )
        if options.text is None and any(_format(each.name) != ".txt" for each in self.files):
            raise SourceError("Name the column of the text with --text.")

    @property
    def total_bytes(self) -> int:
        """How many bytes all files have."""
        return sum(each.size for each in self.files)

    def read(self) -> Iterator[RowBatch]:
        """Yield all rows.

        Raises:
            SourceError: A file cannot be read, or lacks a column.
        """
        limit, before = self._options.limit, 0
        for file in self.files:
            for batch in self._read_file(file, before):
                if limit is not None:
                    taken = batch.rows[:limit]
                    limit -= len(taken)
                    batch = msgspec.structs.replace(batch, rows=taken)  # noqa: PLW2901
                yield batch
                if limit == 0:
                    return
            before += file.size

    def _read_file(self, file: SourceFile, before: int) -> Iterator[RowBatch]:
        """Yield the rows of one file, which follows `before` bytes of others."""
        rows: list[Row] = []
        rejected: list[RejectedRow] = []
        read = 0
        try:
            for number, fields, read in _READERS[_format(file.name)](file, self._columns()):
                row = self._to_row(file, number, fields)
                if isinstance(row, Row):
                    rows.append(row)
                elif row is not None:
                    rejected.append(row)
                if len(rows) + len(rejected) >= ROWS:
                    yield RowBatch(rows=rows, rejected=rejected, bytes_read=before + read)
                    rows, rejected = [], []
        except (OSError, EOFError) as error:
            raise SourceError(f"{file.name}: {error}") from None
        yield RowBatch(rows=rows, rejected=rejected, bytes_read=before + max(read, file.size))

    def _columns(self) -> list[str]:
        options = self._options
        named = [options.text, options.id, *(each.column for each in options.where)]
        return list(dict.fromkeys(each for each in named if each is not None))

    def _to_row(  # noqa: PLR0911  # one for each thing that may be wrong
        self, file: SourceFile, number: int, fields: Mapping[str, Any] | str
    ) -> Row | RejectedRow | None:
        """Return the row, or why it cannot be embedded, or None if it is not asked for."""
        options, place = self._options, f"{file.name}:{number}"
        if isinstance(fields, str):
            return RejectedRow(place=place, id=None, reason=fields)
        if not all(each.accepts(fields) for each in options.where):
            return None
        id = fields.get(options.id) if options.id else f"{Path(file.name).name}:{number}"
        if id is None or id == "":
            return RejectedRow(place=place, id=None, reason=f"It has no {options.id!r}.")
        id, text = _as_text(id), fields.get(options.text or TEXT)
        if not isinstance(text, str):
            problem = "no text" if text is None else f"a {type(text).__name__} in place of a text"
            return RejectedRow(place=place, id=id, reason=f"It has {problem}.")
        if not text.strip():
            return RejectedRow(place=place, id=id, reason="Its text is empty.")
        try:
            encoded = text.encode()
            id.encode()
        except UnicodeEncodeError:
            return RejectedRow(place=place, id=None, reason="It is not valid Unicode.")
        return Row(id=id, text=text, digest=blake2b(encoded, digest_size=16).digest())


TEXT = "text"
"""The column that a line of plain text has."""

Fields = tuple[int, Mapping[str, Any] | str, int]
"""A row's number, its fields or what is wrong with it, and the bytes read up to it."""


def _read_text(file: SourceFile, _: Sequence[str]) -> Iterator[Fields]:
    for number, line, read in _lines(file):
        try:
            yield number, TOO_LONG if line is None else {TEXT: line.decode()}, read
        except UnicodeDecodeError:
            yield number, "The line is not UTF-8.", read


def _read_json_lines(file: SourceFile, _: Sequence[str]) -> Iterator[Fields]:
    for number, line, read in _lines(file):
        if line is None:
            yield number, TOO_LONG, read
            continue
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield number, "The line is not valid JSON.", read
            continue
        yield (
            number,
            cast("dict[str, Any]", fields)
            if isinstance(fields, dict)
            else "The line is not a JSON object.",
            read,
        )


def _read_csv(file: SourceFile, columns: Sequence[str]) -> Iterator[Fields]:
    delimiter = "\t" if _format(file.name) == ".tsv" else ","
    with ExitStack() as opened:
        raw = opened.enter_context(file.open())
        content = io.TextIOWrapper(
            _decompressed(file, raw),
            encoding="utf-8-sig",
            errors="surrogateescape",  # refused below, for this row alone
            newline="",
        )
        csv.field_size_limit(MAX_LINE_BYTES)
        reader = csv.reader(content, delimiter=delimiter)
        try:
            names = next(reader, list[str]())
            _check_columns(file, names, columns)
            for number, values in enumerate(reader, 2):
                read = raw.tell()
                if not values:
                    continue
                if len(values) != len(names):
                    reason = f"It has {len(values)} fields, and the first line {len(names)}."
                    yield number, reason, read
                else:
                    yield number, dict(zip(names, values, strict=True)), read
        except csv.Error as error:
            raise SourceError(f"{file.name}, line {reader.line_num}: {error}.") from None


def _read_parquet(file: SourceFile, columns: Sequence[str]) -> Iterator[Fields]:
    with extras.importing("parquet", "Parquet"):
        pq = import_module("pyarrow.parquet")
        arrow = import_module("pyarrow")
    with file.open() as raw:
        try:
            table = pq.ParquetFile(raw)
            _check_columns(file, table.schema_arrow.names, columns)
            total, number = table.metadata.num_rows, 0
            for batch in table.iter_batches(batch_size=ROWS, columns=list(columns)):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, fields, file.size * number // total
        except arrow.ArrowException as error:
            raise SourceError(f"{file.name} is no readable Parquet file: {error}.") from None


_READERS: Mapping[str, Callable[[SourceFile, Sequence[str]], Iterator[Fields]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
}


def _lines(file: SourceFile) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield each line with its number and the bytes read; None for one that is too long."""
    with file.open() as raw:
        content = _decompressed(file, raw)
        number = 0
        while line := content.readline(MAX_LINE_BYTES):
            number += 1
            is_whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
            yield number, line.rstrip(b"\r\n") if is_whole else None, raw.tell()
            while not is_whole:
                line = content.readline(MAX_LINE_BYTES)
                is_whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")


def _decompressed(file: SourceFile, raw: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if file.name.endswith(".gz") else raw


def _check_columns(file: SourceFile, names: Sequence[str], columns: Sequence[str]) -> None:
    for each in columns:
        if each not in names:
            raise SourceError(
                f"{file.name} has no column {each!r}. It has {', '.join(map(repr, names))}."
            )


def _format(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()


def _is_readable(name: str) -> bool:
    return _format(name) in FORMATS and not name.endswith(".parquet.gz")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _find_files(place: str) -> list[SourceFile]:
    if place.startswith(S3_PREFIX):
        return _find_objects(place)
    path = Path(place)
    if has_magic(place) and not path.exists():
        anchor = Path(path.anchor or ".")
        found = anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path))
        paths = [each for each in found if each.is_file()]
    elif path.is_dir():
        paths = [each for each in path.rglob("*") if each.is_file()]
    else:
        paths = [path] if path.is_file() else []
    return [
        SourceFile(str(each), each.stat().st_size, lambda each=each: each.open("rb"))
        for each in sorted(paths)
        if _is_readable(each.name)
    ]


def _find_objects(place: str) -> list[SourceFile]:
    bucket, _, key = place.removeprefix(S3_PREFIX).partition("/")
    prefix = re.split(r"[*?\[]", key, maxsplit=1)[0]
    store = S3Store(bucket, client_options={"allow_http": True})
    listed = obstore.list(store, prefix=prefix.rpartition("/")[0] or None)  # pyright: ignore[reportUnknownMemberType]  # partly untyped
    try:
        found = listed.collect()
    except Exception as error:  # noqa: BLE001  # the library has many kinds
        raise SourceError(f"{place} cannot be listed: {str(error).partition(chr(10))[0]}") from None
    folder = f"{key.rstrip('/')}/" if key else ""

    def is_named(path: str) -> bool:
        if prefix != key:
            return fnmatch(path, key)
        return path == key or path.startswith(folder)

    matching = [
        each
        for each in sorted(found, key=lambda each: each["path"])
        if _is_readable(each["path"]) and is_named(each["path"])
    ]
    return [
        SourceFile(
            f"{S3_PREFIX}{bucket}/{each['path']}",
            each["size"],
            lambda path=each["path"]: cast("BinaryIO", ObjectReader(store, path)),
        )
        for each in matching
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
