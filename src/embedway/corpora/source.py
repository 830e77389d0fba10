"""Reads the rows of a corpus in streams: Parquet, JSON lines, CSV and plain text.

A source is a file, a folder, a pattern such as `docs/*.csv`, or an `s3://` address. Files are read
one after another in the order of their names, a few hundred rows at a time.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from embedway.corpora.formats import READERS, ROWS, TEXT
from embedway.corpora.locations import FORMATS, SourceError, SourceFile, find_files

_COMPARISON = re.compile(r"(?P<column>.+?)(?P<operator>!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


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


class Source:
    """The rows of a corpus."""

    def __init__(self, options: SourceOptions) -> None:
        """Find the files.

        Raises:
            SourceError: There are none, or they need a column that `options` does not name.
        """
        self._options = options
        self.files = find_files(options.place)
        """The files in the order in which they are read."""
        if not self.files:
            raise SourceError(
                f"There is no file to read at {options.place!r}. Its name must end in one of "
                f"{', '.join(FORMATS)}; all but the first also with .gz."
            )
        if options.text is None and any(each.format != ".txt" for each in self.files):
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
            for number, fields, read in READERS[file.format](file, self._columns()):
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
        id = fields.get(options.id) if options.id else f"{file.label}:{number}"
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


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else str(value)
