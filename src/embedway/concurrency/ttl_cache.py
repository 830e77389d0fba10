"""Answers of a slow store, kept for a moment and shared by all who ask for the same at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable
from itertools import islice
from typing import Generic, TypeVar

from embedway.core.errors import EmbedwayError

FRESH_S = 0.5
"""What any process changed is seen here within this time."""
MAX_KEPT = 10_000
PAUSE_S = 0.02
"""The pause after a question about unknown names, in seconds."""
MOST_AT_ONCE = 500
"""The most unknown names in one question."""

Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")


class TTLCache(Generic[Name, Found]):
    """Looks up, each name once in a while."""

    def __init__(self, find: Callable[[Name], Awaitable[Found]]) -> None:
        self._find = find
        # When the answer goes stale, and the lookup.
        self._kept: dict[Name, tuple[float, asyncio.Future[Found]]] = {}

    def __contains__(self, name: Name) -> bool:
        """Whether this name was looked up lately."""
        return name in self._kept

    async def get(self, name: Name) -> Found:
        """What there is of this name, or was a moment ago.

        Raises:
            EmbedwayError: As the lookup does.
        """
        now_s = asyncio.get_running_loop().time()
        stale_s, lookup = self._kept.get(name, (0.0, None))
        if lookup is None or now_s >= stale_s:
            lookup = asyncio.ensure_future(self._find(name))
            self._keep(name, now_s + FRESH_S, lookup)
        # Shielded: others may wait for the same lookup when this request is cancelled.
        try:
            return lookup.result() if lookup.done() else await asyncio.shield(lookup)
        except EmbedwayError as error:
            # Each asker gets an error of its own, with its own time to come back.
            raise error.copy() from error.__cause__

    def _keep(self, name: Name, stale_s: float, lookup: asyncio.Future[Found]) -> None:
        self._kept.pop(name, None)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = (stale_s, lookup)


class UnknownNames(Generic[Name]):
    """Asks a slow store which of many names exist, in groups.

    There is one question at a time, and a pause after each. So a flood of invented names costs the
    store little, and does not delay lookups of names that are known.
    """

    def __init__(self, find: Callable[[Collection[Name]], Awaitable[Collection[Name]]]) -> None:
        """Take what finds those names that exist."""
        self._find = find
        self._waiting: dict[Name, asyncio.Future[bool | Exception]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def exists(self, name: Name) -> bool:
        """Whether there is this name now.

        Raises:
            EmbedwayError: As the store does.
        """
        answer = self._waiting.get(name)
        if answer is None:
            answer = self._waiting[name] = asyncio.get_running_loop().create_future()
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._ask())
        # Shielded: others may wait for the same answer when this request is cancelled.
        told = await asyncio.shield(answer)
        if isinstance(told, EmbedwayError):
            raise told.copy() from told.__cause__
        if isinstance(told, Exception):
            raise told
        return told

    async def _ask(self) -> None:
        while self._waiting:
            asked = {
                name: self._waiting.pop(name) for name in [*islice(self._waiting, MOST_AT_ONCE)]
            }
            try:
                found = await self._find(list(asked))
            except Exception as error:  # noqa: BLE001  # a background task's top: who waits gets it
                for answer in asked.values():
                    answer.set_result(error)
            else:
                for name, answer in asked.items():
                    answer.set_result(name in found)
            await asyncio.sleep(PAUSE_S)
