"""Answers the lines of batches: waits where a client would have to, and charges each line once.

The ids of a line's usage records follow from the batch and the line, and the ledger accepts each id
once. So whoever answers a line that was perhaps answered before finds out whether it was charged.
"""

import asyncio
from collections.abc import Awaitable
from typing import Literal, Protocol

import msgspec
import structlog

from embedway.auth.authenticator import Authenticator
from embedway.batches.job import BatchJob
from embedway.batches.lines import InputLine, parse_request
from embedway.core.errors import EmbedwayError, InternalError, UpstreamError, UsageInDoubt
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest
from embedway.core.usage import ANSWERED
from embedway.ledger.ledger import Ledger
from embedway.metering.billing import BatchLine
from embedway.pipeline.encoding import encode_result
from embedway.pipeline.result import EmbedResult
from embedway.wire import error as wire_error
from embedway.wire.decode import decode_body

UPSTREAM_WAITS_S = (5.0, 30.0, 120.0)
"""How long to wait each time before a line is sent again whose provider failed."""
DOUBT_WAIT_S = 2.0
"""How often to look whether a charge in doubt was committed or withdrawn."""

Ending = Literal["batch_expired", "batch_cancelled"]
"""Why the lines that are left of a batch get no answer."""
_REASONS: dict[Ending, str] = {
    "batch_expired": "This request could not be executed before the batch expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
}

_log = structlog.get_logger("embedway.batches")


class EmbedLine(Protocol):
    """Embeds the request of a line with the configuration in force, as `Embedder.embed` does."""

    def __call__(
        self, request: EmbedRequest, caller: Caller, *, request_id: str, line: BatchLine
    ) -> Awaitable[EmbedResult]:
        """Return the vectors once their usage is committed."""
        ...


class LineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch writes for one line."""

    line: InputLine
    content: bytes
    """A line of the output file or of the error file."""
    tokens: int
    is_answered: bool
    """Whether it belongs into the output file."""


class BatchEnding:
    """Says when and why the lines that are left of a batch are not sent any more."""

    def __init__(self) -> None:
        self.reason: Ending | None = None
        self.is_stopping = False
        """Whether this process is about to stop, and others go on with the batch."""
        self._event = asyncio.Event()

    def end(self, reason: Ending | None) -> None:
        """Send no more lines: for good with a reason, else in this process."""
        self.reason = self.reason or reason
        self.is_stopping = self.is_stopping or reason is None
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait; return whether the batch goes on."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return True
        return False

    @property
    def has_come(self) -> bool:
        """Whether no more lines are sent."""
        return self._event.is_set()


class _Try(msgspec.Struct, frozen=True):
    """A line, and the ids under which it is sent and recorded."""

    batch: BatchJob
    body: msgspec.Raw
    usage_id: str
    request_id: str


class LineAnswerer:
    """Answers the lines of all batches of this process."""

    def __init__(
        self,
        embed: EmbedLine,
        *,
        authenticator: Authenticator,
        ledger: Ledger,
        max_items: int,
    ) -> None:
        self._embed = embed
        self._authenticator = authenticator
        self._ledger = ledger
        self._max_items = max_items

    async def answer(
        self, batch: BatchJob, line: InputLine, *, may_be_charged: bool, ending: BatchEnding
    ) -> LineResult | None:
        """Answer a line, or return None if this process stops before it is answered.

        Args:
            batch: The batch.
            line: One of its lines, which is valid.
            may_be_charged: Whether a process that has worked on the batch may have charged it.
            ending: Tells when to stop waiting.
        """
        name = f"{batch.id.removeprefix('batch_')}_{line.number:06d}"
        request_id = f"batch_req_{name}"
        request = parse_request(line)
        status, tokens, body = 0, 0, b""
        try:
            answered = await self._try_until_answered(
                _Try(batch, request.body, usage_id=f"embd_{name}", request_id=request_id),
                may_be_charged=may_be_charged,
                ending=ending,
            )
            if answered is not None:
                decoded, result = answered
                status, tokens = ANSWERED, result.tokens
                body = b"".join(await encode_result(decoded, result))
        except EmbedwayError as refusal:
            status, body = refusal.status, wire_error.encode_error(refusal)
        except Exception:  # noqa: BLE001  # one line at fault ends no batch
            _log.exception("defect", request_id=request_id)
            refusal = InternalError(f"This is a defect of ours, logged under {request_id}.")
            status, body = refusal.status, wire_error.encode_error(refusal)
        response = error = None
        if status:
            response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(body)}
        elif ending.reason is None:
            return None
        else:
            error = {"code": ending.reason, "message": _REASONS[ending.reason]}
        content = msgspec.json.encode(
            {"id": request_id, "custom_id": request.custom_id, "response": response, "error": error}
        )
        return LineResult(
            line=line, content=content + b"\n", tokens=tokens, is_answered=status == ANSWERED
        )

    async def _try_until_answered(
        self, sent: "_Try", *, may_be_charged: bool, ending: BatchEnding
    ) -> tuple[EmbedRequest, EmbedResult] | None:
        """Return the request with its result, or None if the batch ends before there is one.

        Raises:
            EmbedwayError: The request is refused, and waiting does not help.
        """
        billed = BatchLine(usage_id=sent.usage_id)
        upstream_waits_s = list(UPSTREAM_WAITS_S)
        is_in_doubt = False
        while not ending.has_come:
            wait_s = DOUBT_WAIT_S
            try:
                # A charge in doubt has a record once it is certain, whether it was made or not.
                if not is_in_doubt or await self._ledger.find(billed.usage_id):
                    is_in_doubt = False
                    if may_be_charged:
                        billed = await self._find_charge(sent.usage_id)
                    return await self._send(sent, billed)
            except UsageInDoubt:
                is_in_doubt = True
            except EmbedwayError as error:
                until_next_s = _wait_s(error, upstream_waits_s)
                if until_next_s is None:
                    raise
                wait_s = until_next_s
            may_be_charged = True
            await ending.wait(wait_s)
        return None

    async def _send(self, sent: "_Try", billed: BatchLine) -> tuple[EmbedRequest, EmbedResult]:
        submitter = sent.batch.submitter
        caller = await self._authenticator.find_caller(
            key_id=submitter.key_id,
            project_id=sent.batch.project_id,
            scopes=submitter.scopes,
            on_behalf_of=submitter.on_behalf_of,
        )
        request = await decode_body(bytes(sent.body), max_items=self._max_items)
        result = await self._embed(request, caller, request_id=sent.request_id, line=billed)
        return request, result

    async def _find_charge(self, usage_id: str) -> BatchLine:
        """Return how to record the next try of a line."""
        number = 0
        while True:
            id = f"{usage_id}_{number}" if number else usage_id
            found = await self._ledger.find(id)
            if not found:
                return BatchLine(usage_id=id)
            if (0, ANSWERED) in found:
                return BatchLine(usage_id=id, first_record=len(found))
            number += 1


def _wait_s(error: EmbedwayError, upstream_waits_s: list[float]) -> float | None:
    """Return how long to wait before a request is sent again; None if that does not help.

    It takes the wait for a provider that failed from the list.
    """
    if isinstance(error, UpstreamError):
        return upstream_waits_s.pop(0) if upstream_waits_s else None
    wait_ms = error.headers.get("retry-after-ms")
    return None if wait_ms is None else int(wait_ms) / 1000
