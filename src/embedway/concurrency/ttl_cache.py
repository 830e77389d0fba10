"""Caches lookups in a slow store for a moment, and groups lookups of unknown names."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable
from itertools import islice
from typing import Generic, TypeVar

from embedway.concurrency.background import retrieve_error
from embedway.core.errors import EmbedwayError

FRESH_S = 0.5
"""How long an entry stays fresh, in seconds. Changes by other processes show within this time."""
MAX_ENTRIES = 10_000
PAUSE_S = 0.02
"""The pause after a query for unknown names, in seconds."""
MAX_NAMES = 500
"""The most unknown names in one query."""

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class TTLCache(Generic[Name, Value]):
    """Looks up values by name and keeps each for `FRESH_S` seconds.

    Callers that need the same name at the same time share one lookup.
    """

    def __init__(self, find: Callable[[Name], Awaitable[Value]]) -> None:
        self._find = find
        # The time at which each entry goes stale, in seconds, and its lookup.
        self._entries: dict[Name, tuple[float, asyncio.Future[Value]]] = {}

    def __contains__(self, name: Name) -> bool:
        """Return whether `name` has an entry, fresh or stale."""
        return name in self._entries

    async def get(self, name: Name) -> Value:
        """Return the value of `name`, at most `FRESH_S` seconds old.

        Raises:
            EmbedwayError: The lookup failed.
        """
        now_s = asyncio.get_running_loop().time()
        stale_s, lookup = self._entries.get(name, (0.0, None))
        if lookup is None or now_s >= stale_s:
            lookup = asyncio.ensure_future(self._find(name))
            lookup.add_done_callback(retrieve_error)
            self._keep(name, now_s + FRESH_S, lookup)
        # Shielded: others may wait for the same lookup when this request is cancelled.
        try:
            return lookup.result() if lookup.done() else await asyncio.shield(lookup)
        except EmbedwayError as error:
            # Each caller gets an error of its own, with its own `Retry-After`.
            raise error.copy() from error.__cause__

    def _keep(self, name: Name, stale_s: float, lookup: asyncio.Future[Value]) -> None:
        self._entries.pop(name, None)
        if len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = (stale_s, lookup)


class UnknownNames(Generic[Name]):
    """Finds out, in groups, which of many names exist in a slow store.

    It runs one query at a time and pauses after each, so a flood of invented names costs the store
    little and does not delay lookups of known names.
    """

    def __init__(self, find: Callable[[Collection[Name]], Awaitable[Collection[Name]]]) -> None:
        """Use `find`, which returns those of the given names that exist."""
        self._find = find
        self._waiting: dict[Name, asyncio.Future[bool | Exception]] = {}
        self._query: asyncio.Task[None] | None = None

    async def exists(self, name: Name) -> bool:
        """Return whether `name` exists now.

        Raises:
            EmbedwayError: The query failed.
        """
        answer = self._waiting.get(name)
        if answer is None:
            answer = self._waiting[name] = asyncio.get_running_loop().create_future()
            if self._query is None or self._query.done():
                self._query = asyncio.ensure_future(self._run_queries())
        # Shielded: others may wait for the same answer when this request is cancelled.
        result = await asyncio.shield(answer)
        if isinstance(result, EmbedwayError):
            raise result.copy() from result.__cause__
        if isinstance(result, Exception):
            raise result
        return result

    async def _run_queries(self) -> None:
        while self._waiting:
            group = {name: self._waiting.pop(name) for name in [*islice(self._waiting, MAX_NAMES)]}
            try:
                existing = await self._find(list(group))
            except Exception as error:  # noqa: BLE001  # a background task's top: who waits gets it
                for answer in group.values():
                    answer.set_result(error)
            else:
                for name, answer in group.items():
                    answer.set_result(name in existing)
            await asyncio.sleep(PAUSE_S)
