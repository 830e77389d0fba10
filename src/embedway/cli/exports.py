"""Writes the tables of `usage` and the vectors of `embed` to files, batch by batch.

Amounts of money are exact. In CSV, a `'` precedes text that a spreadsheet would run as a
formula.
"""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import orjson

from embedway.core.vectors import Vectors

SUFFIXES = (".csv", ".parquet")
VECTOR_SUFFIXES = (".npy", ".parquet", ".jsonl")
FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # the wide ones are formulas too in some places
"""The characters that a spreadsheet takes for the start of a formula."""

PLACES = 9

ColumnType = Literal["text", "integer", "flag", "time", "usd"]
"""The type of a column: `time` is in milliseconds since the epoch, `usd` in nano-USD."""
RowWriter = Callable[[Mapping[str, Sequence[Any]]], None]
"""Writes the next rows, given column by column."""
VectorWriter = Callable[[int, list[str], Vectors], None]
"""Writes vectors, given the index of the first text, the texts and their vectors."""


def output_error(output: Path, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """Return why `output` cannot be written, to say so before any work is done; None if it can."""
    if output.suffix not in suffixes:
        return f"its name must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}"
    if output.is_dir():
        return "it is a folder"
    if not output.parent.is_dir():
        return f"there is no folder {str(output.parent)!r}"
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
    # Imported here, because it takes 100 ms and 60 MB; and it comes without types.
    pa: Any = import_module("pyarrow")
    as_csv = output.suffix == ".csv"
    files: Any = import_module("pyarrow.csv" if as_csv else "pyarrow.parquet")
    open_file = files.CSVWriter if as_csv else files.ParquetWriter
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
        "usd": pa.string() if as_csv else pa.decimal128(38, PLACES),
    }
    schema = pa.schema([(name, types[type]) for name, type in columns.items()])

    def write(rows: Mapping[str, Sequence[Any]]) -> None:
        arrays = [
            pa.array(_convert(rows[name], type, as_csv=as_csv), types[type])
            for name, type in columns.items()
        ]
        file.write_table(pa.Table.from_arrays(arrays, schema=schema))

    with write_atomically(output) as path, open_file(path, schema) as file:
        yield write


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
                yield _parquet_writer(path, dimensions, exit_stack)


def _convert(values: Sequence[Any], type: ColumnType, *, as_csv: bool) -> Sequence[Any]:
    """Return amounts in USD with all nine decimals, and text that no spreadsheet runs."""
    if type == "usd":
        amounts = (Decimal(each).scaleb(-PLACES) for each in values)
        # In CSV, Arrow would write one nano-USD as 1E-9.
        return [f"{each:f}" if as_csv else each for each in amounts]
    if type == "text" and as_csv:
        return [f"'{each}" if each and each[0] in FORMULA else each for each in values]
    return values


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


def _parquet_writer(path: Path, dimensions: int, exit_stack: ExitStack) -> VectorWriter:
    # Imported here, because it takes 100 ms and 60 MB; and it comes without types.
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    kind = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("text", pa.string()), ("embedding", kind)])
    file = exit_stack.enter_context(pq.ParquetWriter(path, schema))

    def write(_: int, texts: list[str], vectors: Vectors) -> None:
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions)
        file.write_table(
            pa.Table.from_arrays([pa.array(texts, pa.string()), values], schema=schema)
        )

    return write
