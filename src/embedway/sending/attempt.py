"""One deployment that a request is sent to, and what came of it.

It knows no other deployments, no vector spaces and no prices. The caller passes in the check that
decides whether vectors are right.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest
from embedway.health.health import DeploymentHealth, HealthRegistry
from embedway.sending.cut import cut_batch
from embedway.sending.engine import EngineRegistry
from embedway.sending.finish import check_result, finish
from embedway.sending.outcome import (
    CallEvents,
    Cancellation,
    Failure,
    NotSent,
    Outcome,
    Success,
)
from embedway.sending.prepare import InputPreparer, TokenCounts

ResultCheck = Callable[[Batch, BatchResult], Awaitable[None] | None]
"""Checks the vectors of an answer, at once or in the returned awaitable. Raises `ProviderError` if
they are wrong."""


class Attempt:
    """One deployment that a request is sent to, and the calls that were made to it."""

    __slots__ = (
        *("_batch", "_check", "_counts", "_engine", "_engines", "_events", "_healths", "_now_s"),
        *("_preparer", "_request", "_request_id", "_was_healthy", "calls", "deployment"),
        *("_tenant", "failed_calls", "first_item", "is_exact", "items", "tokens"),
        "upstream_tokens",
    )

    def __init__(
        self,
        request: EmbedRequest,
        deployment: Deployment,
        *,
        request_id: str,
        counts: TokenCounts,
        tenant: str,
        check: ResultCheck | None,
        was_healthy: bool,
        engines: EngineRegistry,
        healths: HealthRegistry,
        preparer: InputPreparer,
        events: CallEvents,
    ) -> None:
        """Bind a request to a deployment. Sends nothing.

        Args:
            request: The client's request.
            deployment: The deployment to call.
            request_id: The request's id, for logs.
            counts: The token counts that all attempts of the request share.
            tenant: Who sent the request.
            check: Decides whether vectors are right, beyond their shape and length.
            was_healthy: Whether the deployment was healthy when it was ranked. An unhealthy one is
                called all the same when its turn comes.
            engines: The engine of each deployment.
            healths: The health of each deployment.
            preparer: Counts the items and fits them to the model's limits.
            events: The observers of calls.
        """
        self.deployment = deployment
        self.first_item: int | None = None
        """The index of the first item that this deployment embedded; None if it embedded none."""
        self.items = 0
        """How many items of the answer this deployment embedded."""
        self.tokens = 0
        """The tokens of these items, as charged to the client."""
        self.is_exact = True
        """Whether `tokens` was counted, here or by the provider, and not estimated."""
        self.calls = 0
        self.failed_calls = 0
        self.upstream_tokens = 0
        """The tokens that the provider may charge for."""
        self._request = request
        self._request_id = request_id
        self._counts = counts
        self._tenant = tenant
        self._check = check
        self._was_healthy = was_healthy
        self._engine = engines.engine(deployment)
        self._engines = engines
        self._healths = healths
        self._preparer = preparer
        self._events = events
        self._now_s = healths.now_s
        self._batch: Batch | None = None

    @property
    def max_parallel(self) -> int:
        """The most calls of one request that may be in flight to the deployment."""
        return self._engine.limits.max_parallel

    async def prepare(self) -> Batch:
        """Count and fit all items of the request for this deployment, once.

        Raises:
            InvalidRequest: The deployment does not accept the request.
            ServiceOverloaded: Too much is waiting to be counted.
        """
        if self._batch is None:
            self._batch = await self._preparer.prepare(
                self._request,
                self.deployment,
                self._engine.abilities,
                self._counts,
                self._tenant,
            )
        return self._batch

    def cut(self, batch: Batch) -> Sequence[Batch]:
        """Cut a batch into the calls that the deployment's limits allow."""
        return cut_batch(batch, self._engines.limits(self.deployment))

    async def run(
        self,
        batch: Batch,
        *,
        deadline_s: float,
        others: int = 0,
        timeout_s: float | None = None,
    ) -> Success | Failure | NotSent:
        """Send one batch once, and check the answer.

        Args:
            batch: All items of the request or some of them, as `prepare` made them.
            deadline_s: The caller's deadline, on the clock of `HealthRegistry.now_s`.
            others: How many attempts are left to fail over to. Each gets an equal part of the time
                left, and a deployment in trouble is not called while there are others.
            timeout_s: How long to wait for the answer; by default, that part of the time.

        Raises:
            InvalidRequest: The answer shows that the model cannot do what the client asked for.
        """
        began_s = self._now_s()
        health = self._healths.get(self.deployment)
        refusal = self._refusal(health, began_s, others=others)
        if refusal is not None:
            return NotSent(refusal)
        if timeout_s is None and others:
            timeout_s = max(deadline_s - began_s, 0) / (others + 1)
        health.start_call(began_s)
        self._events.on_start()
        outcome: Outcome = Cancellation()
        try:
            if timeout_s is None:
                result = await self._engine.embed(batch)
            else:
                async with asyncio.timeout(timeout_s):
                    result = await self._engine.embed(batch)
            outcome = success = Success(check_result(result, batch))
        except (ProviderError, TimeoutError, EmbedwayError) as error:
            outcome = failure = _failure(error)
            return failure
        except asyncio.CancelledError:
            if self._now_s() >= deadline_s:
                outcome = Failure(ProviderError("timeout", billed="maybe"))
            raise
        finally:
            self._record(health, batch, outcome, self._now_s() - began_s)
        try:
            if self._check is not None:
                pending = self._check(batch, success.result)
                if pending is not None:
                    await pending
            finished = finish(success.result, batch, self._request, self.deployment)
        except ProviderError as error:
            return Failure(error)
        return success if finished is success.result else Success(finished)

    def count_answer(self, batch: Batch, result: BatchResult, *, first_item: int) -> None:
        """Count a batch whose vectors become part of the answer.

        Args:
            batch: The batch that was sent.
            result: Its result.
            first_item: The index of the batch's first item in the request.
        """
        reported = result.tokens_up_to(batch.max_billed_tokens)
        self.items += len(batch.items)
        self.tokens += sum(batch.tokens) if reported is None else reported
        self.is_exact = self.is_exact and (batch.exact or reported is not None)
        if self.first_item is None or first_item < self.first_item:
            self.first_item = first_item

    def _refusal(
        self, health: DeploymentHealth, now_s: float, *, others: int
    ) -> ProviderError | None:
        """Return why the deployment cannot be called now, or None if it can."""
        state = health.state(now_s)
        if state == "healthy":
            return None
        # A deployment that was ranked last for its failures is called when its turn comes.
        if state != "limited" and not (others and self._was_healthy):
            return None
        kind = "rate_limit" if state == "limited" else "overloaded"
        return ProviderError(kind, billed="not sent", retry_after_s=health.wait_s(now_s))

    def _record(
        self, health: DeploymentHealth, batch: Batch, outcome: Outcome, seconds: float
    ) -> None:
        """Record how a call ended: in the counts, the deployment's health and the observers."""
        tokens = sum(batch.tokens)
        error, rest_s = None, None
        if isinstance(outcome, Success):
            rest_s = outcome.result.rate_limit_rest_s
            self._count_call(self._charged_tokens(batch, outcome.result, tokens), failed=False)
        elif isinstance(outcome, Failure):
            error = outcome.error
            if error.was_sent:
                self._count_call(0 if error.billed == "no" else tokens, failed=True)
        elif isinstance(outcome, Cancellation):
            self._count_call(tokens, failed=True)
        if isinstance(outcome, Success | Failure):
            # A failure counts even if nothing was sent: without credentials, no call can succeed.
            now_s = self._now_s()
            health.end_call(error, tokens=tokens, seconds=seconds, now_s=now_s, rest_s=rest_s)
        else:
            health.cancel_call()
        self._events.on_outcome(self._request_id, self.deployment, outcome, seconds)

    def _count_call(self, upstream_tokens: int, *, failed: bool) -> None:
        self.calls += 1
        self.failed_calls += failed
        self.upstream_tokens += upstream_tokens

    def _charged_tokens(self, batch: Batch, result: BatchResult, tokens: int) -> int:
        """Return the tokens that the provider charges: those it reports, unless impossible."""
        reported = result.tokens
        if reported is None or reported == tokens:
            return tokens
        most = batch.max_billed_tokens
        if reported > most:
            self._events.on_overcount(self._request_id, self.deployment, reported, most)
        elif reported < 0:
            self._events.on_unreadable_usage(self._request_id, self.deployment)
        return result.tokens_up_to(batch.max_tokens) or tokens


def _failure(error: ProviderError | TimeoutError | EmbedwayError) -> Failure | NotSent:
    if isinstance(error, ProviderError):
        return Failure(error)
    if isinstance(error, TimeoutError):
        return Failure(ProviderError("timeout", billed="maybe"))
    return NotSent(error)
