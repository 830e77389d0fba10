"""Writes the tables of `usage` to CSV or Parquet, batch by batch.

Amounts of money are exact in both. In CSV, a `'` precedes text that a spreadsheet would run as a
formula.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

SUFFIXES = (".csv", ".parquet")
FORMULA = r"\A[=+\-@\t\r\n＝＋－＠]"  # noqa: RUF001  # the wide ones are formulas too in some places

PLACES = 9
NANO = 10**PLACES

ColumnType = Literal["text", "integer", "flag", "time", "usd"]
"""The type of a column: `time` is in milliseconds since the epoch, `usd` in nano-USD."""
RowWriter = Callable[[Mapping[str, Sequence[Any]]], None]
"""Writes the next rows, given column by column."""


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
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
        # In CSV, Arrow would write one nano-USD as 1E-9.
        "usd": pa.string() if as_csv else pa.decimal128(38, PLACES),
    }
    schema = pa.schema([(name, types[type]) for name, type in columns.items()])

    def write(rows: Mapping[str, Sequence[Any]]) -> None:
        arrays = [
            (_usd_array if columns[field.name] == "usd" else pa.array)(rows[field.name], field.type)
            for field in schema
        ]
        table = pa.Table.from_arrays(arrays, schema=schema)
        file.write_table(_escape_formulas(table) if as_csv else table)

    with write_atomically(output) as path, _open_file(path, schema, as_csv=as_csv) as file:
        yield write


def _open_file(path: Path, schema: Any, *, as_csv: bool) -> Any:
    if as_csv:
        return import_module("pyarrow.csv").CSVWriter(path, schema)
    return import_module("pyarrow.parquet").ParquetWriter(path, schema)


def _usd_array(nano_usd: Sequence[int], type: Any) -> Any:
    """Return amounts in USD as decimals or as text, with all nine decimal places."""
    pa: Any = import_module("pyarrow")
    compute: Any = import_module("pyarrow.compute")
    nano = pa.array(nano_usd, pa.int64())
    if type == "string":
        dollars = compute.divide(nano, NANO)
        rest = compute.subtract(nano, compute.multiply(dollars, NANO)).cast("string")
        padded = compute.utf8_lpad(rest, width=PLACES, padding="0")
        return compute.binary_join_element_wise(dollars.cast("string"), padded, ".")
    scale = pa.scalar(Decimal(1).scaleb(-PLACES), pa.decimal128(PLACES, PLACES))
    return compute.multiply(nano.cast(pa.decimal128(19, 0)), scale).cast(type)


def _escape_formulas(table: Any) -> Any:
    compute: Any = import_module("pyarrow.compute")
    for index, field in enumerate(table.schema):
        if field.type == "string":
            text = table.column(index)
            formula = compute.match_substring_regex(text, FORMULA)
            quoted = compute.binary_join_element_wise("'", text, "")
            table = table.set_column(index, field, compute.if_else(formula, quoted, text))
    return table
