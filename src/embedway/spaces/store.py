"""Stores references and proofs of vector spaces."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, insert, select

from embedway.core.request import InputType
from embedway.spaces.proof import Proof, Reference, ReferenceKey
from embedway.storage import database, records
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import space_proofs, space_references

Result = TypeVar("Result")
OnChange = Callable[[Connection, Proof | None, Proof], None]
"""Receives the transaction that stores a proof, the proof stored before, and the new one."""

NO_INPUT_TYPE = "none"
"""Stands for no input type, because a primary key column cannot be null."""


class SpaceStore:
    """The tables of references and proofs.

    Methods raise `StorageUnavailable` if the database cannot be read or written.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        availability: DatabaseAvailability | None = None,
        on_change: OnChange = lambda _connection, _before, _after: None,
    ) -> None:
        self._engine = engine
        self._on_change = on_change
        self._threads = QueryThreads(
            "spaces",
            use="commit",
            availability=availability,
            unavailable="What is proven of spaces cannot be read or kept.",
        )

    async def load(
        self, *, known: Collection[ReferenceKey] = ()
    ) -> tuple[Sequence[Reference], Sequence[Proof]]:
        """Return all proofs, and all references except the `known` ones, which never change."""

        def load() -> tuple[Sequence[Reference], Sequence[Proof]]:
            with self._engine.connect() as connection:
                keys = connection.execute(select(*space_references.primary_key)).mappings()
                news = [row for row in keys if _key(row) not in known]
                found = (_found(connection, space_references, row) for row in news)
                proofs = connection.execute(select(space_proofs)).mappings()
                references = [_reference(row) for row in found if row is not None]
                return references, [_proof(row) for row in proofs]

        return await self._threads.run(load)

    async def keep_reference(self, reference: Reference) -> Reference:
        """Store `reference` unless there is one for the same texts; return the stored one."""

        def keep(connection: Connection) -> Reference:
            row = _reference_row(reference)
            found = _found(connection, space_references, row)
            if found is not None and found["texts"] == reference.texts:
                return _reference(found)
            _replace(connection, space_references, row)
            return reference

        return await self._transaction(keep)

    async def keep_proof(self, proof: Proof, *, release: bool = False) -> Proof:
        """Store `proof`, but keep a stored drift unless `release`; return the stored one."""

        def keep(connection: Connection) -> Proof:
            row = _proof_row(proof)
            found = _found(connection, space_proofs, row)
            if found is not None and found["state"] == "drifted" and not release:
                return _proof(found)
            _replace(connection, space_proofs, row)
            self._on_change(connection, _proof(found) if found else None, proof)
            return proof

        return await self._transaction(keep)

    async def _transaction(self, work: Callable[[Connection], Result]) -> Result:
        def run() -> Result:
            # Two processes may learn the same at once.
            with database.locked_transaction(self._engine, lock="spaces") as connection:
                return work(connection)

        return await self._threads.run(run)


def _same(table: Table, row: Mapping[Any, Any]) -> list[ColumnElement[bool]]:
    return [column == row[column.name] for column in table.primary_key]


def _found(
    connection: Connection, table: Table, row: Mapping[Any, Any]
) -> Mapping[Any, Any] | None:
    return connection.execute(select(table).where(*_same(table, row))).mappings().first()


def _replace(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    connection.execute(delete(table).where(*_same(table, row)))
    connection.execute(insert(table).values(row))


def _reference_row(reference: Reference) -> dict[str, Any]:
    return msgspec.structs.asdict(reference) | {
        "input_type": reference.input_type or NO_INPUT_TYPE,
        "count": reference.vectors.shape[0],
        "vectors": reference.vectors.astype("<f4").tobytes(),
    }


def _reference(row: Mapping[Any, Any]) -> Reference:
    count, content = row["count"], row["vectors"]
    vectors = np.frombuffer(content, "<f4").astype(np.float32).reshape(count, -1)
    fields = {name: row[name] for name in ("model", "revision", "texts", "made_by", "made_ms")}
    return Reference(**fields, input_type=_input_type(row), vectors=vectors)


def _proof_row(proof: Proof) -> dict[str, Any]:
    return msgspec.structs.asdict(proof) | {
        "input_type": proof.input_type or NO_INPUT_TYPE,
        "models": sorted(proof.models),
    }


def _proof(row: Mapping[Any, Any]) -> Proof:
    return records.from_row({**row, "input_type": _input_type(row)}, Proof)


def _key(row: Mapping[Any, Any]) -> ReferenceKey:
    return row["model"], row["revision"], _input_type(row)


def _input_type(row: Mapping[Any, Any]) -> InputType | None:
    stored = row["input_type"]
    return None if stored == NO_INPUT_TYPE else stored
