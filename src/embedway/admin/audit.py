"""The route of the audit log, in OpenAI's shape."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from embedway.admin.paging import After, Limit, ListEntry, ListPage, list_page
from embedway.organization.actors import Actor
from embedway.organization.audit_event import AuditAction, AuditEvent
from embedway.organization.audit_store import AuditFilter
from embedway.organization.service import AdminService

MAX_FILTERED = 100
MAX_TIME_S = 10**11

Seconds = Annotated[int | None, Query(ge=0, le=MAX_TIME_S)]
Ids = Annotated[list[Annotated[str, Field(pattern=r"^[^\x00]{1,512}$")]], Query()]


class AuditServiceAccount(BaseModel):
    """A key, or a token of an outside issuer."""

    id: str


class AuditKey(BaseModel):
    """The key that was used."""

    id: str
    type: Literal["service_account"] = "service_account"
    service_account: AuditServiceAccount


class AuditUser(BaseModel):
    """Who was at the command line: `cli:` and a user of the operating system."""

    id: str


class AuditSession(BaseModel):
    """Somebody at the command line."""

    user: AuditUser


class ActorCard(BaseModel):
    """Who did it."""

    type: Literal["api_key", "session"]
    api_key: AuditKey | None = None
    session: AuditSession | None = None


class AuditProject(BaseModel):
    """In whose affairs."""

    id: str


class AuditEventCard(ListEntry):
    """One act; what was done is under its type's name, as OpenAI has it."""

    model_config = ConfigDict(extra="allow")

    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: AuditAction
    effective_at: int
    actor: ActorCard
    project: AuditProject | None
    request_id: str | None
    changes: dict[str, Any] | None = Field(
        description="Of an update: each field that was changed, with `from` and `to`."
    )


def card(act: AuditEvent) -> AuditEventCard:
    """An act as it is answered."""
    about: dict[str, Any] = {"id": act.target}
    updated = act.action.endswith(".updated")
    if updated:
        about["changes_requested"] = {name: each["to"] for name, each in act.details.items()}
    elif act.details:
        about["data"] = dict(act.details)
    who = act.actor
    by: dict[str, Any] = {"type": "api_key", "api_key": {"id": who, "service_account": {"id": who}}}
    if who.startswith("cli:"):
        by = {"type": "session", "session": {"user": {"id": who}}}
    return AuditEventCard.model_validate(
        {
            "id": act.id,
            "type": act.action,
            "effective_at": act.at_ms // 1000,
            "actor": by,
            "project": None if act.project_id is None else {"id": act.project_id},
            "request_id": act.request_id,
            "changes": dict(act.details) if updated else None,
            act.action: about,
        }
    )


def router(acts: AdminService, *, actor: Actor) -> APIRouter:
    """The route; `actor` is the dependency that says who asks."""
    routes = APIRouter(prefix="/v1/organization", tags=["audit"])

    @routes.get("/audit_logs")
    def list_acts(
        limit: Limit = 20,
        after: After = None,
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
        """Who did what to projects, keys and end users, latest first. Needs an admin key."""
        since = [(at_s + past) * 1000 for at_s, past in ((at_least, 0), (more_than, 1))
                 if at_s is not None]  # fmt: skip
        until = [(at_s + past) * 1000 for at_s, past in ((less_than, 0), (at_most, 1))
                 if at_s is not None]  # fmt: skip
        wanted = AuditFilter(
            actions=event_types,
            project_ids=project_ids,
            actors=actor_ids,
            targets=resource_ids,
            since_ms=max(since, default=None),
            until_ms=min(until, default=None),
        )
        return list_page(acts.audit(actor, wanted, after=after, limit=limit), card)

    return routes
