"""Pages of lists."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Generic, TypeVar

from embedway_sdk.client import Call, Client
from embedway_sdk.http import httpx
from embedway_sdk.loading import load, reading

T = TypeVar("T")


class Page(Generic[T]):
    """One page of a list. To iterate over it gets the pages that follow, one after another."""

    def __init__(self, data: list[T], client: Client, following: Call[Page[T]] | None) -> None:
        self.data = data
        """What this page has."""
        self._client = client
        self._following = following

    @property
    def has_more(self) -> bool:
        """Whether another page follows."""
        return self._following is not None

    def next_page(self) -> Page[T] | None:
        """Get the page that follows, or None after the last."""
        return self._client.run(self._following) if self._following else None

    async def next_page_async(self) -> Page[T] | None:
        """Get the page that follows, or None after the last."""
        return await self._client.run_async(self._following) if self._following else None

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self
        while page:
            yield from page.data
            page = page.next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Page[T] | None = self
        while page:
            for each in page.data:
                yield each
            page = await page.next_page_async()

    def __repr__(self) -> str:
        return f"Page(data={self.data!r}, has_more={self.has_more})"


def page_call(
    client: Client, kind: type[T], path: str, query: Mapping[str, Any], *, cursor: str
) -> Call[Page[T]]:
    """Return the call for a page of `kind`.

    Args:
        client: Gets the pages that follow.
        kind: The type of each item.
        path: The path of the list.
        query: The parameters; those that are None are not sent.
        cursor: The parameter that asks for the next page: `after`, which takes the id of the last
            item, or `page`, which takes `next_page`.
    """

    def parse(response: httpx.Response) -> Page[T]:
        with reading(response):
            body = json.loads(response.content)
            data = [load(kind, each) for each in body["data"]]
            position = body["last_id" if cursor == "after" else "next_page"]
            more = body["has_more"]
        following = call.changed(query={**call.query, cursor: position})
        return Page(data, client, following if more else None)

    given = {name: value for name, value in query.items() if value is not None}
    call = Call("GET", path, parse, query=given, is_safe=True)
    return call
