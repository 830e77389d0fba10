"""Reads recent activity for many readers at little cost: each question at most twice a second."""

from collections.abc import Callable
from functools import partial

import msgspec

from embedway.concurrency.ttl_cache import TTLCache
from embedway.ledger.activity import Activity
from embedway.ledger.query import Column, EntityNames
from embedway.ledger.reports import UsageReports
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.query_threads import QueryThreads


class NamedActivity(msgspec.Struct, frozen=True):
    """Recent activity, with the names of its projects and keys."""

    activity: Activity
    names: EntityNames


class ActivityReader:
    """Recent activity of all replicas; one reader for the process."""

    def __init__(
        self,
        reports: UsageReports,
        *,
        availability: DatabaseAvailability,
        now_ms: Callable[[], int],
    ) -> None:
        self._reports = reports
        self._now_ms = now_ms
        self._threads = QueryThreads(
            "activity",
            use="read",
            availability=availability,
            unavailable="Usage cannot be read right now. Try again.",
        )
        self._cache = TTLCache[tuple[Column, int], NamedActivity](self._find)

    async def read(self, by: Column, *, seconds: int) -> NamedActivity:
        """Return what happened in the last seconds, grouped by a column, at most 0.5 s old.

        Raises:
            InvalidRequest: It takes too long.
            StorageUnavailable: The database cannot be read.
        """
        return await self._cache.get((by, seconds))

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._threads.close()

    async def _find(self, question: tuple[Column, int]) -> NamedActivity:
        return await self._threads.run(partial(self._query, *question))

    def _query(self, by: Column, seconds: int) -> NamedActivity:
        now_ms = self._now_ms()
        since_ms = now_ms - seconds * 1000
        found = self._reports.read_activity(by, since_ms=since_ms, now_ms=now_ms)
        ids = {each.value or "" for each in found.groups}
        names = self._reports.read_names(
            projects={each.project_id for each in found.refusals}
            | (ids if by == "project_id" else set()),
            keys={each.key_id for each in found.refusals} | (ids if by == "key_id" else set()),
        )
        return NamedActivity(found, names)
