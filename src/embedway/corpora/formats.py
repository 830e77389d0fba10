"""Reads the rows of one file: Parquet, JSON lines, CSV, TSV or plain text."""

import csv
import gzip
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any, BinaryIO, cast

import msgspec

from embedway.core import extras
from embedway.corpora.locations import SourceError, SourceFile

ROWS = 512
"""How many rows of a Parquet file to read at a time."""
MAX_LINE_BYTES = 16 * 2**20
TOO_LONG = f"The line is longer than {MAX_LINE_BYTES} bytes."

TEXT = "text"
"""The column that a line of plain text has."""

Fields = tuple[int, Mapping[str, Any] | str, int]
"""A row's number, its fields or what is wrong with it, and the bytes read up to it."""


def read_text(file: SourceFile, _: Sequence[str]) -> Iterator[Fields]:
    """Yield each line of plain text as a row."""
    for number, line, read in _lines(file):
        try:
            yield number, TOO_LONG if line is None else {TEXT: line.decode()}, read
        except UnicodeDecodeError:
            yield number, "The line is not UTF-8.", read


def read_json_lines(file: SourceFile, _: Sequence[str]) -> Iterator[Fields]:
    """Yield the JSON object of each line."""
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


def read_csv(file: SourceFile, columns: Sequence[str]) -> Iterator[Fields]:
    """Yield each record, by the names in the first line.

    Raises:
        SourceError: It lacks one of `columns`, or is not CSV.
    """
    delimiter = "\t" if file.format == ".tsv" else ","
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


def read_parquet(file: SourceFile, columns: Sequence[str]) -> Iterator[Fields]:
    """Yield these columns of each row.

    Raises:
        SourceError: It lacks one of `columns`, or is not Parquet.
        MissingExtra: What reads Parquet is not installed.
    """
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


READERS: Mapping[str, Callable[[SourceFile, Sequence[str]], Iterator[Fields]]] = {
    ".parquet": read_parquet,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_text,
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
