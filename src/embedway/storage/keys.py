"""Keys at rest: found by digest, created, listed, revoked."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from sqlalchemy import Engine, RowMapping, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from embedway.core.errors import StorageUnavailable
from embedway.core.keys import Key
from embedway.storage.tables import keys


class SqlKeys:
    """The key store on a SQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="keys")

    async def find(self, digest: bytes) -> Key | None:
        """See `embedway.ports.storage.Keys.find`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._select, digest)

    def create(self, key: Key) -> None:
        """Stores a new key."""
        with self._engine.begin() as connection:
            connection.execute(insert(keys).values(msgspec.structs.asdict(key)))

    def create_first(self, key: Key) -> bool:
        """Stores `key` if there has never been one; says whether it did."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if connection.scalar(select(func.count()).select_from(keys)):
                return False
            connection.execute(insert(keys).values(msgspec.structs.asdict(key)))
            return True

    def all(self) -> Sequence[Key]:
        """Every key, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_ms, keys.c.id))
            return [_key(row) for row in rows.mappings()]

    def revoke(self, key_id: str, *, at_ms: int) -> bool:
        """Revokes a key for good; False if there is none of this id that is not revoked yet."""
        with self._engine.begin() as connection:
            revoked = connection.execute(
                update(keys)
                .where(keys.c.id == key_id, keys.c.revoked_ms.is_(None))
                .values(revoked_ms=at_ms)
            )
            return revoked.rowcount == 1

    def _select(self, digest: bytes) -> Key | None:
        try:
            with self._engine.connect() as connection:
                found = connection.execute(select(keys).where(keys.c.digest == digest))
                row = found.mappings().first()
        except SQLAlchemyError as error:
            raise StorageUnavailable("Keys cannot be checked right now. Try again.") from error
        return _key(row) if row else None


def _key(row: RowMapping) -> Key:
    key = Key(**row)
    return msgspec.structs.replace(
        key,
        models=None if key.models is None else tuple(key.models),
        providers=None if key.providers is None else tuple(key.providers),
    )
