"""One deployment that a request is sent to: what it is asked, and what came of it.

Knows nothing of other deployments, of vector spaces or of money: whether the vectors are right is
asked of a callable that is handed in.
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
"""Returns None for an answer that is right, or an awaitable that finds out. Either raises
`ProviderError` for one that is wrong."""


class Attempt:
    """One deployment that a request is sent to, and the calls that were made to it."""

    __slots__ = (
        *("_batch", "_check", "_counts", "_engine", "_engines", "_events", "_healths", "_now_s"),
        *("_preparer", "_request", "_request_id", "_was_healthy", "calls", "deployment"),
        *("failed_calls", "first_item", "is_exact", "items", "tokens", "upstream_tokens"),
    )

    def __init__(
        self,
        request: EmbedRequest,
        deployment: Deployment,
        *,
        request_id: str,
        counts: TokenCounts,
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
            deployment: The deployment to ask.
            request_id: The request's id, for logs.
            counts: What was counted for the request's other attempts; is added to.
            check: What decides whether vectors are right, beyond their shape and length.
            was_healthy: Whether the deployment was healthy when it was ranked. One that was not is
                asked all the same once it is its turn.
            engines: The engine of each deployment.
            healths: The health of each deployment.
            preparer: Counts and fits the items.
            events: What to call with what happens.
        """
        self.deployment = deployment
        self.first_item: int | None = None
        """The index of the first item that this deployment answered; None if it answered none."""
        self.items = 0
        """How many items of the answer this deployment embedded."""
        self.tokens = 0
        """The tokens of these items, as they are charged."""
        self.is_exact = True
        """Whether `tokens` was counted, here or by the provider, and not estimated."""
        self.calls = 0
        self.failed_calls = 0
        self.upstream_tokens = 0
        """The tokens that the provider may charge for."""
        self._request = request
        self._request_id = request_id
        self._counts = counts
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
        """The most calls of one request that the deployment gets at a time."""
        return self._engine.limits.max_parallel

    async def prepare(self) -> Batch:
        """Count and fit all items of the request for this deployment, once.

        Raises:
            InvalidRequest: The deployment cannot be asked for this.
            ServiceOverloaded: Too much is waiting to be counted.
        """
        if self._batch is None:
            self._batch = await self._preparer.prepare(
                self._request, self.deployment, self._engine.abilities, self._counts
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
        """Send one batch once, and check what comes back.

        Args:
            batch: All items of the request or some of them, as `prepare` made them.
            deadline_s: The caller's deadline, on the clock of `HealthRegistry.now_s`.
            others: How many attempts are left to fail over to. They get their share of the time
                that is left, and a deployment in trouble is not called while there are any.
            timeout_s: How long to wait for the answer; if not given, that share.

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
            batch: What was sent.
            result: What came back.
            first_item: The index in the request of the batch's first item.
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
        """Why the deployment is not called now; None if it is."""
        state = health.state(now_s)
        if state == "healthy":
            return None
        # A deployment that was ranked last for its failures is called once it is its turn.
        if state != "limited" and not (others and self._was_healthy):
            return None
        kind = "rate_limit" if state == "limited" else "overloaded"
        return ProviderError(kind, billed="not sent", retry_after_s=health.wait_s(now_s))

    def _record(
        self, health: DeploymentHealth, batch: Batch, outcome: Outcome, seconds: float
    ) -> None:
        """Tell the deployment's health, the counts and the observers how a call ended."""
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
            # A deployment without credentials or an address cannot be called, and is left alone.
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
        """The tokens that the provider charges: what it reports, unless no text has so many."""
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
