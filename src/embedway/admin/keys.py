"""Serves projects' keys and admin keys, in OpenAI's shapes with additional fields.

OpenAI has no route that creates a project's key. Ours answers like the one that creates an admin
key, with the secret in `value`, once.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from embedway.admin.amounts import (
    Name,
    OptionalBudgets,
    OptionalLimits,
    RestrictedCard,
    RestrictionFields,
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
from embedway.core.errors import InvalidRequest
from embedway.core.keys import Key, Scope
from embedway.core.response_model import ResponseModel
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.rules import MAX_GRACE_S
from embedway.organization.service import AdminService
from embedway.storage import records

MAX_LIFE_S = 36_500 * 86_400
MAX_TIME_S = 10**11
DEFAULT_GRACE_S = 86_400


class KeyServiceAccount(ResponseModel):
    """The owner of a key: each key is its own service account."""

    id: str
    name: str
    created_at: int
    role: Literal["member"] = "member"


class ProjectOwner(ResponseModel):
    """The owner of a project's key."""

    type: Literal["service_account"] = "service_account"
    service_account: KeyServiceAccount


class AnyKeyCard(ListEntry):
    """The fields that keys of projects and admin keys share."""

    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    previous_expires_at: int | None
    status: Literal["active", "expired", "revoked"]


class KeyCard(AnyKeyCard, RestrictedCard, title="ApiKey"):
    """A key of a project."""

    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    owner: ProjectOwner
    owner_project_access: Literal["active", "inactive"]
    project_id: str
    scopes: list[Scope]
    issued_by: str | None


class NewKeyCard(KeyCard, title="ApiKeyWithSecret"):
    """A key of a project, with its secret."""

    value: str


class AdminOwner(ResponseModel):
    """The owner of an admin key."""

    type: Literal["service_account"] = "service_account"
    object: Literal["organization.service_account"] = "organization.service_account"
    id: str
    name: str
    created_at: int
    role: Literal["owner"] = "owner"


class AdminKeyCard(AnyKeyCard, title="AdminApiKey"):
    """An admin key."""

    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    owner: AdminOwner


class NewAdminKeyCard(AdminKeyCard, title="AdminApiKeyWithSecret"):
    """An admin key, with its secret."""

    value: str


ExpiresIn = Annotated[
    int | None,
    Field(ge=1, le=MAX_LIFE_S, description="Seconds until the key expires; null for never."),
]
ExpiresAt = Annotated[
    int | None,
    Field(ge=1, le=MAX_TIME_S, description="Alternatively, when the key expires, in Unix seconds."),
]


class _Expiring(StrictBody):
    expires_in_seconds: ExpiresIn = None
    expires_at: ExpiresAt = None

    def changes(self, now_ms: int) -> dict[str, Any]:
        """Return the changes to the key, with one `expires_ms` for both fields."""
        sent = self.sent_fields()
        if {"expires_in_seconds", "expires_at"} <= sent.keys():
            raise InvalidRequest(
                "'expires_at' and 'expires_in_seconds' both set the expiry. Send one of them.",
                param="expires_at",
            )
        for name, since_ms in (("expires_in_seconds", now_ms), ("expires_at", 0)):
            if name in sent:
                after_s = sent.pop(name)
                sent["expires_ms"] = None if after_s is None else since_ms + after_s * 1000
        return sent


class _KeyFields(RestrictionFields, _Expiring):
    limits: OptionalLimits = Field(
        default=None,
        description="Limits on the requests of this key and of the keys it issued, together.",
    )
    budgets: OptionalBudgets = Field(default=None, description="Budgets for the same requests.")


class NewKey(_KeyFields, title="NewApiKey"):
    """A key to create."""

    name: Name
    scopes: list[Scope] = Field(
        default_factory=list[Scope],
        min_length=1,
        description="What the key may do. By default, embed and name end users, as far as the "
        "key that issues it may.",
    )


class KeyChanges(_KeyFields, title="ApiKeyChanges"):
    """Changes to a key. Fields that are left out stay as they are."""

    name: Name = ""
    scopes: list[Scope] = Field(default_factory=list[Scope], min_length=1)


class Rotation(StrictBody, title="ApiKeyRotation"):
    """How to rotate a key."""

    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_GRACE_S,
            description="How long the old secret still works; 0 to end it at once.",
        ),
    ] = DEFAULT_GRACE_S


class NewAdminKey(_Expiring, title="NewAdminApiKey"):
    """An admin key to create."""

    name: Name


def _fields(key: Key, now_ms: int) -> dict[str, Any]:
    fields = public(records.to_row(key))
    owner = {name: fields[name] for name in ("id", "name", "created_at")}
    return fields | {"owner": owner, "status": key.state(now_ms)}


def router(service: AdminService, *, actor: Actor, now_ms: Callable[[], int]) -> APIRouter:
    """Build the routes. `actor` is the dependency that returns the actor."""
    routes = APIRouter(prefix="/v1/organization", tags=["keys"])
    _add_project_keys(routes, service, actor, now_ms)
    _add_admin_keys(routes, service, actor, now_ms)
    return routes


def _add_project_keys(
    routes: APIRouter, service: AdminService, actor: Actor, now_ms: Callable[[], int]
) -> None:
    def fields(key: Key) -> dict[str, Any]:
        common = _fields(key, now_ms())
        return common | {
            "owner": {"service_account": common["owner"]},
            "owner_project_access": "active" if common["status"] == "active" else "inactive",
            "spending": spending_cards(service.get_budget_spending(key)),
        }

    def to_card(key: Key) -> KeyCard:
        return KeyCard.model_validate(fields(key))

    @routes.get("/projects/{project_id}/api_keys")
    def list_api_keys(
        project_id: str,
        *,
        limit: PageLimit = 20,
        after: PageAfter = None,
        include_revoked: bool = False,
        actor: Actor = actor,
    ) -> ListPage[KeyCard]:
        """List the keys of a project, oldest first. A key that issues keys sees those it issued."""
        page = service.list_keys(
            actor, project_id=project_id, after=after, limit=limit, revoked=include_revoked
        )
        return list_page(page, to_card)

    @routes.post("/projects/{project_id}/api_keys")
    def create_api_key(project_id: str, body: NewKey, actor: Actor = actor) -> NewKeyCard:
        """Create a key. Its secret is in `value`, once: the gateway keeps only a hash.

        A key with the scope `keys` may create keys too. They never have more rights than it has.
        """
        changes = body.changes(now_ms())
        value, key = service.create_key(actor, project_id=project_id, changes=changes)
        return NewKeyCard.model_validate(fields(key) | {"value": value})

    @routes.get("/projects/{project_id}/api_keys/{key_id}")
    def retrieve_api_key(project_id: str, key_id: str, actor: Actor = actor) -> KeyCard:
        """Return one key, in any state."""
        return to_card(service.get_key(actor, key_id, project_id=project_id))

    @routes.post("/projects/{project_id}/api_keys/{key_id}")
    def update_api_key(
        project_id: str, key_id: str, body: KeyChanges, actor: Actor = actor
    ) -> KeyCard:
        """Change a key. Running servers apply the change within a second."""
        changes = body.changes(now_ms())
        return to_card(service.update_key(actor, key_id, project_id=project_id, changes=changes))

    @routes.post("/projects/{project_id}/api_keys/{key_id}/rotate")
    def rotate_api_key(
        project_id: str, key_id: str, body: Rotation, actor: Actor = actor
    ) -> NewKeyCard:
        """Give a key a new secret, in `value`. The old one works for `grace_seconds` more.

        The key's id, rights, limits and budgets stay, and so does its usage of them.
        """
        value, key = service.rotate_key(
            actor, key_id, project_id=project_id, grace_ms=body.grace_seconds * 1000
        )
        return NewKeyCard.model_validate(fields(key) | {"value": value})

    @routes.delete("/projects/{project_id}/api_keys/{key_id}")
    def revoke_api_key(project_id: str, key_id: str, actor: Actor = actor) -> DeletionReceipt:
        """Revoke a key and all keys it issued, for good."""
        service.revoke_key(actor, key_id, project_id=project_id)
        return DeletionReceipt(id=key_id, object="organization.project.api_key.deleted")


def _add_admin_keys(
    routes: APIRouter, service: AdminService, actor: Actor, now_ms: Callable[[], int]
) -> None:
    def to_card(key: Key) -> AdminKeyCard:
        return AdminKeyCard.model_validate(_fields(key, now_ms()))

    @routes.get("/admin_api_keys")
    def list_admin_api_keys(
        *,
        limit: PageLimit = 20,
        after: PageAfter = None,
        order: Literal["asc", "desc"] = "asc",
        include_revoked: bool = False,
        actor: Actor = actor,
    ) -> ListPage[AdminKeyCard]:
        """List the admin keys. Like all routes of admin keys, it needs one."""
        page = service.list_keys(
            actor,
            project_id=None,
            after=after,
            limit=limit,
            revoked=include_revoked,
            descending=order == "desc",
        )
        return list_page(page, to_card)

    @routes.post("/admin_api_keys")
    def create_admin_api_key(body: NewAdminKey, actor: Actor = actor) -> NewAdminKeyCard:
        """Create an admin key, which manages everything but cannot embed.

        Its secret is in `value`, once.
        """
        changes = body.changes(now_ms())
        value, key = service.create_key(actor, project_id=None, changes=changes)
        return NewAdminKeyCard.model_validate(_fields(key, now_ms()) | {"value": value})

    @routes.get("/admin_api_keys/{key_id}")
    def retrieve_admin_api_key(key_id: str, actor: Actor = actor) -> AdminKeyCard:
        """Return one admin key, in any state."""
        return to_card(service.get_key(actor, key_id, project_id=None))

    @routes.post("/admin_api_keys/{key_id}/rotate")
    def rotate_admin_api_key(key_id: str, body: Rotation, actor: Actor = actor) -> NewAdminKeyCard:
        """Give an admin key a new secret, in `value`. The old one works for `grace_seconds`."""
        value, key = service.rotate_key(
            actor, key_id, project_id=None, grace_ms=body.grace_seconds * 1000
        )
        return NewAdminKeyCard.model_validate(_fields(key, now_ms()) | {"value": value})

    @routes.delete("/admin_api_keys/{key_id}")
    def revoke_admin_api_key(key_id: str, actor: Actor = actor) -> DeletionReceipt:
        """Revoke an admin key for good, even the last one: the command line can create others."""
        service.revoke_key(actor, key_id, project_id=None)
        return DeletionReceipt(id=key_id, object="organization.admin_api_key.deleted")
