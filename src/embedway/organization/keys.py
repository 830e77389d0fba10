"""Keys at rest: created, listed, changed, revoked."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Engine, select

from embedway.core.keys import Key
from embedway.core.page import Page
from embedway.organization.audit_event import AuditEvent
from embedway.organization.audit_store import LOCK, AuditStore
from embedway.storage import pages, records
from embedway.storage.database import locked_transaction
from embedway.storage.tables import keys


class KeyFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys: all, but for what is said."""

    project_id: str | None = None
    """Of this project."""
    admin: bool = False
    """Of no project."""
    issued_by: str | None = None
    """By this key."""


class KeyStore(records.Records[Key]):
    """The keys, in one transaction."""

    table = keys
    type = Key

    def any(self) -> bool:
        """Whether there has ever been one."""
        return self._connection.execute(select(keys.c.id).limit(1)).first() is not None

    def page(
        self,
        which: KeyFilter,
        *,
        after: str | None,
        limit: int,
        revoked: bool = True,
        descending: bool = False,
    ) -> Page[Key]:
        """The next of them, oldest first unless `descending`; with `revoked` ones, or without."""
        fields = {} if which.project_id is None else {"project_id": which.project_id}
        fields |= {"project_id": None} if which.admin else {}
        fields |= {} if which.issued_by is None else {"issued_by": which.issued_by}
        return pages.read_page(
            self._connection,
            select(keys).filter_by(**fields),
            *(() if revoked else (keys.c.revoked_ms.is_(None),)),
            type=Key,
            by=(keys.c.created_ms, keys.c.id),
            after=after,
            limit=limit,
            descending=descending,
        )


class KeyBootstrap:
    """The keys on a SQL database, for who is no actor: a first start, a look at what there is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, key: Key) -> None:
        """Stores a new key."""
        with self._engine.begin() as connection:
            KeyStore(connection).add(key)

    def create_first(self, key: Key) -> bool:
        """Stores `key` if there has never been one; says whether it did."""
        with locked_transaction(self._engine, lock=LOCK) as connection:
            if KeyStore(connection).any():
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
        """Every key, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_ms, keys.c.id))
            return [records.from_row(row, Key) for row in rows.mappings()]
