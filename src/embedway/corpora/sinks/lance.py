# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
# Its packages are optional, and most come without types.
"""Keeps vectors in a Lance table, in a folder or on S3."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lancedb
import msgspec
import numpy as np
import pyarrow as pa

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError

arrow = cast("Any", pa)
VECTOR = "embedding"
"""The column of the vectors."""
_METADATA = b"embedway"
"""The key of the `Collection` in the schema's metadata."""
_FIELDS = Point.__struct_fields__
_TYPES: dict[str, Any] = {"chunk": arrow.int32(), "start": arrow.int64()}
_MAX_SMALL_FRAGMENTS = 500
"""Merge the table's small files when there are more than this many."""
_KEEP_OLD = timedelta(minutes=10)
"""How long merged files and old versions stay, for searches in progress in other processes."""
_ROWS_PER_DELETE = 10_000
"""The most row ids in one SQL condition."""
_CURES = (
    ("already exists", "Name another table after the # of the sink."),
    ("was not found", "Name one that exists after the # of the sink, or load rows into it first."),
    ("Invalid table name", "Name the table so after the # of the sink."),
)
"""The advice to add if Lance's message contains these words."""
_NOISE = re.compile(r",? (location: Location \{.*|/\S+\.rs:\d+:\d+)", re.DOTALL)
"""The place in Lance's own source, which ends its messages."""


class LanceSink:
    """Keeps points in one table of a LanceDB database.

    The schema's metadata has the `Collection`. Each write is a new version of the table, in files
    of its own, so `replace` merges small files once there are too many, and then drops versions
    that are older than ten minutes. Merging reads and writes these files again; doing so rarely
    keeps that cheap, and the list of files, which each version repeats, stays short.

    Search compares the question with every row: exact, but slower with each row. An operator may
    add an index with the distance type "cosine", which `search` then uses.
    """

    def __init__(self, target: SinkTarget) -> None:
        """Use the database at `target`, which the first call opens."""
        self._place = target.place
        self._name = target.collection
        self._opened: Any = None

    def read_collection(self) -> Collection | None:
        """Return the collection from the schema's metadata; None if there is no table."""
        # Connecting would make the folder, also of a mistyped name.
        if "://" not in self._place and not Path(self._place).exists():
            return None
        with self._explaining():
            database = self._connect()
            if self._name not in database:
                return None
            found = database.open_table(self._name).schema.metadata
            metadata = cast("dict[bytes, bytes]", found or {})
        try:
            return msgspec.json.decode(metadata.get(_METADATA, b""), type=Collection)
        except msgspec.DecodeError as error:
            raise SinkError(
                f"The table {self._name!r} in {self._place!r} was not made by Embedway. Name "
                "another table after the # of the sink."
            ) from error

    def create(self, collection: Collection) -> None:
        """Create the table; its first version has the metadata."""
        fields = [(name, _TYPES.get(name, arrow.string())) for name in _FIELDS]
        vector = arrow.list_(arrow.float32(), collection.dimensions)
        metadata = {_METADATA: msgspec.json.encode(collection)}
        with self._explaining():
            schema = arrow.schema([*fields, (VECTOR, vector)], metadata=metadata)
            self._opened = self._connect().create_table(self._name, schema=schema)

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Delete the known rows, then add all points, each as a version of the table."""
        self.delete(known_rows)
        with self._explaining():
            table = self._table()
            if points:
                columns: list[Any] = [
                    arrow.array([getattr(each, name) for each in points], _TYPES.get(name))
                    for name in _FIELDS
                ]
                values = arrow.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
                columns.append(arrow.FixedSizeListArray.from_arrays(values, vectors.shape[1]))
                table.add(arrow.table(columns, schema=table.schema))
            small = table.stats()["fragment_stats"]["num_small_fragments"]
            if small > _MAX_SMALL_FRAGMENTS:
                table.optimize(cleanup_older_than=_KEEP_OLD)

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows."""
        with self._explaining():
            for start in range(0, len(row_ids), _ROWS_PER_DELETE):
                some = row_ids[start : start + _ROWS_PER_DELETE]
                quoted = ", ".join("'" + each.replace("'", "''") + "'" for each in some)
                self._table().delete(f"row_id IN ({quoted})")

    def count(self) -> int:
        """Return how many points the table has."""
        with self._explaining():
            return self._table().count_rows()

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the nearest points by their cosine distance, nearest first."""
        with self._explaining():
            query = self._table().search(vector, vector_column_name=VECTOR)
            query = query.distance_type("cosine").limit(top).select([*_FIELDS, "_distance"])
            rows = cast("list[dict[str, Any]]", query.to_arrow().to_pylist())
        return [
            Hit(score=1 - row.pop("_distance"), point=msgspec.convert(row, Point)) for row in rows
        ]

    def close(self) -> None:
        """Let go of the table; its files are open only while they are read or written."""
        self._opened = None

    def _table(self) -> Any:
        if self._opened is None:
            self._opened = self._connect().open_table(self._name)
        return self._opened

    def _connect(self) -> Any:
        # An interval of zero: each search sees what other processes wrote.
        return lancedb.connect(self._place, read_consistency_interval=timedelta(0))

    @contextmanager
    def _explaining(self) -> Generator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            message = " ".join(_NOISE.sub("", str(error)).split()).rstrip(".")
            general = (
                "Check the address and how to log in: for S3 set AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_REGION and, if it is not Amazon's, AWS_ENDPOINT."
                if "://" in self._place
                else "Check the folder's name, its permissions and the free space."
            )
            cure = next((cure for words, cure in _CURES if words in message), general)
            raise SinkError(
                f"The Lance table {self._name!r} in {self._place!r} cannot be used: "
                f"{message}. {cure}"
            ) from error
