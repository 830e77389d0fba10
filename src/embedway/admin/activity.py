"""Serves what happens now: the usage of the last seconds, and the state of this replica."""

import os
from collections.abc import Callable, Iterable
from socket import gethostname
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BeforeValidator

from embedway.admin.strict_request import check_request
from embedway.admin.usage import JSON, Amount, UsageScope, encode_json
from embedway.core.errors import Forbidden
from embedway.core.keys import Caller
from embedway.core.response_model import ResponseModel
from embedway.health.health import DeploymentStatus, HealthRegistry, HealthState
from embedway.ledger.activity import ActivityGroup
from embedway.ledger.activity_reader import ActivityReader
from embedway.ledger.query import Column, EntityNames
from embedway.observe.metrics import Metrics
from embedway.spaces.membership import SpaceMemberships

Seconds = Literal[10, 60, 300, 900]
Group = Literal["model", "provider", "project_id", "api_key_id", "user_id"]
_COLUMNS: dict[Group, Column] = {
    "model": "model",
    "provider": "provider",
    "project_id": "project_id",
    "api_key_id": "key_id",
    "user_id": "end_user",
}
MAX_DEPLOYMENTS = 200
"""The most deployments to list."""
_PREFIX = "embedway_"


def _to_seconds(value: str) -> object:
    return {str(each): each for each in get_args(Seconds)}.get(value, value)


class ActivityResult(UsageScope):
    """The usage of one group. The field that `group_by` names says which; the others are null."""

    user_id: str | None = None
    model: str | None = None
    provider: str | None = None
    num_model_requests: int
    """Requests that were answered with 200."""
    num_errors: int
    """Well-formed requests that failed. Refused requests are in `refusals`."""
    num_items: int
    input_tokens: int
    amount: Amount
    num_calls: int
    """Calls to providers, including retries."""
    num_failed_calls: int
    latency_p50_ms: float | None
    """Half of the answered requests took no longer; null if none was answered."""
    latency_p99_ms: float | None


class RefusedRequests(UsageScope):
    """The refused requests of one key for one reason. An unrecognised key has no id."""

    reason: str
    """The reason, as listed in `docs/errors.md`."""
    num_requests: int


class ActiveDeployment(ResponseModel):
    """A deployment that is in use or in trouble on this replica."""

    id: str
    health: HealthState
    drifted: bool
    """Whether it is quarantined because its vectors drifted."""
    in_flight: int
    """Calls in flight."""
    wait_s: float
    """Seconds until it may be called; 0 if it may be called now."""


class ReplicaStatus(ResponseModel):
    """The state of the process that answered this request."""

    host: str
    """The name of its machine."""
    process_id: int
    gauges: dict[str, float]
    """Each gauge of `/metrics` that has no labels, without the prefix `embedway_`."""
    deployments: list[ActiveDeployment]


class ActivityCard(ResponseModel, title="Activity"):
    """The usage of all replicas in the last seconds, and the state of one replica."""

    object: Literal["organization.activity"] = "organization.activity"
    start_time: float
    """Unix seconds. Later than asked if there were more than 20,000 usage records."""
    end_time: float
    group_by: Group
    total: ActivityResult
    results: list[ActivityResult]
    """The 100 groups with the most requests."""
    has_more: bool
    """Whether there are more groups."""
    refusals_start_time: int
    """Since when `refusals` counts, in Unix seconds: the start of a quarter hour."""
    refusals: list[RefusedRequests]
    """The 100 kinds of refusals with the most requests."""
    replica: ReplicaStatus


def router(
    reader: ActivityReader,
    *,
    healths: HealthRegistry,
    spaces: Callable[[], SpaceMemberships],
    metrics: Metrics,
    caller: Caller,
) -> APIRouter:
    """Build the route. `caller` is the dependency that authenticates the caller."""
    routes = APIRouter(tags=["usage"], dependencies=[Depends(check_request)])

    @routes.get("/v1/organization/activity", response_model=ActivityCard)
    async def get_activity(
        seconds: Annotated[
            Seconds,
            BeforeValidator(_to_seconds),
            Query(description="How far to look back: 10, 60, 300 or 900 seconds."),
        ] = 60,
        group_by: Annotated[Group, Query(description="What to group by.")] = "model",
        caller: Caller = caller,
    ) -> Response:
        """Return what happened in the last seconds, and the state of this replica.

        Usage and refused requests are those of all replicas. Needs an admin key.
        """
        if caller.on_behalf_of is not None or not caller.has_any_scope(("admin",)):
            raise Forbidden(
                "Only an admin key may read the activity, because it shows all projects. Make one: "
                "embedway keys create --name NAME --admin."
            )
        column = _COLUMNS[group_by]
        found = await reader.read(column, seconds=seconds)
        activity, names = found.activity, found.names
        card = ActivityCard(
            start_time=activity.span.start_ms / 1000,
            end_time=activity.span.end_ms / 1000,
            group_by=group_by,
            total=_result(activity.all, {}),
            results=[
                _result(each, _labels(group_by, column, each.value, names))
                for each in activity.groups
            ],
            has_more=activity.has_more,
            refusals_start_time=activity.refusals_since_ms // 1000,
            refusals=[
                RefusedRequests(
                    project_id=each.project_id or None,
                    project_name=names.projects.get(each.project_id),
                    api_key_id=each.key_id or None,
                    api_key_name=names.keys.get(each.key_id),
                    reason=each.reason,
                    num_requests=each.requests,
                )
                for each in activity.refusals
            ],
            replica=ReplicaStatus(
                host=gethostname(),
                process_id=os.getpid(),
                gauges={
                    name.removeprefix(_PREFIX): value
                    for name, value in (await metrics.read_gauges()).items()
                },
                deployments=list_active(healths.statuses(), set(spaces().drifted_ids())),
            ),
        )
        return Response(encode_json(card.model_dump()), media_type=JSON)

    return routes


def list_active(statuses: Iterable[DeploymentStatus], drifted: set[str]) -> list[ActiveDeployment]:
    """List the deployments that are drifted, not healthy or being called, those in trouble first.

    At most `MAX_DEPLOYMENTS`, because clients can make up names of models at some providers.
    """
    cards = {
        each.deployment.id: ActiveDeployment(
            id=each.deployment.label,
            health=each.state,
            drifted=each.deployment.id in drifted,
            in_flight=each.in_flight,
            wait_s=round(each.wait_s, 1),
        )
        for each in statuses
    }
    for id in drifted - cards.keys():
        cards[id] = ActiveDeployment(id=id, health="healthy", drifted=True, in_flight=0, wait_s=0)
    active = [
        each
        for each in cards.values()
        if each.drifted or each.in_flight or each.health != "healthy"
    ]
    active.sort(key=lambda each: (each.health == "healthy" and not each.drifted, -each.in_flight))
    return active[:MAX_DEPLOYMENTS]


def _labels(
    group_by: Group, column: Column, value: str | None, names: EntityNames
) -> dict[str, str | None]:
    """Return the group of a result, with the name of a project or key."""
    labels: dict[str, str | None] = {group_by: value}
    name_fields = {"project_id": "project_name", "key_id": "api_key_name"}
    return labels | {name_fields[of]: name for of, name in names.label({column: value}).items()}


def _result(each: ActivityGroup, labels: dict[str, Any]) -> ActivityResult:
    totals, latency = each.totals, each.latency
    return ActivityResult(
        **labels,
        num_model_requests=totals.requests,
        num_errors=totals.errors,
        num_items=totals.items,
        input_tokens=totals.tokens,
        amount=Amount.of(totals.cost_nano_usd),
        num_calls=totals.calls,
        num_failed_calls=totals.failed_calls,
        latency_p50_ms=latency and latency.p50_us / 1000,
        latency_p99_ms=latency and latency.p99_us / 1000,
    )
