"""Serves end users that have limits, budgets or a block of their own. OpenAI has no such routes.

An id may have any character, including a slash, so it is percent-encoded in a path. Some clients
and proxies rewrite such paths (`..`); for these, `POST` takes the id in the body and `GET` in the
query.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from embedway.admin.amounts import (
    BudgetCard,
    Budgets,
    LimitBody,
    Limits,
    SpendingCard,
    StrictBody,
    spending_cards,
)
from embedway.admin.paging import (
    DeletionReceipt,
    ListEntry,
    ListPage,
    PageAfter,
    PageLimit,
    list_page,
)
from embedway.core.page import Page
from embedway.core.project import EndUser
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.service import AdminService
from embedway.storage import records

Id = Annotated[str, Field(min_length=1, max_length=MAX_ATTRIBUTION_CHARACTERS)]


class EndUserCard(ListEntry, title="EndUser"):
    """An end user. Null for limits or budgets means that the project's apply."""

    object: Literal["organization.project.end_user"] = "organization.project.end_user"
    project_id: str
    created_at: int | None
    """Null if the end user has no record, and so the project's defaults."""
    blocked: bool
    blocked_at: int | None
    limits: list[LimitBody] | None
    budgets: list[BudgetCard] | None
    spending: list[SpendingCard]
    """What is spent and left of its budgets, or of the project's budgets for each end user."""


class EndUserChanges(StrictBody):
    """Changes to an end user. Fields that are left out stay as they are."""

    blocked: Annotated[bool, Field(description="Whether its requests are refused.")] = False
    limits: Annotated[
        Limits | None,
        Field(description="Limits of its own; null for the project's."),
    ] = None
    budgets: Annotated[
        Budgets | None,
        Field(description="Budgets of its own; null for the project's."),
    ] = None


class NewEndUser(EndUserChanges):
    """An end user's record to create or change."""

    id: Id


def router(service: AdminService, *, actor: Actor) -> APIRouter:
    """Build the routes. `actor` is the dependency that returns the actor."""
    routes = APIRouter(
        prefix="/v1/organization/projects/{project_id}/end_users", tags=["end users"]
    )

    def to_card(user: EndUser) -> EndUserCard:
        more = {
            "blocked": user.blocked_ms is not None,
            "spending": spending_cards(service.get_budget_spending(user)),
        }
        return EndUserCard.model_validate(public(records.to_row(user)) | more)

    @routes.get("")
    def list_end_users(
        project_id: str,
        limit: PageLimit = 20,
        after: PageAfter = None,
        id: Annotated[str | None, Query(description="List only the end user with this id.")] = None,
        actor: Actor = actor,
    ) -> ListPage[EndUserCard]:
        """List a project's end users that have a record, in order of their ids. Needs an admin key.

        With `id`, list only that end user, even without a record.
        """
        if id is None:
            page = service.list_end_users(actor, project_id, after=after, limit=limit)
        else:
            page = Page((service.get_end_user(actor, project_id, id),), more=False)
        return list_page(page, to_card)

    @routes.post("")
    def set_end_user(project_id: str, body: NewEndUser, actor: Actor = actor) -> EndUserCard:
        """Block an end user, or give it limits and budgets of its own. Needs no record yet."""
        changes = body.sent_fields()
        return to_card(service.set_end_user(actor, project_id, changes.pop("id"), changes))

    @routes.get("/{end_user_id:path}")
    def retrieve_end_user(project_id: str, end_user_id: str, actor: Actor = actor) -> EndUserCard:
        """Return one end user and what it has spent of its budgets, even if it has no record."""
        return to_card(service.get_end_user(actor, project_id, end_user_id))

    @routes.post("/{end_user_id:path}")
    def update_end_user(
        project_id: str, end_user_id: str, body: EndUserChanges, actor: Actor = actor
    ) -> EndUserCard:
        """Block an end user or set its limits and budgets, with the id in the path."""
        return to_card(service.set_end_user(actor, project_id, end_user_id, body.sent_fields()))

    @routes.delete("/{end_user_id:path}")
    def remove_end_user(project_id: str, end_user_id: str, actor: Actor = actor) -> DeletionReceipt:
        """Remove an end user's record, so the project's defaults apply again. Its usage is kept."""
        service.remove_end_user(actor, project_id, end_user_id)
        return DeletionReceipt(id=end_user_id, object="organization.project.end_user.deleted")

    return routes
