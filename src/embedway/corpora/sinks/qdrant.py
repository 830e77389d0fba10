# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
# Its packages are optional, and most come without types.
"""Stores vectors in Qdrant: a server's, or a folder that the client itself reads and writes."""

import re
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from uuid import NAMESPACE_OID, uuid5

import msgspec
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.local.qdrant_local import QdrantLocal
from yarl import URL

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError

METADATA_KEY = "embedway"
"""The key of the collection's metadata under which its `Collection` is stored."""

BATCH = 100
"""The most points or rows in one request. A server takes 32 MiB of JSON, 20 bytes per float."""

TIMEOUT_S = 60


class QdrantSink:
    """A collection of Qdrant.

    A point's payload has the fields of `Point`; its Qdrant id is a UUID made from `Point.id`.
    """

    def __init__(self, target: SinkTarget) -> None:
        self._name = target.collection
        self._place = re.sub("//[^/]*@", "//", target.place)  # keep keys out of messages
        is_server = target.place.startswith(("http://", "https://"))
        if not is_server and re.search(r"://|:\d+$", target.place):
            raise SinkError(
                f"{target.place!r} is neither an http address nor a folder. Write an address as "
                "http://localhost:6333."
            )
        self._client: QdrantClient | QdrantLocal
        with self._client_errors():
            if is_server:
                url = URL(target.place)
                self._client = QdrantClient(
                    url=self._place,
                    api_key=url.password or url.user,
                    timeout=TIMEOUT_S,
                    check_compatibility=False,  # it only warns, from another thread
                )
            else:
                self._client = QdrantLocal(self._place, force_disable_check_same_thread=True)
                self._write_ahead(self._client)

    def read_collection(self) -> Collection | None:
        """Return what the collection holds; None if there is no such collection.

        Raises:
            SinkError: Something other than Embedway made the collection.
        """
        with self._client_errors():
            if not self._client.collection_exists(self._name):
                return None
            metadata = self._client.get_collection(self._name).config.metadata or {}
        if METADATA_KEY not in metadata:
            raise SinkError(
                f"The collection {self._name!r} of Qdrant at {self._place} was not made by "
                "Embedway. Write another name after '#'."
            )
        return msgspec.convert(metadata[METADATA_KEY], Collection)

    def create(self, collection: Collection) -> None:
        """Create the collection, with `collection` in its metadata."""
        with self._client_errors():
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(
                    size=collection.dimensions, distance=models.Distance.COSINE
                ),
                metadata={METADATA_KEY: msgspec.to_builtins(collection)},
            )
            if isinstance(self._client, QdrantLocal):
                self._write_ahead(self._client)
                return
            if not self._client.get_collection(self._name).config.metadata:
                self._client.delete_collection(self._name)
                raise SinkError(
                    f"Qdrant at {self._place} keeps no metadata of collections. Update it to "
                    "version 1.16 or later."
                )
            self._client.create_payload_index(
                self._name, "row_id", field_schema=models.PayloadSchemaType.KEYWORD
            )

    def _write_ahead(self, client: QdrantLocal) -> None:
        """Let SQLite store a point without waiting for the disk, many times as fast.

        What was stored survives `kill -9`; a power cut loses the last points at most.
        """
        collection = client.collections.get(self._name)
        if collection is not None and collection.storage is not None:
            collection.storage.storage.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
            )

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Delete all points of `known_rows`, then store `points` in batches."""
        self.delete(known_rows)
        for start in range(0, len(points), BATCH):
            batch = points[start : start + BATCH]
            with self._client_errors():
                self._client.upsert(
                    self._name,
                    models.Batch(
                        ids=[str(uuid5(NAMESPACE_OID, each.id)) for each in batch],
                        vectors=vectors[start : start + BATCH].tolist(),
                        payloads=[msgspec.to_builtins(each) for each in batch],
                    ),
                )

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows."""
        for start in range(0, len(row_ids), BATCH):
            rows = models.MatchAny(any=list(row_ids[start : start + BATCH]))
            condition = models.FieldCondition(key="row_id", match=rows)
            with self._client_errors():
                self._client.delete(self._name, models.Filter(must=[condition]))

    def count(self) -> int:
        """Return how many points the collection holds."""
        with self._client_errors():
            return self._client.count(self._name).count

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the points nearest to `vector`, nearest first."""
        with self._client_errors():
            nearest = models.NearestQuery(nearest=vector.tolist())
            found = self._client.query_points(self._name, nearest, limit=top).points
        return [Hit(point=msgspec.convert(each.payload, Point), score=each.score) for each in found]

    def close(self) -> None:
        """Close the connections or files."""
        self._client.close()

    @contextmanager
    def _client_errors(self) -> Generator[None]:
        """Turn the client's errors into `SinkError`."""
        where = f"Qdrant at {self._place}"
        try:
            yield
        except ResponseHandlingException as error:
            reason = str(error).partition("\n")[0]
            raise SinkError(
                f"{where} does not answer ({reason}). Check the address and that Qdrant is running."
            ) from error
        except UnexpectedResponse as error:
            reason = error.content[:300].decode(errors="replace").strip()
            advice = {
                401: " Write its API key into the address: https://:KEY@host:6333.",
                403: " Use an API key that may write.",
                404: " Check the address and the collection's name.",
            }.get(error.status_code or 0, "")
            raise SinkError(f"{where} answered {error.status_code} ({reason}).{advice}") from error
        except (QdrantException, ValueError, RuntimeError, OSError, sqlite3.Error) as error:
            reason = str(error).rstrip(".")
            raise SinkError(
                f"{where} cannot be used: {reason}. "
                "Check the address or folder, and the collection's name."
            ) from error
