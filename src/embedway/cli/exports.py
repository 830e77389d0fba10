"""Where `usage` puts tables: CSV or Parquet, written batch by batch.

Money is exact in both. In CSV, what a spreadsheet would take for a formula has a `'` before it.
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

Kind = Literal["text", "integer", "flag", "time", "usd"]
"""Of a column; `time` is in milliseconds since 1970-01-01 UTC, `usd` in nano-dollars."""
Write = Callable[[Mapping[str, Sequence[Any]]], None]
"""Takes the next rows, column by column."""


def refusal(output: Path, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """Why no file of this name can be written, before any work is done for it."""
    if output.suffix not in suffixes:
        return f"its name must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}"
    if output.is_dir():
        return "it is a folder"
    if not output.parent.is_dir():
        return f"there is no folder {str(output.parent)!r}"
    return None


@contextmanager
def write_whole(output: Path) -> Generator[Path]:
    """A path to write to, whose file becomes `output` once it is complete."""
    part = output.with_name(f".{output.name}.part")
    try:
        yield part
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writer(output: Path, columns: Mapping[str, Kind]) -> Generator[Write]:
    """What writes rows of these columns; the file appears under its name once it is whole.

    Raises:
        OSError: It cannot be written.
    """
    # 100 ms and 60 MB that only this needs; and it comes without types.
    pa: Any = import_module("pyarrow")
    as_csv = output.suffix == ".csv"
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
        # Arrow would write a nano-dollar as 1E-9.
        "usd": pa.string() if as_csv else pa.decimal128(38, PLACES),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])

    def write(rows: Mapping[str, Sequence[Any]]) -> None:
        made = [
            (_usd if columns[field.name] == "usd" else pa.array)(rows[field.name], field.type)
            for field in schema
        ]
        table = pa.Table.from_arrays(made, schema=schema)
        file.write_table(_defused(table) if as_csv else table)

    with write_whole(output) as part, _opened(part, schema, as_csv=as_csv) as file:
        yield write


def _opened(path: Path, schema: Any, *, as_csv: bool) -> Any:
    if as_csv:
        return import_module("pyarrow.csv").CSVWriter(path, schema)
    return import_module("pyarrow.parquet").ParquetWriter(path, schema)


def _usd(nano_usd: Sequence[int], type: Any) -> Any:
    """Dollars as a decimal or as plain text, with all nine places."""
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


def _defused(table: Any) -> Any:
    compute: Any = import_module("pyarrow.compute")
    for index, field in enumerate(table.schema):
        if field.type == "string":
            text = table.column(index)
            formula = compute.match_substring_regex(text, FORMULA)
            quoted = compute.binary_join_element_wise("'", text, "")
            table = table.set_column(index, field, compute.if_else(formula, quoted, text))
    return table
