"""Turns a finished request into usage records."""

import time
from collections.abc import Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.core.usage import ANSWERED, UsageRecord
from embedway.sending.attempt import Attempt


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """How the usage of a batch's line is recorded."""

    usage_id: str
    """The id of its usage records, which no other line has."""
    first_record: int = 0
    """The number of its first record. If it is not 0, the line was charged before, and its answer
    lost: another answer is not charged."""


class UsageContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the usage records of one request share."""

    id: str
    """The answer's id, `embd_...`."""
    request: EmbedRequest
    caller: Caller
    request_id: str
    received_ms: int
    """When the request had been read, in ms since the epoch."""
    started_s: float
    """When the request began, on the clock of `time.perf_counter`."""
    line: BatchLine | None = None
    """The line of a batch that the request is; None if it is none."""

    def of_line(self, line: BatchLine | None) -> "UsageContext":
        """Return the context of a request that is a line of a batch; this one if it is none."""
        if line is None:
            return self
        return msgspec.structs.replace(self, id=line.usage_id, line=line)

    @property
    def is_charged_already(self) -> bool:
        """Whether the request is a line of a batch that was charged before."""
        return self.line is not None and self.line.first_record > 0

    def records(self, attempts: Sequence[Attempt], *, status: int) -> list[UsageRecord]:
        """Return one record for each deployment that was called, or one record if none was.

        Only status 200 is charged, at the current prices.
        """
        latency_us = round((time.perf_counter() - self.started_s) * 1_000_000)
        called = [each for each in attempts if each.calls]
        if len(called) > 1 and status == ANSWERED:
            # Record 0 counts as the request, so it is that of a deployment that answered.
            called.sort(key=lambda each: not each.items)
        first = self.line.first_record if self.line else 0
        if not called:
            return [self._record(first, None, status=status, latency_us=latency_us)]
        return [
            self._record(line, each, status=status, latency_us=latency_us)
            for line, each in enumerate(called, first)
        ]

    def cost(self, attempt: Attempt) -> NanoUsd:
        """Return what the items that an attempt answered cost the caller."""
        return attempt.deployment.cost(attempt.tokens, in_batch=self.line is not None)

    def _record(
        self, line: int, attempt: Attempt | None, *, status: int, latency_us: int
    ) -> UsageRecord:
        request, caller = self.request, self.caller
        deployment = attempt and attempt.deployment
        answer = attempt if status == ANSWERED else None
        whole = len(request.items) if line == 0 else 0
        return UsageRecord(
            id=self.id,
            line=line,
            at_ms=self.received_ms,
            request_id=self.request_id,
            project_id=caller.project.id if caller.project else "",
            key_id=caller.key_id,
            on_behalf_of=caller.on_behalf_of,
            user=request.user,
            metadata=request.metadata,
            model=_model(deployment, is_answer=answer is not None) if deployment else "",
            asked=request.model,
            provider=deployment.provider if deployment else "",
            items=answer.items if answer else whole,
            tokens=answer.tokens if answer else 0,
            estimated=answer is not None and not answer.is_exact,
            priced=deployment is None or deployment.spec.price_per_mtok_usd is not None,
            cost_nano_usd=self.cost(answer) if answer else 0,
            upstream_cost_nano_usd=(
                attempt.deployment.cost(attempt.upstream_tokens) if attempt else 0
            ),
            calls=attempt.calls if attempt else 0,
            failed_calls=attempt.failed_calls if attempt else 0,
            latency_us=latency_us,
            status=status,
        )


def _model(deployment: Deployment, *, is_answer: bool) -> str:
    is_known = is_answer or deployment.model.declared
    return deployment.model.id if is_known else deployment.label
