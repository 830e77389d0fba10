"""Sends one request's items as calls within a deployment's limits and joins what they answer.

Owns retries, the way on to the next deployment, and the search for the item that is refused. Knows
of deployments only that a route leads there: it embeds a batch or raises a `ProviderError`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from embedway.core import vectors
from embedway.core.batch import Batch, Limits, Result
from embedway.core.errors import InvalidRequest, Overloaded
from embedway.core.provider_error import OF_AN_ITEM, ProviderError
from embedway.sending import cut as plan
from embedway.sending.retries import RetryBudget, wait_s

ESTIMATE_SHARE = 0.7
"""Of a token limit that is filled where tokens are estimated: the estimate may be too low."""

MAX_SPLITS = 3
"""Of a batch that is too large, in halves; after that the declared limit is too wrong."""


Outcome = Result | ProviderError | Literal["not sent", "cancelled"]
"""How a call ends: it is answered; it fails; nothing is sent, because this gateway refuses it or is
busy; or whoever waits for it leaves."""


class Route(Protocol):
    """A deployment, and how this request is sent to it."""

    @property
    def limits(self) -> Limits:
        """Of a call."""
        ...

    @property
    def provider(self) -> str:
        """Who is asked."""
        ...

    async def prepared(self) -> Batch:
        """All items of the request, as it is asked for them; made once.

        Raises:
            InvalidRequest: It cannot be asked for that.
            Overloaded: Too much is waiting.
        """
        ...

    async def embed(self, batch: Batch) -> Result:
        """One call.

        Raises:
            ProviderError: It failed.
            InvalidRequest: It cannot be asked for that. Nothing was sent.
            Overloaded: Too much is waiting. Nothing was sent.
        """
        ...

    async def finished(self, batch: Batch, result: Result) -> Result:
        """The vectors of a call that answered well, as the request wants them.

        Raises:
            ProviderError: They are not of the space they should be of.
        """
        ...

    def began(self, *, others: bool) -> None:
        """Told of each call before it goes out.

        Args:
            others: Whether somebody else could be asked instead.

        Raises:
            ProviderError: Since the request was planned it asked to be left alone, or failed.
        """
        ...

    def ended(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        """Told of each call that `began`, once it ends."""
        ...


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one call gave to an answer."""

    at: int
    """The route that it went by, as an index."""
    items: int
    tokens: int
    exact: bool
    """Whether the tokens are as counted, by us or by the provider, not estimated."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of one request answered together."""

    vectors: vectors.Vectors
    parts: list[Part]
    """In the order of the items; at least one."""


class Sender:
    """Sends requests; one for the process, for it holds the retry budget."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Takes a clock."""
        self._budget = RetryBudget()
        self._now_s = now_s

    async def send(self, routes: Sequence[Route], *, items: int, deadline_s: float) -> Embedded:
        """The vectors of all items of a request, in order, checked.

        Each call goes to the first of `routes`. If it fails there for a reason that another
        deployment need not have, its items go on to the next.

        Args:
            routes: To deployments of one vector space, the preferred first; at least one.
            items: How many were asked for.
            deadline_s: For all of it, on this sender's clock.

        Raises:
            ProviderError: A call failed for good; its `item` is an index in the request.
            InvalidRequest: None of the routes can be asked for that.
        """
        trip = _Trip(
            routes, items=items, budget=self._budget, deadline_s=deadline_s, now_s=self._now_s
        )
        return _joined(await trip.items(0, items, at=0))


def checked(result: Result, batch: Batch) -> Result:
    """The answer to `batch`, its vectors at length one if they must have it.

    Raises:
        ProviderError: It holds other vectors than were asked for.
    """
    good = vectors.check(
        result.vectors,
        items=len(batch.items),
        dimensions=batch.width,
        normalised=batch.normalised,
    )
    return result if good is result.vectors else msgspec.structs.replace(result, vectors=good)


def cuts(
    batch: Batch, limits: Limits, *, start: int = 0, end: int | None = None
) -> list[tuple[int, int]]:
    """The calls that items `start` up to but without `end` of `batch` take, as such ranges."""
    most = limits.max_tokens
    if most is not None and not batch.exact:
        most = int(most * ESTIMATE_SHARE)
    parts = plan.cut(batch.tokens[start:end], max_items=limits.max_items, max_tokens=most)
    return [(start + first, start + last) for first, last in parts]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A call and its answer."""

    at: int
    batch: Batch
    result: Result


async def _together(calls: Iterable[Coroutine[Any, Any, list[Answered]]]) -> list[Answered]:
    """What the calls answer, in order; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [answered for task in tasks for answered in task.result()]


class _Trip:
    """One request on its way: by the first route, and from there on by the next."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        items: int,
        budget: RetryBudget,
        deadline_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._items = items
        self._budget = budget
        self._deadline_s = deadline_s
        self._now_s = now_s
        self._gates: dict[int, asyncio.Semaphore] = {}
        """How many calls each route may have at a time, by its index."""

    async def items(self, start: int, end: int, *, at: int) -> list[Answered]:
        """What items `start` up to but without `end` are answered with by route `at` or later."""
        at, batch = await self._prepared(at)
        leg, limits = self._leg(at), self._routes[at].limits
        parts = cuts(batch, limits, start=start, end=end)
        if parts == [(0, len(batch.items))]:
            return await self._sent(leg, batch, 0, at=at)
        # Parts that fail over one by one meet at the next route: they share its gate.
        gate = self._gates.setdefault(at, asyncio.Semaphore(limits.max_parallel))
        return await _together(
            self._sent(leg, batch.part(first, last), first, at=at, gate=gate)
            for first, last in parts
        )

    async def _prepared(self, at: int) -> tuple[int, Batch]:
        """The first route from `at` on that can be asked, and for what."""
        refusals: list[InvalidRequest] = []
        for index in range(at, len(self._routes)):
            try:
                return index, await self._routes[index].prepared()
            except InvalidRequest as refusal:
                # What is too long for one, another may take.
                refusals.append(refusal)
        raise refusals[0]

    def _leg(self, at: int) -> "_Leg":
        return _Leg(
            self._routes[at],
            at=at,
            alone=self._items == 1,
            after=len(self._routes) - at - 1,
            budget=self._budget,
            deadline_s=self._deadline_s,
            now_s=self._now_s,
        )

    async def _sent(
        self,
        leg: "_Leg",
        batch: Batch,
        offset: int,
        *,
        at: int,
        gate: asyncio.Semaphore | None = None,
    ) -> list[Answered]:
        """What `batch` is answered with on `leg`, or by a later route if that one fails.

        Without a `gate` it is all of the request, and so its only call.
        """
        failed: ProviderError | Overloaded
        try:
            if gate is None:
                return await leg.part(batch, offset)
            async with gate:
                return await leg.part(batch, offset)
        except ProviderError as error:
            error.provider = self._routes[at].provider
            error.tried = [(error.provider, error.kind)] if error.was_sent else []
            if not error.elsewhere or at + 1 == len(self._routes):
                raise
            failed = error
        except Overloaded as error:
            if at + 1 == len(self._routes):
                raise
            failed = error
        try:
            return await self.items(offset, offset + len(batch.items), at=at + 1)
        except InvalidRequest:
            raise failed from None  # what it can be asked, nobody else can
        except ProviderError as error:
            raise error.after(failed) if isinstance(failed, ProviderError) else error from None


class _Leg:
    """The calls of one request that go by one route."""

    def __init__(
        self,
        route: Route,
        *,
        at: int,
        alone: bool,
        after: int,
        budget: RetryBudget,
        deadline_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self._route = route
        self._at = at
        self._alone = alone  # the request has one item
        self._after = after  # routes that are left if this one fails
        self._budget = budget
        self._deadline_s = deadline_s
        self._now_s = now_s

    async def part(self, batch: Batch, offset: int, splits: int = 0) -> list[Answered]:
        """What `batch`, which begins at item `offset` of the request, is answered with."""
        try:
            result = await self._tried(batch)
        except ProviderError as error:
            if error.item is not None:
                error.item += offset
            elif len(batch.items) > 1 and error.kind == "batch_too_large":
                return await self._split(batch, offset, error, splits + 1)
            elif error.kind == "item_failed" and self._after:
                pass  # whoever is asked next may well compute it
            elif error.kind in OF_AN_ITEM and error.param in {None, "input"}:
                error.item = await self._at_fault(
                    batch, offset, of_several=error.kind == "item_failed"
                )
                if error.kind == "item_failed" and error.item is None and not self._alone:
                    error.kind = "failed"  # of no one item: it is the server that is broken
            raise
        return [Answered(at=self._at, batch=batch, result=result)]

    async def _tried(self, batch: Batch) -> Result:
        """One call, and again where that makes sense."""
        tried = 0
        with ExitStack() as retrying:
            while True:
                try:
                    return await self._once(batch)
                except ProviderError as error:
                    tried += 1
                    if self._after and error.elsewhere and not error.again_now:
                        raise  # somebody else is asked at once
                    wait = wait_s(error, tried=tried, left_s=self._left_s())
                    if wait is None or (tried == 1 and not self._budget.left):
                        raise
                if tried == 1:
                    retrying.enter_context(self._budget.retry())
                await asyncio.sleep(wait)

    async def _split(
        self, batch: Batch, offset: int, error: ProviderError, splits: int
    ) -> list[Answered]:
        """Both halves of a batch that was too large, for limits are not always as documented.

        No retries, and not counted as such: they are instead of a call that was refused.
        """
        if splits > MAX_SPLITS:
            raise error
        middle = len(batch.items) // 2
        first = await self.part(batch.part(0, middle), offset, splits)
        rest = await self.part(batch.part(middle, len(batch.items)), offset + middle, splits)
        return first + rest

    async def _at_fault(self, batch: Batch, offset: int, *, of_several: bool) -> int | None:
        """The item of a refused batch that is the reason; None if that cannot be found out.

        Each half is sent once; if one is refused and the other is not, the search goes on in it.
        If both are, or if only one was sent at all, the reason may as well be in the request; where
        it cannot be, each of them holds such an item (`of_several`), and the search goes on in the
        first. An item is named if it was the only one, or if another part of the batch passes.
        """
        if self._alone:
            return None
        if len(batch.items) == 1:
            return offset
        try:
            # What is left of the time belongs to the answer.
            async with asyncio.timeout(self._left_s() / 2):
                start, end = 0, len(batch.items)
                passed = False
                while end - start > 1:
                    if not self._budget.left:
                        return None
                    middle = (start + end) // 2
                    with self._budget.retry():
                        if await self._refused(batch.part(start, middle)):
                            if not passed:
                                passed = not await self._refused(batch.part(middle, end))
                                if not passed and not of_several:
                                    return None
                            end = middle
                        else:
                            start = middle
                            passed = True
                return offset + start if passed else None
        except (ProviderError, TimeoutError):
            return None

    async def _refused(self, batch: Batch) -> bool:
        try:
            await self._once(batch)
        except ProviderError as error:
            if error.kind not in OF_AN_ITEM:
                raise
            return True
        return False

    async def _once(self, batch: Batch) -> Result:
        began_s = self._now_s()
        # Whatever else is raised is raised before anything goes out.
        outcome: Outcome = "not sent"
        self._route.began(others=self._after > 0)
        try:
            with self._budget.call():
                outcome = result = await self._answer(batch)
        except ProviderError as error:
            outcome = error
            raise
        except asyncio.CancelledError:
            late = self._left_s() <= 0
            outcome = ProviderError("timeout", billed="maybe") if late else "cancelled"
            raise
        finally:
            self._route.ended(batch, outcome, self._now_s() - began_s)
        return await self._route.finished(batch, result)

    async def _answer(self, batch: Batch) -> Result:
        if not self._after:
            result = await self._route.embed(batch)
        else:
            # Who does not answer must leave time for those who would.
            share_s = max(self._left_s(), 0) / (self._after + 1)
            try:
                async with asyncio.timeout(share_s):
                    result = await self._route.embed(batch)
            except TimeoutError:
                raise ProviderError("timeout", billed="maybe") from None
        return checked(result, batch)

    def _left_s(self) -> float:
        return self._deadline_s - self._now_s()


def _joined(answers: list[Answered]) -> Embedded:
    parts = [answered.result.vectors for answered in answers]
    if len({part.shape[1] for part in parts}) > 1:
        raise ProviderError("malformed", "vectors of different widths", billed="yes")
    return Embedded(
        vectors=parts[0] if len(parts) == 1 else np.concatenate(parts),
        parts=[_counted(answered) for answered in answers],
    )


def _counted(answered: Answered) -> Part:
    batch = answered.batch
    reported = answered.result.tokens_up_to(batch.max_billed_tokens)
    return Part(
        at=answered.at,
        items=len(batch.items),
        tokens=sum(batch.tokens) if reported is None else reported,
        exact=batch.exact or reported is not None,
    )
