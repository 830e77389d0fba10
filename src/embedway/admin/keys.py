"""The routes of projects' keys and of admin keys, in OpenAI's shapes with fields of ours.

OpenAI has no route that makes a project's key; ours answers as the one that makes an admin key
does, with the secret in `value`, this once.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

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
from embedway.admin.paging import After, DeletionReceipt, Limit, ListEntry, ListPage, list_page
from embedway.core.errors import InvalidRequest
from embedway.core.keys import Key, Scope
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.rules import MAX_GRACE_S
from embedway.organization.service import AdminService
from embedway.storage import records

MAX_LIFE_S = 36_500 * 86_400
MAX_TIME_S = 10**11
USUAL_GRACE_S = 86_400


class KeyServiceAccount(BaseModel):
    """Whose a key is: every key is a service account of its own."""

    id: str
    name: str
    created_at: int
    role: Literal["member"] = "member"


class ProjectOwner(BaseModel):
    """Whose a project's key is."""

    type: Literal["service_account"] = "service_account"
    service_account: KeyServiceAccount


class KeyCard(ListEntry):
    """A key of a project."""

    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    previous_expires_at: int | None
    owner: ProjectOwner
    owner_project_access: Literal["active", "inactive"]
    project_id: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[Scope]
    issued_by: str | None
    models: list[str] | None
    providers: list[str] | None
    limits: list[LimitCard]
    budgets: list[BudgetCard]
    spending: list[SpendingCard]


class NewKeyCard(KeyCard):
    """A key of a project, with its secret."""

    value: str


class AdminOwner(BaseModel):
    """Whose an admin key is."""

    type: Literal["service_account"] = "service_account"
    object: Literal["organization.service_account"] = "organization.service_account"
    id: str
    name: str
    created_at: int
    role: Literal["owner"] = "owner"


class AdminKeyCard(ListEntry):
    """An admin key."""

    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    previous_expires_at: int | None
    owner: AdminOwner
    status: Literal["active", "expired", "revoked"]


class NewAdminKeyCard(AdminKeyCard):
    """An admin key, with its secret."""

    value: str


ExpiresIn = Annotated[
    int | None,
    Field(ge=1, le=MAX_LIFE_S, description="Expire in so many seconds; null for never."),
]
ExpiresAt = Annotated[
    int | None,
    Field(
        ge=1, le=MAX_TIME_S, description="Instead: expire then, in seconds since 1970-01-01 UTC."
    ),
]


class _Expiring(StrictBody):
    expires_in_seconds: ExpiresIn = None
    expires_at: ExpiresAt = None

    def changes(self, now_ms: int) -> dict[str, Any]:
        """What it asks to be set."""
        sent = self.sent()
        if {"expires_in_seconds", "expires_at"} <= sent.keys():
            raise InvalidRequest(
                "'expires_at' and 'expires_in_seconds' say the same. Send one of them.",
                param="expires_at",
            )
        for name, since_ms in (("expires_in_seconds", now_ms), ("expires_at", 0)):
            if name in sent:
                after_s = sent.pop(name)
                sent["expires_ms"] = None if after_s is None else since_ms + after_s * 1000
        return sent


class _KeyFields(_Expiring):
    models: Annotated[
        Names | None, Field(description="The only names of models it may use; null for any.")
    ] = None
    providers: Annotated[
        Names | None, Field(description="The only providers that may serve it; null for any.")
    ] = None
    limits: Annotated[
        Limits | None,
        EMPTY_FOR_NULL,
        Field(description="Limits on its requests and those of keys it issued, together."),
    ] = None
    budgets: Annotated[
        Budgets | None, EMPTY_FOR_NULL, Field(description="Budgets of the same requests.")
    ] = None


class NewKey(_KeyFields):
    """A key to be made."""

    name: Name
    scopes: list[Scope] = Field(
        default_factory=list[Scope],
        min_length=1,
        description="What it may do; if left out, embed and name end users, as far as the key that "
        "issues it may.",
    )


class KeyChanges(_KeyFields):
    """What is to change; what is left out stays."""

    name: Name = ""
    scopes: list[Scope] = Field(default_factory=list[Scope], min_length=1)


class Rotation(StrictBody):
    """How a key is to be rotated."""

    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_GRACE_S,
            description="How long the old secret works on; 0 ends it at once.",
        ),
    ] = USUAL_GRACE_S


class NewAdminKey(_Expiring):
    """An admin key to be made."""

    name: Name


def _fields(key: Key, now_ms: int) -> dict[str, Any]:
    fields = public(records.to_row(key))
    owner = {name: fields[name] for name in ("id", "name", "created_at")}
    return fields | {"owner": owner, "status": key.state(now_ms)}


def router(acts: AdminService, *, actor: Actor, now_ms: Callable[[], int]) -> APIRouter:
    """The routes; `actor` is the dependency that says who asks."""
    routes = APIRouter(prefix="/v1/organization", tags=["keys"])
    _add_project_keys(routes, acts, actor, now_ms)
    _add_admin_keys(routes, acts, actor, now_ms)
    return routes


def _add_project_keys(
    routes: APIRouter, acts: AdminService, actor: Actor, now_ms: Callable[[], int]
) -> None:
    def fields(key: Key) -> dict[str, Any]:
        common = _fields(key, now_ms())
        return common | {
            "owner": {"service_account": common["owner"]},
            "owner_project_access": "active" if common["status"] == "active" else "inactive",
            "spending": spending_cards(acts.budget_spending(key)),
        }

    def told(key: Key) -> KeyCard:
        return KeyCard.model_validate(fields(key))

    @routes.get("/projects/{project_id}/api_keys")
    def list_keys(  # pyright: ignore[reportUnusedFunction]
        project_id: str,
        *,
        limit: Limit = 20,
        after: After = None,
        include_revoked: bool = False,
        actor: Actor = actor,
    ) -> ListPage[KeyCard]:
        """The keys of a project, oldest first: with a key that issues keys, those it issued."""
        page = acts.keys(
            actor, project_id=project_id, after=after, limit=limit, revoked=include_revoked
        )
        return list_page(page, told)

    @routes.post("/projects/{project_id}/api_keys")
    def create_key(  # pyright: ignore[reportUnusedFunction]
        project_id: str, body: NewKey, actor: Actor = actor
    ) -> NewKeyCard:
        """Make a key. Its secret is in `value`, this once: only its hash is kept.

        With a key that has the scope `keys`, the new one never has more rights than that one has.
        """
        changes = body.changes(now_ms())
        value, key = acts.create_key(actor, project_id=project_id, changes=changes)
        return NewKeyCard.model_validate(fields(key) | {"value": value})

    @routes.get("/projects/{project_id}/api_keys/{key_id}")
    def retrieve_key(  # pyright: ignore[reportUnusedFunction]
        project_id: str, key_id: str, actor: Actor = actor
    ) -> KeyCard:
        """One key, in whatever state it is."""
        return told(acts.key(actor, key_id, project_id=project_id))

    @routes.post("/projects/{project_id}/api_keys/{key_id}")
    def update_key(  # pyright: ignore[reportUnusedFunction]
        project_id: str, key_id: str, body: KeyChanges, actor: Actor = actor
    ) -> KeyCard:
        """Change a key; running servers know within a second."""
        changes = body.changes(now_ms())
        return told(acts.update_key(actor, key_id, project_id=project_id, changes=changes))

    @routes.post("/projects/{project_id}/api_keys/{key_id}/rotate")
    def rotate_key(  # pyright: ignore[reportUnusedFunction]
        project_id: str, key_id: str, body: Rotation, actor: Actor = actor
    ) -> NewKeyCard:
        """Give a key a new secret, in `value`, this once; the old one works for a while.

        Its id, rights, limits and budgets stay, and so does what was used of them.
        """
        value, key = acts.rotate_key(
            actor, key_id, project_id=project_id, grace_ms=body.grace_seconds * 1000
        )
        return NewKeyCard.model_validate(fields(key) | {"value": value})

    @routes.delete("/projects/{project_id}/api_keys/{key_id}")
    def revoke_key(  # pyright: ignore[reportUnusedFunction]
        project_id: str, key_id: str, actor: Actor = actor
    ) -> DeletionReceipt:
        """Revoke a key for good, and with it all that it issued."""
        acts.revoke_key(actor, key_id, project_id=project_id)
        return DeletionReceipt(id=key_id, object="organization.project.api_key.deleted")


def _add_admin_keys(
    routes: APIRouter, acts: AdminService, actor: Actor, now_ms: Callable[[], int]
) -> None:
    def told(key: Key) -> AdminKeyCard:
        return AdminKeyCard.model_validate(_fields(key, now_ms()))

    @routes.get("/admin_api_keys")
    def list_admin_keys(  # pyright: ignore[reportUnusedFunction]
        *,
        limit: Limit = 20,
        after: After = None,
        order: Literal["asc", "desc"] = "asc",
        include_revoked: bool = False,
        actor: Actor = actor,
    ) -> ListPage[AdminKeyCard]:
        """The admin keys. Needs one, as do all of these."""
        page = acts.keys(
            actor,
            project_id=None,
            after=after,
            limit=limit,
            revoked=include_revoked,
            descending=order == "desc",
        )
        return list_page(page, told)

    @routes.post("/admin_api_keys")
    def create_admin_key(  # pyright: ignore[reportUnusedFunction]
        body: NewAdminKey, actor: Actor = actor
    ) -> NewAdminKeyCard:
        """Make an admin key, which may do all of this but not embed; its secret is in `value`."""
        changes = body.changes(now_ms())
        value, key = acts.create_key(actor, project_id=None, changes=changes)
        return NewAdminKeyCard.model_validate(_fields(key, now_ms()) | {"value": value})

    @routes.get("/admin_api_keys/{key_id}")
    def retrieve_admin_key(  # pyright: ignore[reportUnusedFunction]
        key_id: str, actor: Actor = actor
    ) -> AdminKeyCard:
        """One admin key, in whatever state it is."""
        return told(acts.key(actor, key_id, project_id=None))

    @routes.post("/admin_api_keys/{key_id}/rotate")
    def rotate_admin_key(  # pyright: ignore[reportUnusedFunction]
        key_id: str, body: Rotation, actor: Actor = actor
    ) -> NewAdminKeyCard:
        """Give an admin key a new secret, in `value`, this once; the old one works for a while."""
        value, key = acts.rotate_key(
            actor, key_id, project_id=None, grace_ms=body.grace_seconds * 1000
        )
        return NewAdminKeyCard.model_validate(_fields(key, now_ms()) | {"value": value})

    @routes.delete("/admin_api_keys/{key_id}")
    def revoke_admin_key(  # pyright: ignore[reportUnusedFunction]
        key_id: str, actor: Actor = actor
    ) -> DeletionReceipt:
        """Revoke an admin key for good. The last one may be: the command line makes others."""
        acts.revoke_key(actor, key_id, project_id=None)
        return DeletionReceipt(id=key_id, object="organization.admin_api_key.deleted")
