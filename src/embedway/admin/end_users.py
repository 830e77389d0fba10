"""The routes of end users: those that a project treats unlike the others. They are ours.

An id may hold any character, a slash too, so a path is written with it percent-encoded; where a
client or proxy rewrites such paths (`..`), `POST` takes the id in the body and `GET` in the query.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from embedway.admin.amounts import (
    BudgetCard,
    Budgets,
    LimitCard,
    Limits,
    SpendingCard,
    StrictBody,
    spending_cards,
)
from embedway.admin.paging import After, DeletionReceipt, Limit, ListEntry, ListPage, list_page
from embedway.core.page import Page
from embedway.core.project import EndUser
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.service import AdminService
from embedway.storage import records

Id = Annotated[str, Field(min_length=1, max_length=MAX_ATTRIBUTION_CHARACTERS)]


class EndUserCard(ListEntry):
    """An end user; null for limits or budgets means those of the project."""

    object: Literal["organization.project.end_user"] = "organization.project.end_user"
    project_id: str
    created_at: int | None
    """Null if the end user has no record, and so is as all others."""
    blocked: bool
    blocked_at: int | None
    limits: list[LimitCard] | None
    budgets: list[BudgetCard] | None
    spending: list[SpendingCard]
    """What is spent and left of its budgets, or of those that the project has for each."""


class EndUserChanges(StrictBody):
    """What is to change; what is left out stays."""

    blocked: Annotated[bool, Field(description="Whether its requests are refused.")] = False
    limits: Annotated[
        Limits | None,
        Field(description="Limits of its own; null for those that the project has for each."),
    ] = None
    budgets: Annotated[
        Budgets | None,
        Field(description="Budgets of its own; null for those that the project has for each."),
    ] = None


class NewEndUser(EndUserChanges):
    """The record of an end user, to be made or changed."""

    id: Id


def router(acts: AdminService, *, actor: Actor) -> APIRouter:
    """The routes; `actor` is the dependency that says who asks."""
    routes = APIRouter(
        prefix="/v1/organization/projects/{project_id}/end_users", tags=["end users"]
    )

    def told(user: EndUser) -> EndUserCard:
        more = {
            "blocked": user.blocked_ms is not None,
            "spending": spending_cards(acts.budget_spending(user)),
        }
        return EndUserCard.model_validate(public(records.to_row(user)) | more)

    @routes.get("")
    def list_end_users(
        project_id: str,
        limit: Limit = 20,
        after: After = None,
        id: Annotated[str | None, Query(description="This one alone.")] = None,
        actor: Actor = actor,
    ) -> ListPage[EndUserCard]:
        """The end users of a project that have a record, by their ids. Needs an admin key.

        With `id` it is that one, whether it has a record or not.
        """
        if id is None:
            page = acts.end_users(actor, project_id, after=after, limit=limit)
        else:
            page = Page((acts.end_user(actor, project_id, id),), more=False)
        return list_page(page, told)

    @routes.post("")
    def set_end_user(project_id: str, body: NewEndUser, actor: Actor = actor) -> EndUserCard:
        """Block an end user, or give it limits and budgets of its own; others have no record."""
        changes = body.sent()
        return told(acts.set_end_user(actor, project_id, changes.pop("id"), changes))

    @routes.get("/{end_user_id:path}")
    def retrieve_end_user(project_id: str, end_user_id: str, actor: Actor = actor) -> EndUserCard:
        """One end user, whether it has a record or not: what it has spent of its budgets."""
        return told(acts.end_user(actor, project_id, end_user_id))

    @routes.post("/{end_user_id:path}")
    def update_end_user(
        project_id: str, end_user_id: str, body: EndUserChanges, actor: Actor = actor
    ) -> EndUserCard:
        """Likewise, with the id in the path."""
        return told(acts.set_end_user(actor, project_id, end_user_id, body.sent()))

    @routes.delete("/{end_user_id:path}")
    def remove_end_user(project_id: str, end_user_id: str, actor: Actor = actor) -> DeletionReceipt:
        """Remove the record: the end user is as all others. Its usage is kept."""
        acts.remove_end_user(actor, project_id, end_user_id)
        return DeletionReceipt(id=end_user_id, object="organization.project.end_user.deleted")

    return routes
