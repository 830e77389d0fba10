"""Builds the control plane, everything except embeddings, as one FastAPI application."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Header, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

import embedway
from embedway.admin import (
    activity,
    batches,
    errors,
    files,
    health,
    models,
    openapi,
    tokens,
    usage,
)
from embedway.admin.configuration import Reload
from embedway.admin.organization import organization_routers
from embedway.admin.request_ids import send_request_id
from embedway.admin.strict_request import check_request
from embedway.auth import rights
from embedway.auth.authenticator import Authenticator
from embedway.auth.tokens import GatewayTokens
from embedway.batches.store import BatchStore
from embedway.core.errors import InvalidRequest
from embedway.core.keys import Caller
from embedway.files.store import FileStore
from embedway.health.health import HealthRegistry
from embedway.ledger.activity_reader import ActivityReader
from embedway.ledger.reports import UsageReports
from embedway.observe.metrics import Metrics
from embedway.organization.service import AdminService
from embedway.routing.model_listing import ModelListing
from embedway.spaces.membership import SpaceMemberships


class ControlPlaneServices(msgspec.Struct, frozen=True, kw_only=True):
    """The services behind the routes of keys, tokens, usage, activity, files and batches."""

    service: AdminService
    tokens: GatewayTokens
    reports: UsageReports
    activity: ActivityReader
    healths: HealthRegistry
    spaces: Callable[[], SpaceMemberships]
    """Returns the vector spaces of the configuration in force."""
    files: FileStore
    max_project_file_bytes: int
    """The most bytes of all files of a project."""
    batches: BatchStore
    on_batch_change: Callable[[], None]
    """Called when there is something to do for a batch."""
    now_ms: Callable[[], int]


def create_control_plane(
    *,
    listing: Callable[[], ModelListing],
    services: ControlPlaneServices,
    authenticator: Authenticator,
    metrics: Metrics,
    check_ready: Callable[[], Awaitable[None]],
    embeddings_paths: Mapping[str, str],
    max_items: Callable[[], int],
    reload: Reload,
) -> FastAPI:
    """Build the application, once for the process. Functions return what a reload may replace.

    For the OpenAPI document, `embeddings_paths` are the data plane's paths, each with its operation
    id, and `max_items` returns the most items of a request. `reload` reloads the configuration.
    """

    async def caller(
        _: Annotated[Any, Depends(HTTPBearer(scheme_name="key", auto_error=False))],
        authorization: Annotated[list[str] | None, Header(include_in_schema=False)] = None,
    ) -> Caller:
        if authorization and len(authorization) > 1:
            raise InvalidRequest("The header authorization is there twice. Send it once.")
        return await authenticator.authenticate(
            authorization[0].encode("latin-1") if authorization else None, None
        )

    async def reader(caller: Annotated[Caller, Depends(caller)]) -> Caller:
        rights.require_scope(caller, "embeddings", "usage", "keys", "admin")
        return caller

    app = FastAPI(
        title="Embedway",
        version=embedway.__version__,
        summary=embedway.__doc__,
        openapi_url=None,  # served below, together with the data plane's
        dependencies=[Depends(send_request_id), Depends(check_request)],
        redirect_slashes=False,  # a redirect would repeat the host name that the client sent
        responses=openapi.ERRORS,
        generate_unique_id_function=lambda route: route.name,
    )
    errors.install(app)
    now_ms, any_caller = services.now_ms, Depends(caller)
    for routes in (
        models.router(listing, caller=Depends(reader)),
        health.router(check_ready=check_ready, metrics=metrics),
        tokens.router(authenticator, tokens=services.tokens, now_ms=now_ms, caller=any_caller),
        *organization_routers(services.service, caller=any_caller, now_ms=now_ms, reload=reload),
        usage.router(services.reports, caller=any_caller, now_ms=now_ms),
        files.router(
            services.files, caller=any_caller, max_project_bytes=services.max_project_file_bytes
        ),
        batches.router(
            services.batches,
            services.files,
            caller=any_caller,
            now_ms=now_ms,
            on_change=services.on_batch_change,
        ),
        activity.router(
            services.activity,
            healths=services.healths,
            spaces=services.spaces,
            metrics=metrics,
            caller=any_caller,
        ),
    ):
        app.include_router(routes)
    _add_docs(app, embeddings_paths, max_items=max_items)
    return app


def _add_docs(
    app: FastAPI, embeddings_paths: Mapping[str, str], *, max_items: Callable[[], int]
) -> None:
    # The assets of Swagger UI are installed from a package, so the page works offline.
    app.mount("/docs/assets", StaticFiles(directory=swagger_ui_path))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Embedway",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )

    def build(max_items: int) -> bytes:
        schema = deepcopy(app.openapi())  # FastAPI keeps it
        return msgspec.json.encode(openapi.complete(schema, embeddings_paths, max_items=max_items))

    @lru_cache(maxsize=1)
    def build_once(max_items: int) -> asyncio.Future[bytes]:
        # Building takes 0.2 s, so it happens once, in a thread, and all requests await it.
        return asyncio.ensure_future(asyncio.to_thread(build, max_items))

    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> Response:
        return Response(
            await asyncio.shield(build_once(max_items())), media_type="application/json"
        )
