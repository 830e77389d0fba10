"""Serves batches in the shapes of OpenAI's Batch API."""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from embedway.admin.amounts import StrictBody
from embedway.admin.files import EXPIRES_S, project_of
from embedway.admin.paging import ListEntry, ListPage, PageAfter, PageLimit, list_page
from embedway.batches.job import BatchJob, BatchStatus, Submitter
from embedway.batches.lines import ENDPOINT
from embedway.batches.store import BatchStore
from embedway.core import ids
from embedway.core.errors import InvalidRequest, NotFound
from embedway.core.keys import Caller
from embedway.core.response_model import ResponseModel
from embedway.files.file import new_file_id
from embedway.files.store import FileStore

WINDOW = "24h"
WINDOW_MS = 24 * 3_600_000

NoNul = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class OutputExpiry(StrictBody, title="OutputExpiresAfter"):
    """When the files of results are deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=EXPIRES_S[0], le=EXPIRES_S[-1])]


class NewBatch(StrictBody):
    """A batch to create."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=128)]
    endpoint: Literal["/v1/embeddings"]
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[NoNul, Field(max_length=64)], Annotated[NoNul, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: OutputExpiry | None = None


class ProblemCard(ResponseModel, title="BatchError"):
    """Why a batch failed."""

    code: str
    message: str
    param: str | None
    line: int | None
    """The line of the input file at fault, from 1."""


class ProblemList(ResponseModel, title="BatchErrors"):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[ProblemCard]


class RequestCounts(ResponseModel, title="BatchRequestCounts"):
    """How many requests of a batch have come how far."""

    total: int
    completed: int
    failed: int


class BatchUsage(ResponseModel):
    """The tokens that a batch was charged so far."""

    input_tokens: int
    output_tokens: Literal[0] = 0
    total_tokens: int


class BatchCard(ListEntry, title="Batch"):
    """A batch. Times are Unix seconds, and null if it has not come to that."""

    object: Literal["batch"] = "batch"
    endpoint: Literal["/v1/embeddings"] = ENDPOINT
    errors: ProblemList | None
    input_file_id: str
    completion_window: Literal["24h"] = WINDOW
    status: BatchStatus
    output_file_id: str | None
    """The file of answers, once the batch has ended; null if there are none."""
    error_file_id: str | None
    """The file of requests without an answer, likewise."""
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


def to_card(batch: BatchJob) -> BatchCard:
    """Return a batch as clients see it."""

    def reached(status: BatchStatus) -> int | None:
        at_ms = batch.reached_ms.get(status)
        return None if at_ms is None else at_ms // 1000

    problems = [
        ProblemCard(code=each.code, message=each.message, param=each.param, line=each.line)
        for each in batch.errors
    ]
    return BatchCard(
        id=batch.id,
        errors=ProblemList(data=problems) if problems else None,
        input_file_id=batch.input_file_id,
        status=batch.status,
        output_file_id=batch.output_file_id if batch.is_finished and batch.completed else None,
        error_file_id=batch.error_file_id if batch.is_finished and batch.failed else None,
        created_at=batch.created_ms // 1000,
        in_progress_at=reached("in_progress"),
        expires_at=batch.expires_ms // 1000,
        finalizing_at=reached("finalizing"),
        completed_at=reached("completed"),
        failed_at=reached("failed"),
        expired_at=reached("expired"),
        cancelling_at=reached("cancelling"),
        cancelled_at=reached("cancelled"),
        request_counts=RequestCounts(
            total=batch.total, completed=batch.completed, failed=batch.failed
        ),
        usage=BatchUsage(input_tokens=batch.tokens, total_tokens=batch.tokens),
        metadata=dict(batch.metadata) or None,
    )


def router(
    batches: BatchStore,
    files: FileStore,
    *,
    caller: Caller,
    now_ms: Callable[[], int],
    on_change: Callable[[], None],
) -> APIRouter:
    """Build the routes.

    Args:
        batches: The batches.
        files: The files.
        caller: The dependency that returns the caller.
        now_ms: The wall clock, in ms since the epoch.
        on_change: Called when there is something to do for a batch.
    """
    routes = APIRouter(prefix="/v1/batches", tags=["batches"])

    @routes.post("")
    async def create_batch(body: NewBatch, caller: Caller = caller) -> BatchCard:
        """Embed the requests of an uploaded file in the background, within a day.

        Each line is `{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {...}}`,
        with a body as for `POST /v1/embeddings`.
        """
        project_id = project_of(caller)
        try:
            await files.get(project_id, body.input_file_id)
        except NotFound as error:
            raise InvalidRequest(error.message, param="input_file_id") from None
        expiry, created_ms = body.output_expires_after, now_ms()
        batch = BatchJob(
            id=ids.new_id("batch"),
            project_id=project_id,
            submitter=Submitter(
                key_id=caller.key_id,
                scopes=tuple(sorted(caller.scopes)),
                on_behalf_of=caller.on_behalf_of,
            ),
            metadata=body.metadata or {},
            input_file_id=body.input_file_id,
            output_file_id=new_file_id(),
            error_file_id=new_file_id(),
            output_expires_s=expiry.seconds if expiry else None,
            status="validating",
            created_ms=created_ms,
            expires_ms=created_ms + WINDOW_MS,
        )
        await batches.add(batch)
        on_change()
        return to_card(batch)

    @routes.get("")
    async def list_batches(
        *, limit: PageLimit = 20, after: PageAfter = None, caller: Caller = caller
    ) -> ListPage[BatchCard]:
        """List the project's batches, newest first."""
        page = await batches.list_batches(project_of(caller), after=after, limit=limit)
        return list_page(page, to_card)

    @routes.get("/{batch_id}")
    async def retrieve_batch(batch_id: str, caller: Caller = caller) -> BatchCard:
        """Return a batch, and how far it has come."""
        return to_card(await batches.get(project_of(caller), batch_id))

    @routes.post("/{batch_id}/cancel")
    async def cancel_batch(batch_id: str, caller: Caller = caller) -> BatchCard:
        """Send no more requests of a batch. Those under way are finished and charged."""
        project_id = project_of(caller)
        await batches.get(project_id, batch_id)
        await batches.request_cancel(batch_id)
        on_change()
        return to_card(await batches.get(project_id, batch_id))

    return routes
