"""The routes of projects, in OpenAI's shape with fields of ours."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from embedway.admin.amounts import (
    EMPTY_FOR_NULL,
    BudgetCard,
    Budgets,
    LimitCard,
    Limits,
    Name,
    Names,
    SpendingCard,
    StrictBody,
    spending_cards,
)
from embedway.admin.paging import After, Limit, ListEntry, ListPage, list_page
from embedway.core.project import Project
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.service import AdminService
from embedway.storage import records


class ProjectCard(ListEntry):
    """A project."""

    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    models: list[str] | None
    providers: list[str] | None
    eu_native: bool
    zero_data_retention: bool
    allow_quantization: bool
    limits: list[LimitCard]
    budgets: list[BudgetCard]
    user_limits: list[LimitCard]
    user_budgets: list[BudgetCard]
    spending: list[SpendingCard]
    """What is spent and left of `budgets`."""


class _Fields(StrictBody):
    models: Annotated[
        Names | None,
        Field(description="The only names of models that its requests may use; null for any."),
    ] = None
    providers: Annotated[
        Names | None, Field(description="The only providers that may serve them; null for any.")
    ] = None
    eu_native: Annotated[
        bool, Field(description="Whether all requests are served as if they had `eu_native`.")
    ] = False
    zero_data_retention: Annotated[
        bool, Field(description="Whether only deployments that keep no data serve them.")
    ] = False
    allow_quantization: Annotated[
        bool, Field(description="Whether quantised weights may serve them.")
    ] = True
    limits: Annotated[
        Limits | None, EMPTY_FOR_NULL, Field(description="Limits on all its requests together.")
    ] = None
    budgets: Annotated[
        Budgets | None, EMPTY_FOR_NULL, Field(description="Budgets of all its requests.")
    ] = None
    user_limits: Annotated[
        Limits | None,
        EMPTY_FOR_NULL,
        Field(description="Limits on each end user that has none of its own."),
    ] = None
    user_budgets: Annotated[
        Budgets | None,
        EMPTY_FOR_NULL,
        Field(description="Budgets of each end user that has none of its own."),
    ] = None


class NewProject(_Fields):
    """A project to be made."""

    name: Name


class ProjectChanges(_Fields):
    """What is to change; what is left out stays."""

    name: Name = ""


def router(acts: AdminService, *, actor: Actor) -> APIRouter:
    """The routes; `actor` is the dependency that says who asks."""
    routes = APIRouter(prefix="/v1/organization/projects", tags=["projects"])

    def told(project: Project) -> ProjectCard:
        status = "active" if project.archived_ms is None else "archived"
        more = {"status": status, "spending": spending_cards(acts.budget_spending(project))}
        return ProjectCard.model_validate(public(records.to_row(project)) | more)

    @routes.get("")
    def list_projects(
        *,
        limit: Limit = 20,
        after: After = None,
        include_archived: bool = False,
        actor: Actor = actor,
    ) -> ListPage[ProjectCard]:
        """All projects, oldest first. Needs an admin key."""
        page = acts.projects(actor, after=after, limit=limit, archived=include_archived)
        return list_page(page, told)

    @routes.post("")
    def create_project(body: NewProject, actor: Actor = actor) -> ProjectCard:
        """Make a project: a tenant with keys, end users, limits and budgets of its own."""
        return told(acts.create_project(actor, body.sent()))

    @routes.get("/{project_id}")
    def retrieve_project(project_id: str, actor: Actor = actor) -> ProjectCard:
        """One project, archived or not."""
        return told(acts.project(actor, project_id))

    @routes.post("/{project_id}")
    def update_project(project_id: str, body: ProjectChanges, actor: Actor = actor) -> ProjectCard:
        """Change a project; running servers know within a second."""
        return told(acts.update_project(actor, project_id, body.sent()))

    @routes.post("/{project_id}/archive")
    def archive_project(project_id: str, actor: Actor = actor) -> ProjectCard:
        """Archive a project for good: its keys stop working, its usage is kept."""
        return told(acts.archive_project(actor, project_id))

    return routes
