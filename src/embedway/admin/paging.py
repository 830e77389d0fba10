"""Defines the parameters and the response format of the admin API's lists."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query

from embedway.core.page import Page
from embedway.core.response_model import ResponseModel

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


class ListEntry(ResponseModel):
    """An entry of a list."""

    id: str


AnyCard = TypeVar("AnyCard", bound=ListEntry)
Item = TypeVar("Item")


class ListPage(ResponseModel, Generic[AnyCard]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[AnyCard]
    first_id: str | None
    last_id: str | None
    """The `after` of the next page."""
    has_more: bool

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name of a page's schema, such as `ProjectPage`."""
        return f"{params[0].model_config.get('title')}Page"


class DeletionReceipt(ResponseModel):
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
