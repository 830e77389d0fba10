"""The counts of refused requests at rest."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from embedway.core.errors import StorageUnavailable
from embedway.core.refusals import Refusal

# Understood by SQLite and Postgres alike.
_ADD = text(
    "INSERT INTO refusals (at_ms, project_id, key_id, reason, requests) "
    "VALUES (:at_ms, :project_id, :key_id, :reason, :requests) "
    "ON CONFLICT (at_ms, project_id, key_id, reason) "
    "DO UPDATE SET requests = refusals.requests + excluded.requests"
)


class SqlRefusals:
    """The counts of `embedway.ports.storage.RefusalStore` in a SQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refusals")

    async def add(self, counts: Mapping[Refusal, int]) -> None:
        """See `embedway.ports.storage.RefusalStore.add`."""
        # In order, so that two processes never wait for each other's rows.
        rows: list[dict[str, Any]] = [
            msgspec.structs.asdict(refusal) | {"requests": requests}
            for refusal, requests in sorted(counts.items())
        ]
        # Not given up after a while, as requests are: what was given up may be written after all.
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)

    def close(self) -> None:
        """End its thread, once what it does is done."""
        self._thread.shutdown()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(_ADD, rows)
        except SQLAlchemyError as error:
            raise StorageUnavailable("Refused requests cannot be counted right now.") from error
