"""The usage and costs endpoints: pages of buckets of results, as OpenAI answers them."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import groupby, islice
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from embedway.admin.usage_parameters import COSTS, EMBEDDINGS, Asked, Endpoint, described, read
from embedway.core.buckets import Span, buckets
from embedway.core.errors import Forbidden, StorageUnavailable
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd, as_usd
from embedway.core.report import METADATA, Filter, Query, Usage

MAX_RESULTS = 50_000
"""On one page."""

# Decimals as numbers, with every digit.
_json = msgspec.json.Encoder(decimal_format="number")


class Sums(Protocol):
    """Where usage is summed."""

    def within(self, query: Query, spans: list[Span], *, most: int | None = None) -> list[Usage]:
        """See `embedway.storage.usage.SqlUsage.within`."""
        ...


class Group(BaseModel):
    """What a result is of: null but for what `group_by` names."""

    project_id: str | None = None
    user_id: str | None = None
    """The end user: from `X-On-Behalf-Of`, else from `user`."""
    api_key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    metadata: dict[str, str | None] | None = None


class UsageResult(Group):
    """What one group used in one bucket."""

    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"
    input_tokens: int
    num_model_requests: int
    """That were answered with 200."""
    input_cached_tokens: int
    estimated_tokens: int
    """Of the tokens, how many are an estimate."""
    unpriced_tokens: int
    """Of the tokens, how many have no known price, and so cost nothing."""
    num_items: int
    num_errors: int
    """Requests that were refused or failed."""
    num_calls: int
    """To providers, retries included."""
    num_failed_calls: int


class Amount(BaseModel):
    """Money, exact."""

    value: Annotated[Decimal, Field(json_schema_extra={"type": "number"})]
    currency: Literal["usd"] = "usd"


class CostsResult(Group):
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


Result = TypeVar("Result")


class Bucket(BaseModel, Generic[Result]):
    """A stretch of time, in Unix seconds; the end is not part of it."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[Result]


class Page(BaseModel, Generic[Result]):
    """Some buckets, in order; `next_page` is the `page` of the next ones."""

    object: Literal["page"] = "page"
    data: list[Bucket[Result]]
    has_more: bool
    next_page: str | None


def router(sums: Sums, *, caller: Caller, page_key: bytes, now_ms: Callable[[], int]) -> APIRouter:
    """The routes.

    Args:
        sums: Where usage is summed.
        caller: The dependency that asks for a key and says whose it is.
        page_key: A secret of the installation, which pages' cursors are sealed with.
        now_ms: The clock, milliseconds since 1970-01-01 UTC.
    """
    routes = APIRouter(tags=["usage"])

    def page(request: Request, endpoint: Endpoint, caller: Caller) -> Response:
        own = _own(caller)
        parameters = request.query_params.multi_items()
        asked = read(parameters, endpoint, now_ms=now_ms(), page_key=page_key)
        return _page(sums, _restricted(asked, own), endpoint, page_key)

    for path in ("/v1/organization/usage/embeddings", "/api/v1/llm/usage/embeddings"):

        @routes.get(path, response_model=Page[UsageResult], openapi_extra=described(EMBEDDINGS))
        def usage(request: Request, caller: Caller = caller) -> Response:  # pyright: ignore[reportUnusedFunction]
            """Requests, items and tokens by time and group.

            A key with the scope `admin` sees all usage, one with the scope `usage` that of its
            project.
            """
            return page(request, EMBEDDINGS, caller)

    @routes.get(
        "/v1/organization/costs", response_model=Page[CostsResult], openapi_extra=described(COSTS)
    )
    def costs(request: Request, caller: Caller = caller) -> Response:  # pyright: ignore[reportUnusedFunction]
        """What is charged, and what providers may charge, by time and group.

        A key with the scope `admin` sees all costs, one with the scope `usage` those of its
        project.
        """
        return page(request, COSTS, caller)

    return routes


def _own(caller: Caller) -> tuple[Filter, ...]:
    """All that `caller` may read, as filters; none for everything.

    Raises:
        Forbidden: It may read nothing.
    """
    # A token of an end user carries rights of a key, but is not in the key owner's hands.
    user = () if caller.on_behalf_of is None else (Filter("end_user", (caller.on_behalf_of,)),)
    if caller.may(("admin",)) and not user:
        return ()
    if caller.project is None or not caller.may(("usage", "admin")):
        raise Forbidden(
            "This credential may not read usage. Use a key with the scope usage, for its project, "
            "or admin, for all."
        )
    return (Filter("project_id", (caller.project.id,)), *user)


def _restricted(asked: Asked, own: tuple[Filter, ...]) -> Asked:
    """What was asked for, as far as it is `own`.

    Raises:
        Forbidden: It names what is somebody else's.
    """
    allowed = {each.of: each.values for each in own}
    for each in asked.query.where:
        if not set(each.values) <= set(allowed.get(each.of, each.values)):
            param = "project_ids" if each.of == "project_id" else "user_ids"
            raise Forbidden(
                f"This credential may read the usage of {allowed[each.of][0]} only. Leave "
                f"{param!r} out, or use a key with the scope admin.",
                param=param,
            )
    query = msgspec.structs.replace(asked.query, where=(*asked.query.where, *own))
    return msgspec.structs.replace(asked, query=query)


def _page(sums: Sums, asked: Asked, endpoint: Endpoint, page_key: bytes) -> Response:
    query = asked.query
    spans = list(islice(buckets(asked.span, query.width, query.zone), asked.limit))
    try:
        found = sums.within(query, spans, most=MAX_RESULTS)
    except SQLAlchemyError as error:
        raise StorageUnavailable("Usage cannot be read right now. Try again.") from error
    results = {span: list(each) for span, each in groupby(found, attrgetter("bucket"))}
    last_ms = spans[-1].end_ms
    more = last_ms < asked.span.end_ms
    result = _costs if endpoint is COSTS else _usage
    told = Page(
        data=[
            Bucket(
                start_time=span.start_ms // 1000,
                end_time=span.end_ms // 1000,
                results=[
                    result(each, _group(each, asked, endpoint)) for each in results.get(span, ())
                ],
            )
            for span in spans
        ],
        has_more=more,
        next_page=asked.cursor(last_ms, page_key) if more else None,
    )
    return Response(_json.encode(told.model_dump()), media_type="application/json")


def _group(usage: Usage, asked: Asked, endpoint: Endpoint) -> dict[str, Any]:
    values = dict(zip(asked.query.by, usage.group, strict=True))
    keys = [each.removeprefix(METADATA) for each in asked.names if each.startswith(METADATA)]
    named = {each: values[endpoint.groups[each]] for each in asked.names if each in endpoint.groups}
    return named | ({"metadata": {key: values[METADATA + key] for key in keys}} if keys else {})


def _usage(usage: Usage, group: Mapping[str, Any]) -> UsageResult:
    figures = usage.figures
    return UsageResult(
        **group,
        input_tokens=figures.tokens,
        num_model_requests=figures.requests,
        input_cached_tokens=figures.cached_tokens,
        estimated_tokens=figures.estimated_tokens,
        unpriced_tokens=figures.unpriced_tokens,
        num_items=figures.items,
        num_errors=figures.errors,
        num_calls=figures.calls,
        num_failed_calls=figures.failed_calls,
    )


def _costs(usage: Usage, group: Mapping[str, Any]) -> CostsResult:
    figures = usage.figures
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
    return Amount(value=Decimal(as_usd(nano_usd)))
