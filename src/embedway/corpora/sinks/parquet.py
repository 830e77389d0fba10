"""A folder of Parquet files, compressed by zstd, with the vectors as lists of a fixed size."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.parts import PartsSink
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Point

# Without its types, which are partial.
pa: Any = import_module("pyarrow")
pq: Any = import_module("pyarrow.parquet")

_FIELDS = Point.__struct_fields__
_TYPES: dict[str, Any] = {"chunk": pa.int32(), "start": pa.int64()}
VECTOR = "embedding"
"""The column of the vectors."""


class ParquetSink(PartsSink):
    """Vectors that pyarrow, pandas, Polars, DuckDB and Spark read."""

    suffix = ".parquet"

    def __init__(self, target: SinkTarget) -> None:
        """Use the folder of `target`."""
        super().__init__(Path(target.place))

    def write_part(self, path: Path, points: Sequence[Point], vectors: Vectors) -> None:
        """Write one file."""
        columns: dict[str, Any] = {
            name: pa.array([getattr(each, name) for each in points], _TYPES.get(name, pa.string()))
            for name in _FIELDS
        }
        values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns[VECTOR] = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        pq.write_table(pa.table(columns), path, compression="zstd")

    def read_part(self, path: Path) -> tuple[list[Point], Vectors]:
        """Read one file."""
        table = pq.read_table(path)
        rows = zip(*(table[name].to_pylist() for name in _FIELDS), strict=True)
        points = [Point(**dict(zip(_FIELDS, row, strict=True))) for row in rows]
        flat = table[VECTOR].combine_chunks().flatten().to_numpy()
        return points, flat.reshape(len(points), -1)

    def read_row_ids(self, path: Path) -> Sequence[str]:
        """Read one column."""
        return pq.read_table(path, columns=["row_id"])["row_id"].to_pylist()
