"""Defines the parameters and the response format of the admin API's lists."""

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

from embedway.core.page import Page

MAX_PAGE = 100

PageLimit = Annotated[
    int, Query(ge=1, le=MAX_PAGE, description=f"The most entries to return, up to {MAX_PAGE}.")
]
PageAfter = Annotated[
    str | None,
    Query(
        pattern=r"^[^\x00]{1,512}$",
        description="The `last_id` of the previous page; leave it out for the first page.",
    ),
]


class ListEntry(BaseModel):
    """An entry of a list."""

    id: str


AnyCard = TypeVar("AnyCard", bound=ListEntry)
Item = TypeVar("Item")


class ListPage(BaseModel, Generic[AnyCard]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[AnyCard]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletionReceipt(BaseModel):
    """Confirms a deletion."""

    id: str
    object: str
    deleted: Literal[True] = True


def list_page(page: Page[Item], to_card: Callable[[Item], AnyCard]) -> ListPage[AnyCard]:
    """Return the response for a page, each item converted by `to_card`."""
    data = [to_card(each) for each in page.items]
    return ListPage(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.more,
    )
