"""The usage and costs endpoints: pages of buckets of results, as OpenAI answers them."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from embedway.admin.sent_once import sent_once
from embedway.admin.usage_parameters import (
    CostsRequest,
    EmbeddingsUsageRequest,
    RefusalsRequest,
    UsageRequest,
)
from embedway.core.errors import Forbidden, StorageUnavailable
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd, format_usd
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
"""On one page."""
JSON = "application/json"
NAMELESS = EntityNames(projects={}, keys={})

# Decimals as numbers, with every digit.
_json = msgspec.json.Encoder(decimal_format="number")


class UsageScope(BaseModel):
    """The project and key that a result is about; what `group_by` does not name is null."""

    project_id: str | None = None
    project_name: str | None = None
    api_key_id: str | None = None
    api_key_name: str | None = None


class UsageGroupCard(UsageScope):
    """What a result is of: null but for what `group_by` names."""

    user_id: str | None = None
    """The end user: from `X-On-Behalf-Of`, else from `user`."""
    model: str | None = None
    provider: str | None = None
    metadata: dict[str, str | None] | None = None


class UsageResult(UsageGroupCard):
    """What one group used in one bucket."""

    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"
    input_tokens: int = Field(validation_alias="tokens")
    num_model_requests: int = Field(validation_alias="requests")
    """That were answered with 200."""
    input_cached_tokens: int = Field(validation_alias="cached_tokens")
    estimated_tokens: int
    """Of the tokens, how many are an estimate."""
    unpriced_tokens: int
    """Of the tokens, how many have no known price, and so cost nothing."""
    num_items: int = Field(validation_alias="items")
    num_errors: int = Field(validation_alias="errors")
    """Requests that were refused or failed."""
    num_calls: int = Field(validation_alias="calls")
    """To providers, retries included."""
    num_failed_calls: int = Field(validation_alias="failed_calls")


class Amount(BaseModel):
    """Money, exact."""

    value: Annotated[Decimal, Field(json_schema_extra={"type": "number"})]
    currency: Literal["usd"] = "usd"


class CostsResult(UsageGroupCard):
    """What one group was charged in one bucket."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    amount_nano_usd: int
    upstream_amount: Amount
    """What providers may charge, failed calls included."""
    upstream_amount_nano_usd: int
    line_item: str | None = None
    """The model."""
    quantity: int | None = None
    """Of tokens; with `group_by=line_item`."""
    quantity_unit: Literal["tokens"] | None = None


class RefusalsResult(UsageScope):
    """How many requests of one group were refused in one bucket."""

    object: Literal["organization.usage.refusals.result"] = "organization.usage.refusals.result"
    reason: str | None = None
    """Why: see `docs/errors.md`."""
    num_requests: int


Result = TypeVar("Result")


class UsageBucket(BaseModel, Generic[Result]):
    """A stretch of time, in Unix seconds; the end is not part of it."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[Result]


class BucketPage(BaseModel, Generic[Result]):
    """Some buckets, in order; `next_page` is the `page` of the next ones."""

    object: Literal["page"] = "page"
    data: list[UsageBucket[Result]]
    has_more: bool
    next_page: str | None


def router(sums: UsageReports, *, caller: Caller, now_ms: Callable[[], int]) -> APIRouter:
    """The routes; `caller` is the dependency that asks for a key and says whose it is."""
    routes = APIRouter(tags=["usage"], dependencies=[Depends(sent_once)])

    @routes.get("/api/v1/llm/usage/embeddings", response_model=BucketPage[UsageResult])
    @routes.get("/v1/organization/usage/embeddings", response_model=BucketPage[UsageResult])
    def usage(  # pyright: ignore[reportUnusedFunction]
        asked: Annotated[EmbeddingsUsageRequest, Query()], caller: Caller = caller
    ) -> Response:
        """Requests, items and tokens by time and group.

        A key with the scope `admin` sees all usage, one with the scope `usage` that of its
        project.
        """
        return _page(sums, asked, caller, now_ms())

    @routes.get("/v1/organization/costs", response_model=BucketPage[CostsResult])
    def costs(  # pyright: ignore[reportUnusedFunction]
        asked: Annotated[CostsRequest, Query()], caller: Caller = caller
    ) -> Response:
        """What is charged, and what providers may charge, by time and group.

        A key with the scope `admin` sees all costs, one with the scope `usage` those of its
        project.
        """
        return _page(sums, asked, caller, now_ms())

    @routes.get("/v1/organization/usage/refusals", response_model=BucketPage[RefusalsResult])
    def refusals(  # pyright: ignore[reportUnusedFunction]
        asked: Annotated[RefusalsRequest, Query()], caller: Caller = caller
    ) -> Response:
        """Embeddings requests that were answered with an error, by time, key and reason.

        A key with the scope `admin` sees those of all, one with the scope `usage` those of its
        project.
        """
        if caller.on_behalf_of is not None:
            raise Forbidden(
                "Refused requests are not counted by end user, so a token of one may not read "
                "them. Use a key with the scope usage or admin."
            )
        return _page(sums, asked, caller, now_ms())

    return routes


def _allowed(query: report.UsageQuery, caller: Caller) -> report.UsageQuery:
    """`query`, with filters for what `caller` may read.

    Raises:
        Forbidden: It may read nothing, or the query names what is somebody else's.
    """
    # A token of an end user carries rights of a key, but is not in the key owner's hands.
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


def _page(sums: UsageReports, asked: UsageRequest, caller: Caller, now_ms: int) -> Response:
    query = _allowed(asked.query, caller)
    whole = asked.span(now_ms=now_ms)
    spans = list(islice(split_span(whole, query.width, query.zone), asked.page_size))
    sum_up = sums.count_refusals_in if isinstance(asked, RefusalsRequest) else sums.sum_usage_in
    try:
        found = sum_up(query, spans, max_results=MAX_RESULTS)
        groups = [dict(zip(query.group_by, each.group, strict=True)) for each in found]
        # An end user sees ids, as in its own answers, but not what its vendor calls things.
        names = _names(sums, groups) if caller.on_behalf_of is None else NAMELESS
    except SQLAlchemyError as error:
        raise StorageUnavailable("Usage cannot be read right now. Try again.") from error
    results: dict[TimeSpan, list[BaseModel]] = {}
    for each, group in zip(found, groups, strict=True):
        fields = _fields(group, names, asked)
        results.setdefault(each.bucket, []).append(_result(each, fields, asked))
    rest = TimeSpan(spans[-1].end_ms, whole.end_ms)
    more = rest.start_ms < rest.end_ms
    told = BucketPage(
        data=[
            UsageBucket(
                start_time=span.start_ms // 1000,
                end_time=span.end_ms // 1000,
                results=results.get(span, []),
            )
            for span in spans
        ],
        has_more=more,
        next_page=asked.cursor(rest) if more else None,
    )
    return Response(_json.encode(told.model_dump()), media_type=JSON)


def _names(sums: UsageReports, groups: Iterable[Mapping[Dimension, str | None]]) -> EntityNames:
    ids = {of: {id for each in groups if (id := each.get(of))} for of in ("project_id", "key_id")}
    return sums.read_names(projects=ids["project_id"], keys=ids["key_id"])


def _fields(
    group: Mapping[Dimension, str | None], names: EntityNames, asked: UsageRequest
) -> dict[str, Any]:
    """What a result is about, in the fields that the client knows."""
    keys = [each.removeprefix(METADATA) for each in asked.group_by if each.startswith(METADATA)]
    fields: dict[str, Any] = {
        each: group[asked.groups[each]] for each in asked.group_by if each in asked.groups
    }
    if keys:
        fields["metadata"] = {key: group[METADATA + key] for key in keys}
    called = {"project_id": "project_name", "key_id": "api_key_name"}
    return fields | {called[of]: name for of, name in names.label(group).items()}


def _result(
    each: UsageGroup | RefusalGroup, fields: Mapping[str, Any], asked: UsageRequest
) -> BaseModel:
    if isinstance(each, RefusalGroup):
        return RefusalsResult(**fields, num_requests=each.requests)
    if isinstance(asked, CostsRequest):
        return _costs(each, fields)
    return UsageResult.model_validate({**msgspec.structs.asdict(each.totals), **fields})


def _costs(usage: UsageGroup, group: Mapping[str, Any]) -> CostsResult:
    figures = usage.totals
    by_item = "line_item" in group
    return CostsResult(
        **group,
        amount=_amount(figures.cost_nano_usd),
        amount_nano_usd=figures.cost_nano_usd,
        upstream_amount=_amount(figures.upstream_cost_nano_usd),
        upstream_amount_nano_usd=figures.upstream_cost_nano_usd,
        quantity=figures.tokens if by_item else None,
        quantity_unit="tokens" if by_item else None,
    )


def _amount(nano_usd: NanoUsd) -> Amount:
    return Amount(value=Decimal(format_usd(nano_usd)))
