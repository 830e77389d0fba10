"""Serves the liveness and readiness checks and the metrics."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from embedway.core.response_model import ResponseModel
from embedway.observe.metrics import Metrics


class LivenessStatus(ResponseModel, title="HealthStatus"):
    """The response of a health check that passes."""

    status: str


def router(*, check_ready: Callable[[], Awaitable[None]], metrics: Metrics) -> APIRouter:
    """Build the routes. `check_ready` raises an `EmbedwayError` while no traffic should come."""
    routes = APIRouter(tags=["operations"])

    @routes.head("/livez", include_in_schema=False)
    @routes.get("/livez")
    async def get_liveness() -> LivenessStatus:
        """Answer 200 as long as the event loop runs."""
        return LivenessStatus(status="alive")

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz")
    async def get_readiness() -> LivenessStatus:
        """Answer 200 when ready; 503 while starting, draining or without a database."""
        await check_ready()
        return LivenessStatus(status="ready")

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        """Return all metrics, in Prometheus' text format."""
        return Response(await metrics.render(), media_type="text/plain; version=0.0.4")

    return routes
