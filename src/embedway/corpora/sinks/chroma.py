# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
# Its packages are optional, and most come without types.
"""Keeps vectors in a Chroma collection, on a server or in a folder."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import chromadb
import chromadb.errors
import msgspec
from chromadb.config import Settings
from yarl import URL

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError

_METADATA = "embedway"
"""The key of the `Collection` in the Chroma collection's metadata."""
_PREFIX = "id:"
"""Begins each id in Chroma, which refuses an empty one. The metadata has the id without it."""
_MAX_BATCH = 250
"""The most points in one request."""
_MAX_BYTES = 8_000_000
"""About the most bytes in one request; a server refuses 40 MiB."""
_ROWS_PER_DELETE = 1_000
"""The most row ids in one condition. SQLite, in which Chroma looks them up, takes 32,766."""
_NEVER = 2_000_000_000
"""More writes than there will be; Chroma writes its index to files after so many."""
_CURES = (
    ("already exists", "Name another collection after the # of the sink."),
    ("does not exist", "Name one that exists after the # of the sink, or load rows into it first."),
    ("Expected a name", "Name the collection so after the # of the sink."),
    ("Expected IDs to be unique", "Change one of these ids."),
    ("too large", "Cut the rows into chunks, or raise the server's max_payload_size_bytes."),
)
"""The advice to add if Chroma's message contains these words."""


class ChromaSink:
    """Keeps points in one Chroma collection.

    Texts are its documents. Chroma's own variables, such as CHROMA_CLIENT_AUTH_PROVIDER and
    CHROMA_CLIENT_AUTH_CREDENTIALS, say how to log in to a server. Only one process at a time may
    use a folder.

    In a folder, Chroma overwrites the files of its index in place, so `kill -9` at that moment
    loses points stored before. So they are never written here: Chroma's log, in SQLite, keeps
    every write, and each opening builds the index from it again. That takes longer with each
    write; for many points, use a server.

    Search uses Chroma's HNSW index, so a large collection may miss some of the nearest points.
    """

    def __init__(self, target: SinkTarget) -> None:
        """Use the server or folder of `target`, which the first call opens.

        Raises:
            SinkError: The server's address is not one.
        """
        self._place = target.place
        self._name = target.collection
        self._is_server = target.place.startswith(("http://", "https://"))
        try:  # the user and the password are in no message
            self._shown = str(URL(self._place).with_user(None)) if self._is_server else self._place
        except ValueError:
            raise SinkError(
                "The address of the Chroma server is not valid. Write it as http://localhost:8000."
            ) from None
        self._client: Any = None
        self._opened: Any = None

    def read_collection(self) -> Collection | None:
        """Return the collection from Chroma's metadata; None if Chroma has none of that name."""
        # Connecting would make the folder, also of a mistyped name.
        if not self._is_server and not Path(self._place).exists():
            return None
        with self._explaining():
            try:
                metadata = cast("dict[str, str]", self._collection().metadata or {})
            except chromadb.errors.NotFoundError:
                return None
        try:
            return msgspec.json.decode(metadata.get(_METADATA, ""), type=Collection)
        except msgspec.DecodeError as error:
            raise SinkError(
                f"The collection {self._name!r} in {self._shown!r} was not made by Embedway. "
                "Name another one after the # of the sink."
            ) from error

    def create(self, collection: Collection) -> None:
        """Create the Chroma collection, with its metadata."""
        durable = {} if self._is_server else {"sync_threshold": _NEVER}
        with self._explaining():
            self._opened = self._connect().create_collection(
                self._name,
                metadata={_METADATA: msgspec.json.encode(collection).decode()},
                configuration={"hnsw": {"space": "cosine", **durable}},
                embedding_function=None,
            )

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Delete the known rows, then store the points in batches."""
        self.delete(known_rows)
        with self._explaining():
            heaviest = 6 * vectors.shape[1] + 4 * max(
                (len(each.text) for each in points), default=0
            )
            limits = (_MAX_BATCH, _MAX_BYTES // heaviest, self._connect().get_max_batch_size())
            size = max(1, min(limits))  # a server that does not tell its limit says -1
            for start in range(0, len(points), size):
                some = points[start : start + size]
                metadatas = [msgspec.to_builtins(each) for each in some]
                self._collection().upsert(
                    ids=[_PREFIX + each.id for each in some],
                    embeddings=vectors[start : start + size],
                    documents=[each.pop("text") for each in metadatas],
                    metadatas=metadatas,
                )

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows."""
        with self._explaining():
            for start in range(0, len(row_ids), _ROWS_PER_DELETE):
                some = list(row_ids[start : start + _ROWS_PER_DELETE])
                self._collection().delete(where={"row_id": {"$in": some}})

    def count(self) -> int:
        """Return how many points the collection has."""
        with self._explaining():
            return self._collection().count()

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the nearest points by their cosine distance, nearest first."""
        with self._explaining():
            found = self._collection().query(
                query_embeddings=[vector],
                n_results=top,
                include=["documents", "metadatas", "distances"],
            )
        rows = zip(found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True)
        return [
            Hit(point=msgspec.convert({**metadata, "text": text}, Point), score=1 - distance)
            for text, metadata, distance in rows
        ]

    def close(self) -> None:
        """Close the connection, or the folder."""
        if self._client is not None:
            self._client.close()
        self._client = self._opened = None

    def _connect(self) -> Any:
        if self._client is None:
            if not self._is_server:
                Path(self._place).mkdir(parents=True, exist_ok=True)
            # Chroma's close() leaves idle connections open, so keep none.
            settings = Settings(anonymized_telemetry=False, chroma_http_max_keepalive_connections=0)
            connect = chromadb.HttpClient if self._is_server else chromadb.PersistentClient
            self._client = cast("Any", connect)(self._place, settings=settings)
        return self._client

    def _collection(self) -> Any:
        if self._opened is None:
            self._opened = self._connect().get_collection(self._name, embedding_function=None)
        return self._opened

    @contextmanager
    def _explaining(self) -> Generator[None]:
        try:
            yield
        except Exception as error:  # Chroma raises its own, httpx's, ValueError and bare Exception
            message = " ".join(str(error).split()).rstrip(".?")
            general = (
                "Check the address and that Chroma runs there; start it with `chroma run`."
                if self._is_server
                else "Check the folder's name, its permissions and the free space."
            )
            cure = next((cure for words, cure in _CURES if words in message), general)
            raise SinkError(
                f"The Chroma collection {self._name!r} in {self._shown!r} cannot be used: "
                f"{message}. {cure}"
            ) from error
