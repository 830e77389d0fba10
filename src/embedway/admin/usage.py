"""Serves usage and costs as pages of time buckets, in OpenAI's shape."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from embedway.admin.strict_request import check_request
from embedway.admin.usage_parameters import (
    CostsRequest,
    EmbeddingsUsageRequest,
    RefusalsRequest,
    UsageRequest,
)
from embedway.core.errors import Forbidden, StorageUnavailable
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd, format_usd
from embedway.core.response_model import ResponseModel
from embedway.ledger import query as report
from embedway.ledger.buckets import TimeSpan, split_span
from embedway.ledger.query import (
    METADATA,
    Dimension,
    EntityNames,
    RefusalGroup,
    UsageFilter,
    UsageGroup,
)
from embedway.ledger.reports import UsageReports

MAX_RESULTS = 50_000
"""The most results on one page."""
JSON = "application/json"
NO_NAMES = EntityNames(projects={}, keys={})

encode_json = msgspec.json.Encoder(decimal_format="number").encode
"""Encodes decimals as numbers with all their digits."""


class UsageScope(ResponseModel):
    """The project and key of a result. Fields that `group_by` does not name are null."""

    project_id: str | None = None
    project_name: str | None = None
    api_key_id: str | None = None
    api_key_name: str | None = None


class UsageGroupCard(UsageScope):
    """The group of a result. Fields that `group_by` does not name are null."""

    user_id: str | None = None
    """The end user, from `X-On-Behalf-Of` or else from `user`."""
    model: str | None = None
    provider: str | None = None
    metadata: dict[str, str | None] | None = None


class UsageResult(UsageGroupCard):
    """The usage of one group in one bucket."""

    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"
    input_tokens: int = Field(validation_alias="tokens")
    num_model_requests: int = Field(validation_alias="requests")
    """Requests that were answered with 200."""
    input_cached_tokens: int = Field(validation_alias="cached_tokens")
    estimated_tokens: int
    """Tokens that were estimated rather than reported or counted."""
    unpriced_tokens: int
    """Tokens without a known price. They cost nothing."""
    num_items: int = Field(validation_alias="items")
    num_errors: int = Field(validation_alias="errors")
    """Requests that were refused or failed."""
    num_calls: int = Field(validation_alias="calls")
    """Calls to providers, including retries."""
    num_failed_calls: int = Field(validation_alias="failed_calls")


class Amount(ResponseModel):
    """An exact amount of money."""

    value: Annotated[Decimal, Field(json_schema_extra={"type": "number"})]
    currency: Literal["usd"] = "usd"

    @classmethod
    def of(cls, nano_usd: NanoUsd) -> "Amount":
        """Return `nano_usd` as an amount in USD."""
        return cls(value=Decimal(format_usd(nano_usd)))


class CostsResult(UsageGroupCard):
    """The costs of one group in one bucket."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    amount_nano_usd: int
    upstream_amount: Amount
    """What providers may charge, including failed calls."""
    upstream_amount_nano_usd: int
    line_item: str | None = None
    """The model, with `group_by=line_item`."""
    quantity: int | None = None
    """The number of tokens, with `group_by=line_item`."""
    quantity_unit: Literal["tokens"] | None = None


class RefusalsResult(UsageScope):
    """The refused requests of one group in one bucket."""

    object: Literal["organization.usage.refusals.result"] = "organization.usage.refusals.result"
    reason: str | None = None
    """The reason, as listed in `docs/errors.md`."""
    num_requests: int


Result = TypeVar("Result")


class UsageBucket(ResponseModel, Generic[Result]):
    """One interval, in Unix seconds. The end is exclusive."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[Result]

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name of a bucket's schema, such as `CostsBucket`."""
        return params[0].__name__.removesuffix("Result") + "Bucket"


class BucketPage(ResponseModel, Generic[Result]):
    """Buckets in order of time. `next_page` is the `page` of the following ones."""

    object: Literal["page"] = "page"
    data: list[UsageBucket[Result]]
    has_more: bool
    next_page: str | None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name of a page's schema, such as `CostsPage`."""
        return params[0].__name__.removesuffix("Result") + "Page"


def router(reports: UsageReports, *, caller: Caller, now_ms: Callable[[], int]) -> APIRouter:
    """Build the routes. `caller` is the dependency that authenticates the caller."""
    routes = APIRouter(tags=["usage"], dependencies=[Depends(check_request)])

    @routes.get(
        "/api/v1/llm/usage/embeddings",
        response_model=BucketPage[UsageResult],
        operation_id="get_usage_mka1",
    )
    @routes.get("/v1/organization/usage/embeddings", response_model=BucketPage[UsageResult])
    def get_usage(
        request: Annotated[EmbeddingsUsageRequest, Query()], caller: Caller = caller
    ) -> Response:
        """Return requests, items and tokens by time and group.

        A key with the scope `admin` sees all usage, one with the scope `usage` that of its project.
        """
        return _page(reports, request, caller, now_ms())

    @routes.get("/v1/organization/costs", response_model=BucketPage[CostsResult])
    def get_costs(request: Annotated[CostsRequest, Query()], caller: Caller = caller) -> Response:
        """Return costs, and what providers may charge, by time and group.

        A key with the scope `admin` sees all costs, one with the scope `usage` those of its
        project.
        """
        return _page(reports, request, caller, now_ms())

    @routes.get("/v1/organization/usage/refusals", response_model=BucketPage[RefusalsResult])
    def get_refusals(
        request: Annotated[RefusalsRequest, Query()], caller: Caller = caller
    ) -> Response:
        """Count embeddings requests that were answered with an error, by time, key and reason.

        A key with the scope `admin` sees all of them, one with the scope `usage` those of its
        project.
        """
        if caller.on_behalf_of is not None:
            raise Forbidden(
                "Refused requests are not counted by end user, so an end user's token cannot read "
                "them. Use a key with the scope usage or admin."
            )
        return _page(reports, request, caller, now_ms())

    return routes


def _restrict(query: report.UsageQuery, caller: Caller) -> report.UsageQuery:
    """Return `query`, filtered to what `caller` may read.

    Raises:
        Forbidden: The caller may read nothing, or the query asks for what it may not read.
    """
    # An end user holds this token, not the key's owner, so it reads only the user's own usage.
    user = caller.on_behalf_of
    if user is None and caller.has_any_scope(("admin",)):
        return query
    if caller.project is None or not caller.has_any_scope(("usage", "admin")):
        raise Forbidden(
            "This credential may not read usage. Use a key with the scope usage, for its project, "
            "or admin, for all."
        )
    own = {"project_id": caller.project.id} | ({} if user is None else {"end_user": user})
    for each in query.filters:
        if each.dimension in own and set(each.values) != {own[each.dimension]}:
            param = "project_ids" if each.dimension == "project_id" else "user_ids"
            raise Forbidden(
                f"This credential may read the usage of {own[each.dimension]} only. Leave "
                f"{param!r} out, or use a key with the scope admin.",
                param=param,
            )
    filters = (UsageFilter(of, (value,)) for of, value in own.items())
    return msgspec.structs.replace(query, filters=(*query.filters, *filters))


def _page(reports: UsageReports, request: UsageRequest, caller: Caller, now_ms: int) -> Response:
    query = _restrict(request.query, caller)
    whole_span = request.span(now_ms=now_ms)
    spans = list(islice(split_span(whole_span, query.width, query.zone), request.page_size))
    counts_refusals = isinstance(request, RefusalsRequest)
    read_groups = reports.count_refusals if counts_refusals else reports.sum_usage
    try:
        usage_groups = read_groups(query, spans, max_results=MAX_RESULTS)
        groups = [dict(zip(query.group_by, each.group, strict=True)) for each in usage_groups]
        # End users see ids, as in their own responses, but not the names behind them.
        names = _read_names(reports, groups) if caller.on_behalf_of is None else NO_NAMES
    except SQLAlchemyError as error:
        raise StorageUnavailable("Usage cannot be read right now. Try again.") from error
    results: dict[TimeSpan, list[BaseModel]] = {}
    for each, group in zip(usage_groups, groups, strict=True):
        fields = _fields(group, names, request)
        results.setdefault(each.bucket, []).append(_result(each, fields, request))
    rest = TimeSpan(spans[-1].end_ms, whole_span.end_ms)
    more = rest.start_ms < rest.end_ms
    page = BucketPage(
        data=[
            UsageBucket(
                start_time=span.start_ms // 1000,
                end_time=span.end_ms // 1000,
                results=results.get(span, []),
            )
            for span in spans
        ],
        has_more=more,
        next_page=request.cursor(rest) if more else None,
    )
    return Response(encode_json(page.model_dump()), media_type=JSON)


def _read_names(
    reports: UsageReports, groups: Iterable[Mapping[Dimension, str | None]]
) -> EntityNames:
    ids = {of: {id for each in groups if (id := each.get(of))} for of in ("project_id", "key_id")}
    return reports.read_names(projects=ids["project_id"], keys=ids["key_id"])


def _fields(
    group: Mapping[Dimension, str | None], names: EntityNames, request: UsageRequest
) -> dict[str, Any]:
    """Return the group of a result, in the fields of the response."""
    keys = [each.removeprefix(METADATA) for each in request.group_by if each.startswith(METADATA)]
    fields: dict[str, Any] = {
        each: group[request.groups[each]] for each in request.group_by if each in request.groups
    }
    if keys:
        fields["metadata"] = {key: group[METADATA + key] for key in keys}
    name_fields = {"project_id": "project_name", "key_id": "api_key_name"}
    return fields | {name_fields[of]: name for of, name in names.label(group).items()}


def _result(
    each: UsageGroup | RefusalGroup, fields: Mapping[str, Any], request: UsageRequest
) -> BaseModel:
    if isinstance(each, RefusalGroup):
        return RefusalsResult(**fields, num_requests=each.requests)
    if isinstance(request, CostsRequest):
        return _costs(each, fields)
    return UsageResult.model_validate({**msgspec.structs.asdict(each.totals), **fields})


def _costs(usage: UsageGroup, group: Mapping[str, Any]) -> CostsResult:
    figures = usage.totals
    by_item = "line_item" in group
    return CostsResult(
        **group,
        amount=Amount.of(figures.cost_nano_usd),
        amount_nano_usd=figures.cost_nano_usd,
        upstream_amount=Amount.of(figures.upstream_cost_nano_usd),
        upstream_amount_nano_usd=figures.upstream_cost_nano_usd,
        quantity=figures.tokens if by_item else None,
        quantity_unit="tokens" if by_item else None,
    )
