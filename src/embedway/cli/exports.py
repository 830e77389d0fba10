"""Writes the tables of `usage` and the vectors of `embed` to files, batch by batch.

Amounts of money are exact. In CSV, a `'` precedes text that a spreadsheet would run as a
formula.
"""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np
import orjson

from embedway.core import extras
from embedway.core.vectors import Vectors

PARQUET = ".parquet"
SUFFIXES = (".csv", PARQUET)
VECTOR_SUFFIXES = (".npy", PARQUET, ".jsonl")
FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # the wide ones are formulas too in some places
"""The characters that a spreadsheet takes for the start of a formula."""

PLACES = 9
_SECOND = "%Y-%m-%d %H:%M:%S"

ColumnType = Literal["text", "integer", "flag", "time", "usd"]
"""The type of a column: `time` is in milliseconds since the epoch, `usd` in nano-USD."""
RowWriter = Callable[[Mapping[str, Sequence[Any]]], None]
"""Writes the next rows, given column by column."""
VectorWriter = Callable[[int, list[str], Vectors], None]
"""Writes vectors, given the index of the first text, the texts and their vectors."""


def output_error(output: Path, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """Return why `output` cannot be written, to say so before any work is done; None if it can.

    Raises:
        MissingExtra: It is to be Parquet, and what writes that is not installed.
    """
    if output.suffix not in suffixes:
        return f"its name must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}"
    if output.is_dir():
        return "it is a folder"
    if not output.parent.is_dir():
        return f"there is no folder {str(output.parent)!r}"
    if output.suffix == PARQUET:
        _arrow()
    return None


@contextmanager
def write_atomically(output: Path) -> Generator[Path]:
    """Yield a path to write to; the file becomes `output` once it is complete."""
    part = output.with_name(f".{output.name}.part")
    try:
        yield part
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def open_writer(output: Path, columns: Mapping[str, ColumnType]) -> Generator[RowWriter]:
    """Yield a function that writes rows of these columns; `output` appears once it is complete.

    Raises:
        OSError: The file cannot be written.
    """
    with write_atomically(output) as path, ExitStack() as exit_stack:
        if output.suffix == PARQUET:
            yield _parquet_writer(path, columns, exit_stack)
        else:
            file = exit_stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            yield _csv_writer(file, columns)


@contextmanager
def open_vector_writer(
    output: Path | None, *, rows: int, dimensions: int
) -> Generator[VectorWriter]:
    """Yield a function that writes vectors; `output` appears once it is complete.

    Without `output`, the function prints lines of JSON to standard output.

    Raises:
        OSError: The file cannot be written.
    """
    if output is None:
        yield _jsonl_writer(sys.stdout.buffer)
        return
    with write_atomically(output) as path, ExitStack() as exit_stack:
        match output.suffix:
            case ".npy":
                yield _npy_writer(path, rows, dimensions)
            case ".jsonl":
                yield _jsonl_writer(exit_stack.enter_context(path.open("wb")))
            case _:
                yield _parquet_vector_writer(path, dimensions, exit_stack)


def _csv_writer(file: TextIO, columns: Mapping[str, ColumnType]) -> RowWriter:
    # Not the module csv, which before Python 3.12 cannot tell null from an empty text.
    file.write(",".join(map(_quote, columns)) + "\n")

    formats: dict[ColumnType, Callable[[Any], str]] = {
        "text": lambda text: _quote(f"'{text}" if text[:1] in FORMULA else text),
        "integer": str,
        "flag": lambda flag: "true" if flag else "false",
        "time": lambda ms: f"{datetime.fromtimestamp(ms // 1000, UTC):{_SECOND}}.{ms % 1000:03}Z",
        "usd": lambda nano_usd: _quote(f"{Decimal(nano_usd).scaleb(-PLACES):f}"),
    }

    def write(rows: Mapping[str, Sequence[Any]]) -> None:
        fields = (
            ["" if each is None else formats[type](each) for each in rows[name]]
            for name, type in columns.items()
        )
        file.writelines(",".join(line) + "\n" for line in zip(*fields, strict=True))

    return write


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _arrow() -> tuple[Any, Any]:
    """Import Arrow, without its types, and what writes Parquet: 100 ms and 60 MB."""
    with extras.importing("parquet", "Parquet"):
        return import_module("pyarrow"), import_module("pyarrow.parquet")


def _parquet_writer(
    path: Path, columns: Mapping[str, ColumnType], exit_stack: ExitStack
) -> RowWriter:
    pa, pq = _arrow()
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
        "usd": pa.decimal128(38, PLACES),
    }
    schema = pa.schema([(name, types[type]) for name, type in columns.items()])
    file = exit_stack.enter_context(pq.ParquetWriter(path, schema))

    def write(rows: Mapping[str, Sequence[Any]]) -> None:
        arrays = [
            pa.array(
                [Decimal(each).scaleb(-PLACES) for each in rows[name]]
                if type == "usd"
                else rows[name],
                types[type],
            )
            for name, type in columns.items()
        ]
        file.write_table(pa.Table.from_arrays(arrays, schema=schema))

    return write


def _jsonl_writer(file: BinaryIO) -> VectorWriter:
    def write(first: int, texts: list[str], vectors: Vectors) -> None:
        for index, (text, vector) in enumerate(zip(texts, vectors, strict=True), first):
            line = {"index": index, "text": text, "embedding": vector}
            file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        file.flush()

    return write


def _npy_writer(path: Path, rows: int, dimensions: int) -> VectorWriter:
    array = np.lib.format.open_memmap(path, "w+", np.dtype("<f4"), (rows, dimensions))

    def write(first: int, texts: list[str], vectors: Vectors) -> None:
        array[first : first + len(texts)] = vectors

    return write


def _parquet_vector_writer(path: Path, dimensions: int, exit_stack: ExitStack) -> VectorWriter:
    pa, pq = _arrow()
    kind = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("text", pa.string()), ("embedding", kind)])
    file = exit_stack.enter_context(pq.ParquetWriter(path, schema))

    def write(_: int, texts: list[str], vectors: Vectors) -> None:
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions)
        file.write_table(
            pa.Table.from_arrays([pa.array(texts, pa.string()), values], schema=schema)
        )

    return write
