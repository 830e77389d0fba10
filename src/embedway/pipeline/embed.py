"""The one request path: from a decoded request to a recorded answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Served
from embedway.core import ids
from embedway.core.errors import (
    BudgetSpent,
    CommitInDoubt,
    EmbedwayError,
    Overloaded,
    RateLimited,
    UpstreamTimeout,
)
from embedway.core.keys import Caller
from embedway.core.limits import Standing
from embedway.core.money import NanoUsd
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest
from embedway.core.usage import ANSWERED, CLIENT_LEFT, UsageLine
from embedway.metering.account import FREE, Account
from embedway.metering.billing import Bill, Tally
from embedway.metering.meter import Meter, Reserved
from embedway.pipeline.calls import Calls
from embedway.pipeline.dry_run import DryRun, dry_run
from embedway.pipeline.prober import Prober
from embedway.pipeline.result import Answer, answer
from embedway.ports.engine import Engine
from embedway.ports.storage import Ledger
from embedway.routing.nobody import nobody
from embedway.routing.router import Plan, Router
from embedway.sending.attempt import Route, count_tokens, max_cost
from embedway.sending.engine import engine_of
from embedway.sending.prepare import Counted, Preparation
from embedway.sending.sender import Embedded, Sender

MAX_DEPLOYMENTS = 4
"""The most deployments one request may try."""
WITHDRAW_S = 5.0
"""Wait this long at shutdown for commits in doubt to become certain."""


class _Run(msgspec.Struct, kw_only=True):
    """One request under way."""

    account: Account
    at_ms: int
    """As of `Bill`."""
    routes: list[Route] = []
    """That it may take, once these are known."""
    reserved: Reserved | None = None
    shed: bool = False
    """Whether it is refused without a line, for that is to cost nothing."""

    @property
    def tallies(self) -> list[Tally]:
        """What was asked on each of the routes."""
        return [each.tally for each in self.routes]

    @property
    def standings(self) -> Sequence[Standing]:
        """Of each limit that it is subject to."""
        return self.reserved.standings if self.reserved else ()


class Embedder:
    """Runs requests: one instance, shared by all of them."""

    def __init__(
        self,
        *,
        router: Router,
        calls: Calls,
        prober: Prober,
        engines: Mapping[str, Engine],
        preparation: Preparation,
        sender: Sender,
        meter: Meter,
        ledger: Ledger,
        deadline_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Args name what it needs; `engines` are by the names of `engine_of`."""
        self._router = router
        self._calls = calls
        self._prober = prober
        self._engines = engines
        self._preparation = preparation
        self._sender = sender
        self._meter = meter
        self._ledger = ledger
        self._deadline_s = deadline_s
        self._now_ms = now_ms
        self._background: set[asyncio.Task[None]] = set()
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller, *, body_bytes: int | None) -> None:
        """Refuse a request whose body is not read yet, if a limit of its caller has no room.

        Args:
            caller: Who sends it.
            body_bytes: The length of its body, if that is known.

        Raises:
            Forbidden: The end user is blocked.
            RateLimited: A limit has no room for any request.
            StorageUnavailable: The limits cannot be looked up.
        """
        await self._meter.check_limits(caller, body_bytes=body_bytes)

    async def run(
        self, request: EmbedRequest, caller: Caller, *, request_id: str, started_s: float
    ) -> Answer:
        """Answers `request`; returns only once its usage is committed.

        Args:
            request: What is asked for.
            caller: Who asks.
            request_id: For the usage record.
            started_s: When the request began, on `time.perf_counter`'s clock.

        Raises:
            EmbedwayError: It cannot be answered. That too is recorded, unless it was shed with 503
                or refused by a limit or a budget: that costs nothing, not even a line.
        """
        bill = Bill(
            request=request,
            caller=caller,
            id=ids.new("embd"),
            request_id=request_id,
            at_ms=self._now_ms(),
            started_s=started_s,
        )
        run = _Run(account=await self._meter.account(request, caller), at_ms=bill.at_ms)
        try:
            began_s = time.perf_counter()
            embedded = await self._embedded(request, caller, run, request_id=request_id)
            engine_s = time.perf_counter() - began_s
        except asyncio.CancelledError:
            # Nobody waits for the answer, but a provider may have done the work.
            self._soon(self._given_up(run, bill, status=CLIENT_LEFT))
            raise
        except EmbedwayError as error:
            run.shed = run.shed or isinstance(error, Overloaded)
            await self._finished(self._given_up(run, bill, status=error.status))
            raise
        except BaseException:
            await self._settle(run)
            raise
        answered = answer(
            embedded, run.tallies, space=run.routes[0].space, bill=bill,
            engine_s=engine_s, standings=run.standings,
        )  # fmt: skip
        await self._finished(self._recorded(run, bill, answered))
        return answered

    async def _recorded(self, run: "_Run", bill: Bill, answered: Answer) -> None:
        """Commits the lines of an answer and settles what was reserved for it."""
        lines = bill.lines(run.tallies, status=ANSWERED)
        try:
            await self._ledger.record(lines, held=run.account.subjects)
        except CommitInDoubt as error:
            refused = bill.lines(run.tallies, status=error.status)
            self._keep(self._withdraw(run, lines, by=refused), self._withdrawals)
            raise
        except BaseException:
            await self._settle(run)
            raise
        await self._settle(run, tokens=answered.tokens, cost_nano_usd=answered.cost_nano_usd)

    async def _withdraw(
        self, run: "_Run", lines: Sequence[UsageLine], *, by: Sequence[UsageLine]
    ) -> None:
        """Charge nobody for an answer that was refused with its commit in doubt.

        What was reserved for it counts as spent until the ledger is sure.
        """
        await self._ledger.replace(lines, by=by, held=run.account.subjects)
        await self._settle(run)

    async def _given_up(self, run: "_Run", bill: Bill, *, status: int) -> None:
        """Settles and records a request that is not answered, if that is to be recorded."""
        # Who leaves has used what providers did meanwhile, though nobody is charged for it.
        left = status == CLIENT_LEFT
        tokens = sum(each.upstream_tokens for each in run.tallies) if left else 0
        await self._settle(run, tokens=tokens)
        if (run.shed or left) and not any(each.calls for each in run.tallies):
            return
        # The refusal stands, recorded or not: it is not billed.
        with suppress(EmbedwayError):
            await self._ledger.record(bill.lines(run.tallies, status=status))

    async def _settle(self, run: "_Run", *, tokens: int = 0, cost_nano_usd: NanoUsd = 0) -> None:
        if run.reserved:
            await self._meter.settle(run.reserved, tokens=tokens, cost_nano_usd=cost_nano_usd)

    async def _finished(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it to its end, whether or not somebody still waits for it."""
        await asyncio.shield(self._soon(work))

    def _soon(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Does it in the background, to its end."""
        return self._keep(work, self._background)

    def _keep(
        self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]
    ) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(partial(_forget, tasks))
        return task

    async def aclose(self) -> None:
        """Waits for what goes on in the background, but not for a database that stays away."""
        if self._background:
            await asyncio.wait(self._background)
        if self._withdrawals:
            _, unfinished = await asyncio.wait(self._withdrawals, timeout=WITHDRAW_S)
            for task in unfinished:
                task.cancel()

    async def _embedded(
        self, request: EmbedRequest, caller: Caller, run: "_Run", *, request_id: str
    ) -> Embedded:
        """The vectors of all items; what is tried and reserved for them is noted in `run`."""
        deadline_s = self._calls.now_s() + self._deadline_s
        routes = run.routes
        try:
            async with asyncio.timeout(self._deadline_s):
                plan = await self._planned(request, caller, priced=bool(run.account.budgets))
                routes += self._routes(request, plan, request_id=request_id)[:MAX_DEPLOYMENTS]
                if run.account is not FREE:
                    await self._reserve(run)
                return await self._sender.send(
                    routes, items=len(request.items), deadline_s=deadline_s
                )
        except TimeoutError:
            raise self._late(routes) from None
        except ProviderError as error:
            # Each call that failed has its own line in the log.
            model = routes[0].served.model.id if routes else request.model
            raise error.answer(model=model) from None

    async def _reserve(self, run: "_Run") -> None:
        """Reserve the tokens of the request, and the most that it can be charged.

        Raises:
            EmbedwayError: There is no room, or nobody can be asked for it.
        """
        try:
            if any(each.served.deployment.price_per_mtok_usd for each in run.routes):
                self._meter.check(run.account)
            run.reserved = await self._meter.reserve(
                run.account,
                tokens=await count_tokens(run.routes),
                cost_nano_usd=await max_cost(run.routes) if run.account.budgets else 0,
                at_ms=run.at_ms,
            )
        except (RateLimited, BudgetSpent):
            run.shed = True
            raise

    async def dry_run(self, request: EmbedRequest, caller: Caller) -> DryRun:
        """What would become of `request`; nobody is asked and nothing is recorded.

        It counts as a request, and uses no tokens and no money. What is left of budgets is not
        looked at.

        Raises:
            EmbedwayError: It would be refused.
        """
        await self._prober.refresh()
        account = await self._meter.account(request, caller)
        await self._meter.count(account)
        plan = self._router.plan(request, caller, any_age=True, priced=bool(account.budgets))
        if not plan.ranked and not plan.unproven:
            raise nobody(request, plan.removed, plan.unproven)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await dry_run(request, plan, self._routes(request, plan, request_id=""))
        except TimeoutError:
            raise self._late(()) from None

    async def _planned(self, request: EmbedRequest, caller: Caller, *, priced: bool) -> Plan:
        """Who is asked for `request`, at least one.

        Raises:
            EmbedwayError: Nobody can be.
            ProviderError: The last one left cannot be asked whether it is of the space.
        """
        await self._prober.refresh()
        plan = self._router.plan(request, caller, priced=priced)
        given_up: set[str] = set()
        failed: ProviderError | None = None
        while not plan.ranked:
            left = [each.served for each in plan.unproven if each.served.id not in given_up]
            if not left:
                self._look_after(plan, request)  # what drifted may have been released
                raise failed or nobody(request, plan.removed, plan.unproven)
            given_up.add(left[0].id)
            try:
                await self._prober.prove(left[0], self._router.told(left[0], request))
            except ProviderError as error:
                failed = _of_canaries(error, left[0])
            plan = self._router.plan(request, caller, given_up=frozenset(given_up), priced=priced)
        self._look_after(plan, request)
        return plan

    def _look_after(self, plan: Plan, request: EmbedRequest) -> None:
        """Begins in the background what the deployments of `plan` are due."""
        for each in plan.due:
            self._prober.soon(each, self._router.told(each, request))

    def _routes(self, request: EmbedRequest, plan: Plan, *, request_id: str) -> list[Route]:
        counted: Counted = {}
        return [
            Route(
                request,
                each,
                engine=self._engines[engine_of(each.served)],
                told=self._router.told(each.served, request),
                space=plan.space,
                revision=plan.revisions[each.served.model.id],
                preparation=self._preparation,
                counted=counted,
                prober=self._prober,
                calls=self._calls,
                request_id=request_id,
            )
            for each in plan.ranked
        ]

    def _late(self, routes: Sequence[Route]) -> EmbedwayError:
        message = (
            f"The answer was not ready within {self._deadline_s:g} s. Try again, with fewer items."
        )
        if not routes or routes[-1].provider == LOCAL:
            return Overloaded(message)
        return UpstreamTimeout(f"{', '.join(each.provider for each in routes)}: {message}")


def _forget(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if not task.cancelled():
        task.exception()  # whoever still waited has it


def _of_canaries(error: ProviderError, served: Served) -> ProviderError:
    """What a request is told that waited for a probe: of canaries, which it knows nothing of."""
    if not error.elsewhere or error.kind == "item_failed":
        error = ProviderError("malformed", "it refuses the canaries")
    error.provider = served.provider
    return error
