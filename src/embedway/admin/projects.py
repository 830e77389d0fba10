"""Serves projects, in OpenAI's shape with additional fields."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from embedway.admin.amounts import (
    BudgetCard,
    LimitBody,
    Name,
    OptionalBudgets,
    OptionalLimits,
    RestrictedCard,
    RestrictionFields,
    spending_cards,
)
from embedway.admin.paging import ListEntry, ListPage, PageAfter, PageLimit, list_page
from embedway.core.project import Project
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.service import AdminService
from embedway.storage import records


class ProjectCard(RestrictedCard, ListEntry, title="Project"):
    """A project. `spending` is of `budgets`."""

    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    eu_native: bool
    zero_data_retention: bool
    allow_quantization: bool
    user_limits: list[LimitBody]
    user_budgets: list[BudgetCard]


class _Fields(RestrictionFields):
    eu_native: Annotated[
        bool, Field(description="Whether every request is served as if it had `eu_native`.")
    ] = False
    zero_data_retention: Annotated[
        bool, Field(description="Whether only deployments that keep no data serve requests.")
    ] = False
    allow_quantization: Annotated[
        bool, Field(description="Whether quantised weights may serve requests.")
    ] = True
    limits: OptionalLimits = Field(
        default=None, description="Limits on all requests of the project together."
    )
    budgets: OptionalBudgets = Field(
        default=None, description="Budgets for all requests of the project together."
    )
    user_limits: OptionalLimits = Field(
        default=None, description="Limits on each end user without limits of its own."
    )
    user_budgets: OptionalBudgets = Field(
        default=None, description="Budgets for each end user without budgets of its own."
    )


class NewProject(_Fields):
    """A project to create."""

    name: Name


class ProjectChanges(_Fields):
    """Changes to a project. Fields that are left out stay as they are."""

    name: Name = ""


def router(service: AdminService, *, actor: Actor) -> APIRouter:
    """Build the routes. `actor` is the dependency that returns the actor."""
    routes = APIRouter(prefix="/v1/organization/projects", tags=["projects"])

    def to_card(project: Project) -> ProjectCard:
        status = "active" if project.archived_ms is None else "archived"
        more = {"status": status, "spending": spending_cards(service.get_budget_spending(project))}
        return ProjectCard.model_validate(public(records.to_row(project)) | more)

    @routes.get("")
    def list_projects(
        *,
        limit: PageLimit = 20,
        after: PageAfter = None,
        include_archived: bool = False,
        actor: Actor = actor,
    ) -> ListPage[ProjectCard]:
        """List all projects, oldest first. Needs an admin key."""
        page = service.list_projects(actor, after=after, limit=limit, archived=include_archived)
        return list_page(page, to_card)

    @routes.post("")
    def create_project(body: NewProject, actor: Actor = actor) -> ProjectCard:
        """Create a project: a tenant with keys, end users, limits and budgets of its own."""
        return to_card(service.create_project(actor, body.sent_fields()))

    @routes.get("/{project_id}")
    def retrieve_project(project_id: str, actor: Actor = actor) -> ProjectCard:
        """Return one project, archived or not."""
        return to_card(service.get_project(actor, project_id))

    @routes.post("/{project_id}")
    def update_project(project_id: str, body: ProjectChanges, actor: Actor = actor) -> ProjectCard:
        """Change a project. Running servers apply the change within a second."""
        return to_card(service.update_project(actor, project_id, body.sent_fields()))

    @routes.post("/{project_id}/archive")
    def archive_project(project_id: str, actor: Actor = actor) -> ProjectCard:
        """Archive a project for good. Its keys stop working; its usage is kept."""
        return to_card(service.archive_project(actor, project_id))

    return routes
