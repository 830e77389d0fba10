"""Lists of the admin API: what they are asked with, and the form they are answered in."""

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

from embedway.core.page import Page

MAX_PAGE = 100

Limit = Annotated[
    int, Query(ge=1, le=MAX_PAGE, description=f"At most so many, {MAX_PAGE} at the most.")
]
After = Annotated[
    str | None,
    Query(
        pattern=r"^[^\x00]{1,512}$",
        description="The `last_id` of the page before; without, it is the first page.",
    ),
]


class ListEntry(BaseModel):
    """One of a list, as it is answered."""

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
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


def list_page(page: Page[Item], card: Callable[[Item], AnyCard]) -> ListPage[AnyCard]:
    """A page as it is answered, each item as its `card`."""
    data = [card(each) for each in page.items]
    return ListPage(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.more,
    )
