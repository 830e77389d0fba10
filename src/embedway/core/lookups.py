"""Answers of a slow store, kept for a moment and shared by all who ask for the same at once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from embedway.core.errors import EmbedwayError

FRESH_S = 0.5
"""What any process changed is seen here within this time."""
MAX_KEPT = 10_000

Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")


class Lookups(Generic[Name, Found]):
    """Looks up, each name once in a while."""

    def __init__(self, find: Callable[[Name], Awaitable[Found]]) -> None:
        self._find = find
        # When the answer goes stale, and the lookup.
        self._kept: dict[Name, tuple[float, asyncio.Future[Found]]] = {}

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
            raise error.again() from error.__cause__

    def _keep(self, name: Name, stale_s: float, lookup: asyncio.Future[Found]) -> None:
        self._kept.pop(name, None)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = (stale_s, lookup)
