"""Serves the reload of the configuration."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, Protocol

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from embedway.core.configuration_change import ChangeKind, ConfigurationChange
from embedway.core.response_model import ResponseModel
from embedway.organization.actors import Actor, require_admin
from embedway.organization.service import AdminService

Approve = Callable[[Sequence[ConfigurationChange]], Awaitable[None]]
"""Is called with the changes before they take effect; an error stops the reload."""


class Reload(Protocol):
    """Reads the configuration again and uses it, or says with `dry_run` what that would change."""

    async def __call__(
        self, *, dry_run: bool = False, approve: Approve | None = None
    ) -> Sequence[ConfigurationChange]:
        """Return the changes. Raises an `EmbedwayError` if the old configuration stays."""
        ...


class ChangeCard(ResponseModel, title="ConfigurationChange"):
    """One difference between the configuration in force and the one that was read.

    `before` and `after` are null where there is no value; a secret is only ever `changed`.
    """

    kind: ChangeKind
    name: str
    field: str | None
    before: str | None
    after: str | None
    needs_restart: bool


class ReloadCard(ResponseModel, title="ConfigurationReload"):
    """The result of a reload."""

    object: Literal["organization.configuration.reload"] = "organization.configuration.reload"
    dry_run: bool
    changes: list[ChangeCard]


def router(service: AdminService, *, reload: Reload, actor: Actor) -> APIRouter:
    """Build the route.

    Args:
        service: Records who reloaded.
        reload: Reloads the configuration of this process.
        actor: The dependency that returns the actor.
    """
    routes = APIRouter(prefix="/v1/organization", tags=["configuration"])

    @routes.post("/configuration/reload")
    async def reload_configuration(
        dry_run: Annotated[bool, Query()] = False,  # noqa: FBT002  # FastAPI passes it by name
        actor: Actor = actor,
    ) -> ReloadCard:
        """Read the configuration of this replica again and use it. Needs an admin key.

        With `dry_run=true`, nothing changes. Changes that need a restart are not applied, the
        others are. If anything is wrong, nothing is, and the error has all reasons.
        """
        require_admin(actor)

        async def record(changes: Sequence[ConfigurationChange]) -> None:
            await run_in_threadpool(service.record_reload, actor, changes)

        changes = await reload(dry_run=dry_run, approve=record)
        cards = [ChangeCard.model_validate(each, from_attributes=True) for each in changes]
        return ReloadCard(dry_run=dry_run, changes=cards)

    return routes
