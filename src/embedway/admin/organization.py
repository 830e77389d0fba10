"""Combines the routes of projects, keys, end users and the audit log."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from embedway.admin import audit, end_users, keys, projects
from embedway.core import ids
from embedway.core.keys import Caller
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService


def organization_router(
    service: AdminService, *, caller: Caller, now_ms: Callable[[], int]
) -> APIRouter:
    """Build the routes. `caller` is the dependency that authenticates the caller."""

    def actor(
        response: Response,
        caller: Caller = caller,
        x_request_id: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Actor:
        request_id = ids.for_request(x_request_id)
        response.headers["x-request-id"] = request_id
        return Actor.of_request(caller, request_id=request_id)

    depends: Actor = Depends(actor)
    routes = APIRouter()
    routes.include_router(projects.router(service, actor=depends))
    routes.include_router(keys.router(service, actor=depends, now_ms=now_ms))
    routes.include_router(end_users.router(service, actor=depends))
    routes.include_router(audit.router(service, actor=depends))
    return routes
