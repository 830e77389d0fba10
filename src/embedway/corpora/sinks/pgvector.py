"""Stores vectors in a table of Postgres that has the extension pgvector."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import LiteralString

import msgspec
import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed, Identifier, Literal
from sqlalchemy import URL

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError
from embedway.storage.postgres import describe, parse_url

_CONNECT_S = 10
"""The longest to wait for a connection, in seconds."""
_MAX_NAME = 63
"""The longest name of a table, in bytes. Postgres would cut a longer one without an error."""
_COLUMNS = SQL("id, row_id, chunk, start, text, embedding")
_SENT_AS = ("text", "text", "int4", "int4", "text", "bytea")
"""The types to send columns as. psycopg does not know `vector`, so we send its bytes."""
_CURES = {
    'extension "vector" is not available': "Install pgvector on the server: `apt-get install "
    "postgresql-17-pgvector` for Postgres 17, or run the container image pgvector/pgvector:pg17.",
    "permission denied to create extension": "Let an administrator of the database run "
    "`CREATE EXTENSION vector` there once.",
    'type "vector" does not exist': "Add the schema of pgvector to the user's search_path.",
    "permission denied": "Let this user create, read and change tables there.",
    "password": "Correct the user or the password in the URL.",
    "FATAL: role": "Correct the user in the URL, or make it with `createuser`.",
    "FATAL: database": "Correct the database in the URL, or make it with `createdb`.",
    "duplicate key": "Two rows have points of the same id. Change the id of one of the rows.",
    "index row": "Use ids of less than 2,700 bytes.",
}
"""Advice for messages of Postgres that contain these words. Only the first match is added."""


class PgvectorSink:
    """Keeps points in one table, which its users may query as they like.

    The table's comment is the `Collection` as JSON. Whoever renames, dumps, restores or drops the
    table does the same to its comment; a second table for it could be forgotten.

    Search is exact: it compares the question with every point. There is no index of vectors,
    because loading into one is hundreds of times slower, its answers are approximate, and it takes
    at most 2,000 dimensions. An operator may create one after loading, which `search` then uses:
    `CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)`. Then at most 40 points are
    found, unless the URL ends in `?options=-chnsw.ef_search%3D200`.

    Postgres cannot store the character U+0000. Texts get U+FFFD in its place, and ids that contain
    it are refused.
    """

    def __init__(self, target: SinkTarget) -> None:
        url = _parse(target.place)
        self._place = describe(url)
        self._name = target.collection
        self._table = Identifier(self._name)
        if len(self._name.encode()) > _MAX_NAME:
            raise SinkError(f"The name {self._name!r} has more than {_MAX_NAME} bytes. Shorten it.")
        options = {"connect_timeout": _CONNECT_S, "application_name": "embedway"}
        options |= {name: ",".join(values) for name, values in url.normalized_query.items()}
        options |= url.translate_connect_args(username="user", database="dbname")
        options["client_encoding"] = "utf8"
        with self._explaining():
            self._connection = psycopg.connect(
                make_conninfo("", **options),
                autocommit=True,
                prepare_threshold=None,  # poolers such as PgBouncer may lose prepared statements
            )

    def read_collection(self) -> Collection | None:
        """Return the collection from the table's comment; None if there is no table."""
        found = self._execute(
            "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass({name})",
            name=self._table.as_string(self._connection),
        ).fetchone()
        try:
            return msgspec.json.decode(found[0] or "", type=Collection) if found else None
        except msgspec.DecodeError as error:
            raise SinkError(
                f"The table {self._name!r} in {self._place} was not made by Embedway, or its "
                "comment was changed. Name another table after the # of the URL."
            ) from error

    def create(self, collection: Collection) -> None:
        """Create the extension, the table and its comment, all or none of them."""
        with self._explaining(), self._connection.transaction():
            self._execute("CREATE EXTENSION IF NOT EXISTS vector")
            # The collation C is fast, and stays valid when the server's system is upgraded.
            self._execute(
                'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, '
                'row_id text COLLATE "C" NOT NULL, chunk integer NOT NULL, '
                "start integer NOT NULL, text text NOT NULL, embedding vector({size}) NOT NULL)",
                size=collection.dimensions,
            )
            self._execute("CREATE INDEX ON {table} (row_id)")
            comment = msgspec.json.encode(collection).decode()
            self._execute("COMMENT ON TABLE {table} IS {comment}", comment=comment)

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Delete the known rows and copy all points into the table, in one transaction."""
        if bad := next((each.id for each in points if "\0" in each.id), None):
            raise SinkError(f"Postgres cannot store the id {bad!r}, as it has U+0000. Change it.")
        width = vectors.shape[1]
        layout = [("width", ">u2"), ("unused", ">u2"), ("values", ">f4", (width,))]
        embeddings = np.zeros(len(points), layout)  # the binary form of pgvector's vectors
        embeddings["width"] = width
        embeddings["values"] = vectors
        with self._explaining(), self._connection.transaction():
            self.delete(known_rows)
            statement = self._sql("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")
            with self._connection.cursor().copy(statement) as copy:
                copy.set_types(_SENT_AS)
                for each, embedding in zip(points, embeddings, strict=True):
                    text = each.text.replace("\0", "\ufffd")
                    row = (each.id, each.row_id, each.chunk, each.start, text, embedding.tobytes())
                    copy.write_row(row)

    def delete(self, row_ids: Sequence[str]) -> None:
        """Delete all points of these rows."""
        storable = [each for each in row_ids if "\0" not in each]  # others were never stored
        self._execute("DELETE FROM {table} WHERE row_id = ANY({rows})", rows=storable)

    def count(self) -> int:
        """Return how many points the table has."""
        found = self._execute("SELECT count(*) FROM {table}").fetchone()
        return found[0] if found else 0

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Return the nearest points by their cosine distance, nearest first."""
        found = self._execute(
            "SELECT {columns} <=> {question}::vector AS distance FROM {table} "
            "ORDER BY distance LIMIT {top}",
            question=str(vector.tolist()),
            top=top,
        )
        return [
            Hit(point=Point(id=id, row_id=row, chunk=chunk, start=start, text=text), score=1 - far)
            for id, row, chunk, start, text, far in found
        ]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _sql(self, text: LiteralString, **values: object) -> Composed:
        # No parameters: with them, psycopg would look for more in a table's name that contains %.
        literals = {name: Literal(value) for name, value in values.items()}
        return SQL(text).format(table=self._table, columns=_COLUMNS, **literals)

    def _execute(self, text: LiteralString, **values: object) -> psycopg.Cursor[TupleRow]:
        with self._explaining():
            return self._connection.execute(self._sql(text, **values))

    @contextmanager
    def _explaining(self) -> Generator[None]:
        try:
            yield
        except (psycopg.Error, UnicodeEncodeError) as error:
            message = " ".join(str(error).partition("\nLINE ")[0].split()).rstrip(".?")
            lost = "Check that Postgres runs and can be reached from here, then try again."
            usual = lost if isinstance(error, psycopg.OperationalError) else ""
            cure = next((cure for words, cure in _CURES.items() if words in message), usual)
            raise SinkError(f"{self._place}: {message}. {cure}".rstrip()) from error


def _parse(place: str) -> URL:
    try:
        url = parse_url(place)
        if "@" in f"{url.host}{url.database}":  # a piece of a password
            raise ValueError("an @ in the user or the password must be written as %40")
    except ValueError as error:
        raise SinkError(f"The URL of the sink is not valid: {error}.") from None
    return url
