"""Looks up keys, projects and end users in the database for requests."""

from collections.abc import Callable, Collection
from typing import TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, select

from embedway.core.keys import KeyContext
from embedway.core.project import EndUser, Project
from embedway.organization.keys import KeyStore
from embedway.organization.projects import EndUserStore
from embedway.storage import records
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import end_users, keys, projects

Result = TypeVar("Result")

UNREADABLE = "Keys cannot be checked right now. Try again."


class Directory:
    """Looks up keys, projects and end users.

    Methods raise `StorageUnavailable` if the database cannot be read.
    """

    def __init__(self, engine: Engine, *, availability: DatabaseAvailability | None = None) -> None:
        self._engine = engine
        self._threads = QueryThreads(
            "directory", use="read", availability=availability, unavailable=UNREADABLE
        )

    async def find_key_by_digest(self, digest: bytes) -> KeyContext | None:
        """Return the key with this secret, current or previous, in any state, or None."""
        current_or_previous = (keys.c.digest == digest) | (keys.c.previous_digest == digest)
        context = await self._read(lambda connection: _find_key(connection, current_or_previous))
        return context and msgspec.structs.replace(context, key=context.key.opened_by(digest))

    async def find_known_digests(self, digests: Collection[bytes]) -> Collection[bytes]:
        """Return those of `digests` that belong to the current or previous secret of a key."""
        current = select(keys.c.digest).where(keys.c.digest.in_(digests))
        previous = select(keys.c.previous_digest).where(keys.c.previous_digest.in_(digests))
        query = current.union_all(previous)
        return await self._read(lambda connection: set(connection.execute(query).scalars()))

    async def find_key(self, key_id: str) -> KeyContext | None:
        """Return the key with this id in any state, or None."""
        return await self._read(lambda connection: _find_key(connection, keys.c.id == key_id))

    async def find_project(self, project_id: str) -> tuple[Project, bool] | None:
        """Return the project, archived or not, and whether any of its end users has a record."""
        return await self._read(lambda connection: _find_project(connection, project_id))

    async def find_end_user(self, project_id: str, id: str) -> EndUser | None:
        """Return the record of an end user, or None if there is none."""
        return await self._read(lambda connection: EndUserStore(connection).get(project_id, id))

    async def _read(self, find: Callable[[Connection], Result]) -> Result:
        return await self._threads.read(self._engine, find)


def _find_key(connection: Connection, condition: ColumnElement[bool]) -> KeyContext | None:
    store = KeyStore(connection)
    key = store.find(condition)
    if key is None:
        return None
    issuer = store.get(key.issued_by) if key.issued_by else None
    project, has_end_users = (key.project_id and _find_project(connection, key.project_id)) or (
        None,
        False,
    )
    return KeyContext(key=key, issuer=issuer, project=project, has_end_users=has_end_users)


def _find_project(connection: Connection, project_id: str) -> tuple[Project, bool] | None:
    any_end_user = (
        select(end_users.c.id).where(end_users.c.project_id == project_id).exists().label("any")
    )
    query = select(projects, any_end_user).where(projects.c.id == project_id)
    row = connection.execute(query).mappings().first()
    return (records.from_row(row, Project), bool(row["any"])) if row else None
