# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
# Its packages are optional, and most come without types.
"""Stores vectors in Milvus: a server's, or a local `.db` that Milvus Lite reads and writes."""

import logging
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

import grpc
import msgspec
from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.exceptions import MilvusLiteError
from pymilvus import DataType, MilvusClient, MilvusException

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError

PROPERTY = "embedway"
"""The collection's property under which its `Collection` is stored, as JSON."""

BATCH = 500
"""The most points or rows in one request. A server takes 64 MiB."""

MAX_TOP = 16_384
"""The most points a search may ask for."""

MAX_TEXT = 65_535
"""The longest string that Milvus stores, in bytes of UTF-8."""

CONNECT_S = 10
TIMEOUT_S = 120

# These libraries log each error with its traceback, and raise it too. The exception is enough.
for _logger in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class MilvusSink:
    """A collection of Milvus.

    It has the fields of `Point`, and two UUIDs made from ids: `point_key` is the primary key.
    Filters compare `row_key` instead of `row_id`, so ids need no quoting.
    """

    def __init__(self, target: SinkTarget) -> None:
        self._name = target.collection
        self._place = re.sub("//[^/]*@", "//", target.place)  # keep passwords out of messages
        self._lite: tuple[Any, Any] | None = None
        self._is_server = target.place.startswith(("http://", "https://"))
        if not self._is_server and ("://" in target.place or not target.place.endswith(".db")):
            raise SinkError(
                f"{target.place!r} is neither an http address nor a .db file. Write "
                "http://localhost:19530, or a file's name that ends in .db."
            )
        with self._client_errors():
            address, options = target.place, {}
            if not self._is_server:
                server, database, port = start_server_in_thread(target.place)
                self._lite = server, database
                address, options = f"http://127.0.0.1:{port}", {"grpc.enable_http_proxy": 0}
            # Without `dedicated`, `close` would leave the connection open.
            client = MilvusClient(address, timeout=CONNECT_S, dedicated=True, grpc_options=options)
            self._client = cast("Any", client)
        if self.read_collection() is not None:
            self._load()

    def read_collection(self) -> Collection | None:
        """Return what the collection holds; None if there is no such collection.

        Raises:
            SinkError: Something other than Embedway made the collection.
        """
        with self._client_errors():
            if not self._client.has_collection(self._name, timeout=TIMEOUT_S):
                return None
            found = self._client.describe_collection(self._name, timeout=TIMEOUT_S)
        if PROPERTY not in found["properties"]:
            raise SinkError(
                f"The collection {self._name!r} of Milvus at {self._place} was not made by "
                "Embedway. Write another name after '#'."
            )
        return msgspec.json.decode(found["properties"][PROPERTY], type=Collection)

    def create(self, collection: Collection) -> None:
        """Create the collection, with `collection` in its properties."""
        with self._client_errors():
            schema = self._client.create_schema(auto_id=False)
            schema.add_field("point_key", DataType.VARCHAR, max_length=36, is_primary=True)
            schema.add_field("row_key", DataType.VARCHAR, max_length=36)
            for field in ("id", "row_id", "text"):
                schema.add_field(field, DataType.VARCHAR, max_length=MAX_TEXT)
            for field in ("chunk", "start"):
                schema.add_field(field, DataType.INT64)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=collection.dimensions)
            self._client.create_collection(
                self._name,
                schema=schema,
                properties={PROPERTY: msgspec.json.encode(collection).decode()},
                consistency_level="Strong",
                timeout=TIMEOUT_S,
            )
        self._load()

    def _load(self) -> None:
        """Make the collection ready to search; index it if a crash came before that."""
        with self._client_errors():
            if not self._client.list_indexes(self._name, timeout=TIMEOUT_S):
                index = self._client.prepare_index_params()
                # In Milvus Lite, AUTOINDEX is a graph in which a search misses points.
                kind = "AUTOINDEX" if self._is_server else "FLAT"
                index.add_index("vector", index_type=kind, metric_type="COSINE")
                self._client.create_index(self._name, index, timeout=TIMEOUT_S)
            self._client.load_collection(self._name, timeout=TIMEOUT_S)

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Delete all points of `known_rows`, then store `points` in batches.

        Raises:
            SinkError: Among other reasons, a text is too long for Milvus; nothing is deleted then.
        """
        long = next((each for each in points if len(each.text.encode()) > MAX_TEXT), None)
        if long is not None:
            raise SinkError(
                f"The text of {long.id!r} is longer than the {MAX_TEXT} bytes that Milvus stores. "
                "Cut the rows into chunks."
            )
        self.delete(known_rows)
        for start in range(0, len(points), BATCH):
            rows = [
                msgspec.to_builtins(point)
                | {"point_key": _key(point.id), "row_key": _key(point.row_id), "vector": vector}
                for point, vector in zip(
                    points[start : start + BATCH], vectors[start : start + BATCH], strict=True
                )
            ]
            with self._client_errors():
                self._client.upsert(self._name, rows, timeout=TIMEOUT_S)

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows."""
        for start in range(0, len(row_ids), BATCH):
            keys = ", ".join(f'"{_key(each)}"' for each in row_ids[start : start + BATCH])
            with self._client_errors():
                self._client.delete(self._name, filter=f"row_key in [{keys}]", timeout=TIMEOUT_S)

    def count(self) -> int:
        """Return how many points the collection holds."""
        with self._client_errors():
            found = self._client.query(
                self._name, filter="", output_fields=["count(*)"], timeout=TIMEOUT_S
            )
        return found[0]["count(*)"]

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the points nearest to `vector`, nearest first, at most `MAX_TOP`."""
        with self._client_errors():
            found = self._client.search(
                self._name,
                data=[vector],
                limit=min(top, MAX_TOP),
                output_fields=list(Point.__struct_fields__),
                timeout=TIMEOUT_S,
            )
        return [
            Hit(point=msgspec.convert(each["entity"], Point), score=each["distance"])
            for each in found[0]
        ]

    def close(self) -> None:
        """Close the connection, and a local `.db`."""
        with self._client_errors():
            self._client.close()
            if self._lite is not None:
                server, database = self._lite
                server.stop(grace=None).wait()
                database.close()

    @contextmanager
    def _client_errors(self) -> Generator[None]:
        """Turn the client's errors into `SinkError`."""
        try:
            yield
        except (MilvusException, MilvusLiteError, grpc.RpcError, ValueError, OSError) as error:
            reason = getattr(error, "message", error)
            advice = (
                "Check the address, the collection's name, and that Milvus is running."
                if self._is_server
                else "Check its name and the collection's. Milvus Lite 3 reads no older .db files."
            )
            raise SinkError(
                f"Milvus at {self._place} cannot be used: {reason}. {advice}"
            ) from error


def _key(id: str) -> str:
    return str(uuid5(NAMESPACE_OID, id))
