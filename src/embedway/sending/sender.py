"""Sends a request's items as calls within each deployment's limits, and joins the answers.

Owns retries, splitting, failover and the search for a refused item. The caller chooses the
deployments and their order; `Attempt` makes a single call.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch
from embedway.core.errors import EmbedwayError, InvalidRequest
from embedway.core.provider_error import ITEM_KINDS, ProviderError
from embedway.core.request import EmbedRequest
from embedway.core.vectors import Vectors
from embedway.health.health import HealthRegistry
from embedway.sending.attempt import Attempt, ResultCheck
from embedway.sending.bisect import find_refused_item
from embedway.sending.engine import EngineRegistry
from embedway.sending.outcome import CallEvents, Success
from embedway.sending.prepare import InputPreparer, TokenCounts
from embedway.sending.retries import RetryBudget, retry_wait_s

MAX_SPLITS = 3
"""Halve a batch that is too large this often, before giving up on the declared limit."""

CallError = ProviderError | EmbedwayError


class _Part(msgspec.Struct, frozen=True):
    """The items of one call."""

    attempt: int
    """The index of the attempt that sends them."""
    batch: Batch
    first: int
    """The index of the first item in the request."""
    splits: int = 0
    """How often they were halved."""
    failures: tuple[CallError, ...] = ()
    """How earlier attempts failed to embed them."""


class _Delivery(msgspec.Struct):
    """The state of one request while it is sent."""

    attempts: Sequence[Attempt]
    deadline_s: float
    items: int = 0
    """How many items the request has."""
    vectors: dict[int, Vectors] = {}
    """The vectors of each finished part, by the index of its first item."""
    gates: dict[int, asyncio.Semaphore] = {}
    """The semaphores that limit the parallel calls of each attempt, by its index."""

    def gate(self, attempt: int) -> asyncio.Semaphore:
        """Return the semaphore that limits the parallel calls of an attempt."""
        gate = self.gates.get(attempt)
        if gate is None:
            gate = asyncio.Semaphore(self.attempts[attempt].max_parallel)
            self.gates[attempt] = gate
        return gate


class Sender:
    """Sends requests to the engines of one configuration."""

    def __init__(
        self,
        engines: EngineRegistry,
        *,
        healths: HealthRegistry,
        preparer: InputPreparer,
        events: CallEvents | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        """Send to `engines`; senders that share a `budget` retry no more than one would."""
        self.engines = engines
        self.now_s = healths.now_s
        """The clock of all deadlines."""
        self._healths = healths
        self._preparer = preparer
        self._events = events or CallEvents()
        self._budget = budget or RetryBudget()

    def attempt(
        self,
        request: EmbedRequest,
        deployment: Deployment,
        *,
        request_id: str,
        counts: TokenCounts,
        tenant: str = "",
        check: ResultCheck | None = None,
        was_healthy: bool = True,
    ) -> Attempt:
        """Return an attempt, which has sent nothing yet; `Attempt` explains the arguments."""
        return Attempt(
            request,
            deployment,
            request_id=request_id,
            counts=counts,
            tenant=tenant,
            check=check,
            was_healthy=was_healthy,
            engines=self.engines,
            healths=self._healths,
            preparer=self._preparer,
            events=self._events,
        )

    async def send(self, attempts: Sequence[Attempt], *, deadline_s: float) -> Vectors:
        """Embed all items of a request, and return their checked vectors in order.

        Each call goes to the first attempt. If it fails there for a reason that may not apply to
        another deployment, its items go on to the next.

        Args:
            attempts: One for each deployment, all of one vector space, the preferred first.
            deadline_s: When to give up, on the clock `now_s`.

        Raises:
            ProviderError: A call failed for good; its `item` is an index in the request.
            InvalidRequest: No deployment accepts the request.
            ServiceOverloaded: The last deployment is a local model, and it is busy.
        """
        delivery = _Delivery(attempts, deadline_s)
        parts = await _prepare(delivery, 0)
        while len(parts) == 1:
            parts = await self._deliver(delivery, parts[0])
        if parts:
            await self._deliver_all(delivery, parts)
        return _join(delivery.vectors)

    async def _deliver_all(self, delivery: _Delivery, parts: Sequence[_Part]) -> None:
        """Deliver several parts in parallel, with any that replace them. One failure ends all."""

        async def deliver(parts: Sequence[_Part]) -> None:
            for part in parts:
                # Parts that fail over at different times share the gate of the next attempt.
                async with delivery.gate(part.attempt):
                    left = await self._deliver(delivery, part)
                if left and left[0].splits:
                    # Halves go one after another, because each may be too large.
                    await deliver(left)
                    continue
                for each in left:
                    group.create_task(deliver([each]))

        sequences = [parts] if parts[0].splits else [[part] for part in parts]
        try:
            async with asyncio.TaskGroup() as group:
                for sequence in sequences:
                    group.create_task(deliver(sequence))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _deliver(self, delivery: _Delivery, part: _Part) -> Sequence[_Part]:
        """Deliver one part, with retries.

        Returns:
            The parts to deliver in its place: none, its halves, or those for the next attempt.
        """
        attempt, budget = delivery.attempts[part.attempt], self._budget
        others = len(delivery.attempts) - part.attempt - 1
        tries, retries = 0, 0
        try:
            while True:
                budget.calls += 1
                try:
                    outcome = await attempt.run(
                        part.batch, deadline_s=delivery.deadline_s, others=others
                    )
                finally:
                    budget.calls -= 1
                if isinstance(outcome, Success):
                    attempt.count_answer(part.batch, outcome.result, first_item=part.first)
                    delivery.vectors[part.first] = outcome.result.vectors
                    return ()
                error = outcome.error
                tries += 1
                wait_s = self._wait_s(error, tries, others, delivery)
                if wait_s is None:
                    break
                if not retries:
                    retries = 1
                    budget.retries += 1
                await asyncio.sleep(wait_s)
        except InvalidRequest as refusal:  # the answer shows that the model lacks the width
            error = refusal
        finally:
            budget.retries -= retries
        return await self._recover(delivery, part, error)

    def _wait_s(
        self, error: CallError, tries: int, others: int, delivery: _Delivery
    ) -> float | None:
        """Return how long to wait before retrying the same attempt, or None for no retry."""
        if not isinstance(error, ProviderError):
            return None
        if others and error.can_fail_over and not error.retry_immediately:
            return None  # fail over at once
        if tries == 1 and not self._budget.has_room:
            return None
        return retry_wait_s(error, tries=tries, left_s=delivery.deadline_s - self.now_s())

    async def _recover(self, delivery: _Delivery, part: _Part, error: CallError) -> Sequence[_Part]:
        """Return the parts to deliver in place of one that failed for good.

        Raises:
            ProviderError: No attempt is left.
            EmbedwayError: No attempt is left, and nothing was sent.
        """
        others = len(delivery.attempts) - part.attempt - 1
        if isinstance(error, ProviderError):
            size = len(part.batch.items)
            is_too_large = error.kind == "batch_too_large" and error.item is None
            if is_too_large and size > 1 and part.splits < MAX_SPLITS:
                # Limits are not always as documented. The halves do not count as retries, because
                # they replace a call that was refused.
                middle = size // 2
                halves = (part.batch.slice(0, middle), part.batch.slice(middle, size))
                return [
                    msgspec.structs.replace(
                        part, batch=half, first=part.first + at, splits=part.splits + 1
                    )
                    for half, at in zip(halves, (0, middle), strict=True)
                ]
            await self._blame(delivery, part, error, others)
            error.provider = delivery.attempts[part.attempt].deployment.provider
            error.tried = [(error.provider, error.kind)] if error.was_sent else []
        elif isinstance(error, InvalidRequest):
            raise _combine(part.failures) if part.failures else error
        failures = (*part.failures, error)
        if not others or (isinstance(error, ProviderError) and not error.can_fail_over):
            raise _combine(failures)
        try:
            return await _prepare(
                delivery, part.attempt + 1, first=part.first, size=len(part.batch.items),
                failures=failures,
            )  # fmt: skip
        except InvalidRequest:
            raise _combine(failures) from None  # no other deployment accepts the request

    async def _blame(
        self, delivery: _Delivery, part: _Part, error: ProviderError, others: int
    ) -> None:
        """Store in `error` which item of the request is at fault, if one is."""
        if error.item is not None:
            error.item += part.first
            return
        is_item_fault = error.kind == "item_failed"
        if error.kind not in ITEM_KINDS or error.param not in {None, "input"}:
            return
        if is_item_fault and others:
            return  # the next deployment may be able to embed it
        if delivery.items == 1:
            return
        if len(part.batch.items) == 1:
            error.item = part.first
            return
        index = await find_refused_item(
            delivery.attempts[part.attempt],
            part.batch,
            budget=self._budget,
            is_item_fault=is_item_fault,
            deadline_s=delivery.deadline_s,
            left_s=delivery.deadline_s - self.now_s(),
            others=others,
        )
        if index is not None:
            error.item = part.first + index
        elif is_item_fault:
            error.kind = "failed"  # no single item is at fault, so the server is


async def _prepare(
    delivery: _Delivery,
    at: int,
    *,
    first: int = 0,
    size: int | None = None,
    failures: tuple[CallError, ...] = (),
) -> list[_Part]:
    """Prepare and cut items for the first attempt, from index `at`, that accepts the request.

    Args:
        delivery: The request.
        at: The index of the first attempt to try.
        first: The index of the first item.
        size: How many items; None for all.
        failures: How the attempts before failed.

    Raises:
        InvalidRequest: No attempt accepts it; the reason is that of the first.
        ServiceOverloaded: Too much is waiting to be counted.
    """
    refusal: InvalidRequest | None = None
    for index in range(at, len(delivery.attempts)):
        attempt = delivery.attempts[index]
        try:
            batch = await attempt.prepare()
        except InvalidRequest as error:
            refusal = refusal or error  # another may accept it
            continue
        delivery.items = len(batch.items)
        if size is not None and size < len(batch.items):
            batch = batch.slice(first, first + size)
        parts: list[_Part] = []
        for each in attempt.cut(batch):
            parts.append(_Part(index, each, first, failures=failures))
            first += len(each.items)
        return parts
    raise refusal or InvalidRequest("There is no deployment to ask.")


def _combine(failures: Sequence[CallError]) -> CallError:
    """Return the error to raise when all attempts failed."""
    last = failures[-1]
    if not isinstance(last, ProviderError):
        return last
    combined: ProviderError | None = None
    for error in failures:
        if isinstance(error, ProviderError):
            combined = error.combine(combined) if combined else error
    return combined or last


def _join(vectors: dict[int, Vectors]) -> Vectors:
    if len(vectors) == 1:
        return next(iter(vectors.values()))
    parts = [vectors[first] for first in sorted(vectors)]
    if len({part.shape[1] for part in parts}) > 1:
        raise ProviderError("malformed", "vectors of different widths", billed="yes")
    return np.concatenate(parts)
