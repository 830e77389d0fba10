"""Builds the routes of projects, keys, end users, the audit log and the configuration."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from embedway.admin import audit, configuration, end_users, keys, projects
from embedway.admin.configuration import Reload
from embedway.admin.request_ids import send_request_id
from embedway.core.keys import Caller
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService


def organization_routers(
    service: AdminService, *, caller: Caller, now_ms: Callable[[], int], reload: Reload
) -> list[APIRouter]:
    """Build the routes.

    Args:
        service: Performs the actions.
        caller: The dependency that authenticates the caller.
        now_ms: The wall clock, in ms since the epoch.
        reload: Reloads the configuration of this process.
    """

    async def actor(
        request_id: Annotated[str, Depends(send_request_id)], caller: Caller = caller
    ) -> Actor:
        return Actor.of_request(caller, request_id=request_id)

    depends: Actor = Depends(actor)
    # Not one router that includes them: FastAPI would build each route once more, in all 0.3 s.
    return [
        projects.router(service, actor=depends),
        keys.router(service, actor=depends, now_ms=now_ms),
        end_users.router(service, actor=depends),
        audit.router(service, actor=depends),
        configuration.router(service, reload=reload, actor=depends),
    ]
