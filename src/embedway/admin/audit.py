"""Serves the audit log, in OpenAI's shape."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from embedway.admin.paging import ListEntry, ListPage, PageAfter, PageLimit, list_page
from embedway.core.response_model import ResponseModel
from embedway.organization.actors import Actor
from embedway.organization.audit_store import AuditAction, AuditEvent, AuditFilter
from embedway.organization.service import AdminService

MAX_FILTERED = 100
MAX_TIME_S = 10**11

Seconds = Annotated[int | None, Query(ge=0, le=MAX_TIME_S)]
Ids = Annotated[list[Annotated[str, Field(pattern=r"^[^\x00]{1,512}$")]], Query()]


class AuditObject(ResponseModel):
    """An object that an event names by its id."""

    id: str


class AuditKey(AuditObject):
    """The key, or the token of an outside issuer, that was used."""

    type: Literal["service_account"] = "service_account"
    service_account: AuditObject


class AuditSession(ResponseModel):
    """A session at the command line."""

    user: AuditObject
    """The operating system user, as `cli:USER`."""


class ActorCard(ResponseModel, title="AuditActor"):
    """The key or user that performed the action."""

    type: Literal["api_key", "session"]
    api_key: AuditKey | None = None
    session: AuditSession | None = None


class AuditEventCard(ListEntry, title="AuditEvent", extra="allow"):
    """One audit event. A field named after its type says what was done, as OpenAI has it."""

    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: AuditAction
    effective_at: int
    actor: ActorCard
    project: AuditObject | None
    request_id: str | None
    changes: dict[str, Any] | None = Field(
        description="Of an update: each field that was changed, with `from` and `to`."
    )


def to_card(event: AuditEvent) -> AuditEventCard:
    """Return the response's entry for an event."""
    details: dict[str, Any] = {"id": event.target}
    updated = event.action.endswith(".updated")
    if updated:
        details["changes_requested"] = {name: each["to"] for name, each in event.details.items()}
    elif event.details:
        details["data"] = dict(event.details)
    actor_id = event.actor
    actor: dict[str, Any] = {
        "type": "api_key",
        "api_key": {"id": actor_id, "service_account": {"id": actor_id}},
    }
    if actor_id.startswith("cli:"):
        actor = {"type": "session", "session": {"user": {"id": actor_id}}}
    return AuditEventCard.model_validate(
        {
            "id": event.id,
            "type": event.action,
            "effective_at": event.at_ms // 1000,
            "actor": actor,
            "project": None if event.project_id is None else {"id": event.project_id},
            "request_id": event.request_id,
            "changes": dict(event.details) if updated else None,
            event.action: details,
        }
    )


def router(service: AdminService, *, actor: Actor) -> APIRouter:
    """Build the route. `actor` is the dependency that returns the actor."""
    routes = APIRouter(prefix="/v1/organization", tags=["audit"])

    @routes.get("/audit_logs")
    def list_audit_events(
        limit: PageLimit = 20,
        after: PageAfter = None,
        event_types: Annotated[
            list[AuditAction], Query(alias="event_types[]", max_length=MAX_FILTERED)
        ] = [],  # noqa: B006  # FastAPI's way; never changed
        project_ids: Annotated[Ids, Query(alias="project_ids[]", max_length=MAX_FILTERED)] = [],  # noqa: B006
        actor_ids: Annotated[Ids, Query(alias="actor_ids[]", max_length=MAX_FILTERED)] = [],  # noqa: B006
        resource_ids: Annotated[Ids, Query(alias="resource_ids[]", max_length=MAX_FILTERED)] = [],  # noqa: B006
        at_least: Annotated[Seconds, Query(alias="effective_at[gte]")] = None,
        more_than: Annotated[Seconds, Query(alias="effective_at[gt]")] = None,
        at_most: Annotated[Seconds, Query(alias="effective_at[lte]")] = None,
        less_than: Annotated[Seconds, Query(alias="effective_at[lt]")] = None,
        actor: Actor = actor,
    ) -> ListPage[AuditEventCard]:
        """List changes to projects, keys and end users, latest first. Needs an admin key."""
        since = [(at_s + past) * 1000 for at_s, past in ((at_least, 0), (more_than, 1))
                 if at_s is not None]  # fmt: skip
        until = [(at_s + past) * 1000 for at_s, past in ((less_than, 0), (at_most, 1))
                 if at_s is not None]  # fmt: skip
        filter = AuditFilter(
            actions=event_types,
            project_ids=project_ids,
            actors=actor_ids,
            targets=resource_ids,
            since_ms=max(since, default=None),
            until_ms=min(until, default=None),
        )
        return list_page(
            service.list_audit_events(actor, filter, after=after, limit=limit), to_card
        )

    return routes
