"""Writes the vectors of `embed` as lines of JSON, NumPy's .npy, or Parquet."""

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from embedway.cli.exports import write_atomically
from embedway.core.vectors import Vectors

SUFFIXES = (".npy", ".parquet", ".jsonl")

VectorWriter = Callable[[int, list[str], Vectors], None]
"""Writes vectors, given the index of the first text, the texts and their vectors."""


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
