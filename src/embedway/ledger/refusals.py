"""Stores the counts of refused requests."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Engine, text

from embedway.core.refusals import RefusalCount
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.query_threads import QueryThreads

# SQLite and Postgres both understand this.
_ADD = text(
    "INSERT INTO refusals (at_ms, project_id, key_id, reason, requests) "
    "VALUES (:at_ms, :project_id, :key_id, :reason, :requests) "
    "ON CONFLICT (at_ms, project_id, key_id, reason) "
    "DO UPDATE SET requests = refusals.requests + excluded.requests"
)


class RefusalStore:
    """The counts of refused requests in the database."""

    def __init__(self, engine: Engine, *, availability: DatabaseAvailability | None = None) -> None:
        self._engine = engine
        self._threads = QueryThreads(
            "refusals",
            use="commit",
            availability=availability,
            unavailable="Refused requests cannot be counted right now.",
        )

    async def add(self, counts: Mapping[RefusalCount, int]) -> None:
        """Add all of these counts to the stored ones, or none of them.

        Raises:
            CommitInDoubt: They may have been added.
            StorageUnavailable: They have not been added.
        """
        # Sorted, so that two processes never wait for each other's rows.
        rows: list[dict[str, Any]] = [
            msgspec.structs.asdict(refusal) | {"requests": requests}
            for refusal, requests in sorted(counts.items())
        ]

        def write(about_to_commit: Callable[[], None]) -> None:
            with self._engine.begin() as connection:
                connection.execute(_ADD, rows)
                about_to_commit()

        await self._threads.write(write)

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._threads.close()
