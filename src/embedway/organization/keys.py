"""Stores keys."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Engine, select

from embedway.core.keys import Key
from embedway.core.page import Page
from embedway.organization.audit_store import LOCK, AuditEvent, AuditStore
from embedway.storage import pages, records
from embedway.storage.database import locked_transaction
from embedway.storage.tables import keys


class KeyStore(records.Records[Key]):
    """Reads and writes keys in one transaction."""

    table = keys
    type = Key

    def has_any(self) -> bool:
        """Return whether a key has ever been created."""
        return self._connection.execute(select(keys.c.id).limit(1)).first() is not None

    def read_page(
        self,
        *,
        where: Mapping[str, str | None],
        after: str | None,
        limit: int,
        revoked: bool = True,
        descending: bool = False,
    ) -> Page[Key]:
        """Return the next keys, oldest first unless `descending`, with or without revoked ones.

        `where` has values that fields of the keys must have.
        """
        return pages.read_page(
            self._connection,
            select(keys).filter_by(**where),
            *(() if revoked else (keys.c.revoked_ms.is_(None),)),
            type=Key,
            by=(keys.c.created_ms, keys.c.id),
            after=after,
            limit=limit,
            descending=descending,
        )


class KeyBootstrap:
    """Reads and creates keys without an actor, for the first start and for `embedway doctor`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, key: Key) -> None:
        """Store a new key."""
        with self._engine.begin() as connection:
            KeyStore(connection).add(key)

    def create_first(self, key: Key) -> bool:
        """Store `key` if no key has ever been created. Return whether it was stored."""
        with locked_transaction(self._engine, lock=LOCK) as connection:
            if KeyStore(connection).has_any():
                return False
            KeyStore(connection).add(key)
            AuditStore(connection).add(
                AuditEvent(
                    at_ms=key.created_ms,
                    actor="cli:serve",
                    action="api_key.created",
                    project_id=key.project_id,
                    target=key.id,
                    details={"name": key.name, "scopes": list(key.scopes)},
                )
            )
            return True

    def all(self) -> Sequence[Key]:
        """Return every key, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_ms, keys.c.id))
            return [records.from_row(row, Key) for row in rows.mappings()]
