"""Where `embed` puts vectors: lines of JSON, NumPy's .npy, or Parquet."""

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from embedway.cli.exports import write_whole
from embedway.core.vectors import Vectors

SUFFIXES = (".npy", ".parquet", ".jsonl")

Write = Callable[[int, list[str], Vectors], None]
"""Takes the index of the first text, the texts and their vectors."""


@contextmanager
def writer(output: Path | None, *, rows: int, dimensions: int) -> Generator[Write]:
    """What writes the vectors; a file appears under its name once it is whole.

    Raises:
        OSError: It cannot be written.
    """
    if output is None:
        yield _jsonl(sys.stdout.buffer)
        return
    with write_whole(output) as part, ExitStack() as closing:
        match output.suffix:
            case ".npy":
                yield _npy(part, rows, dimensions)
            case ".jsonl":
                yield _jsonl(closing.enter_context(part.open("wb")))
            case _:
                yield _parquet(part, dimensions, closing)


def _jsonl(file: BinaryIO) -> Write:
    def write(first: int, texts: list[str], vectors: Vectors) -> None:
        for index, (text, vector) in enumerate(zip(texts, vectors, strict=True), first):
            line = {"index": index, "text": text, "embedding": vector}
            file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        file.flush()

    return write


def _npy(path: Path, rows: int, dimensions: int) -> Write:
    array = np.lib.format.open_memmap(path, "w+", np.dtype("<f4"), (rows, dimensions))

    def write(first: int, texts: list[str], vectors: Vectors) -> None:
        array[first : first + len(texts)] = vectors

    return write


def _parquet(path: Path, dimensions: int, closing: ExitStack) -> Write:
    # 100 ms and 60 MB that only this needs; and it comes without types.
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    kind = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("text", pa.string()), ("embedding", kind)])
    file = closing.enter_context(pq.ParquetWriter(path, schema))

    def write(_: int, texts: list[str], vectors: Vectors) -> None:
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions)
        file.write_table(
            pa.Table.from_arrays([pa.array(texts, pa.string()), values], schema=schema)
        )

    return write
