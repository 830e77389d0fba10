"""Embeds one request: plans, reserves, sends, records and settles."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

from embedway.catalog.model import LOCAL
from embedway.concurrency.time_limit import TimeLimit
from embedway.core import ids
from embedway.core.errors import (
    BudgetExceeded,
    EmbedwayError,
    RateLimitExceeded,
    ServiceOverloaded,
    StorageUnavailable,
    UpstreamTimeout,
    UsageInDoubt,
)
from embedway.core.keys import Caller
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest
from embedway.core.usage import ANSWERED, CLIENT_LEFT, REPEATED, UsageRecord
from embedway.ledger.ledger import UNRECORDED, Ledger, RecordOutcome
from embedway.metering.account import UNMETERED, Account
from embedway.metering.billing import BatchLine, UsageContext
from embedway.metering.meter import Meter, Reservation
from embedway.pipeline.dry_run import DryRun, describe
from embedway.pipeline.result import EmbedResult, build_result
from embedway.routing.no_candidates import no_candidates_error
from embedway.routing.plan import Plan
from embedway.routing.router import Router
from embedway.sending.attempt import Attempt
from embedway.sending.prepare import TokenCounts
from embedway.sending.sender import Sender
from embedway.spaces.check import SpaceCheck
from embedway.spaces.prober import Prober, failure_for_request

MAX_DEPLOYMENTS = 4
"""The most deployments one request may try."""
WITHDRAW_S = 5.0
"""Wait this long at shutdown for commits in doubt to become certain."""


class Embedder:
    """Embeds requests; one for the process."""

    def __init__(
        self,
        *,
        router: Router,
        prober: Prober,
        sender: Sender,
        meter: Meter,
        ledger: Ledger,
        deadline_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._prober = prober
        self._sender = sender
        self._meter = meter
        self._ledger = ledger
        self._deadline = TimeLimit(deadline_s)
        self._now_ms = now_ms
        self._records: set[asyncio.Future[RecordOutcome]] = set()
        """The records being written, for which `aclose` waits."""
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def admit(self, caller: Caller, *, body_bytes: int | None) -> Account:
        """Find the account of a caller; `Meter.admit` says what it refuses."""
        return await self._meter.admit(caller, body_bytes=body_bytes)

    async def embed(
        self,
        request: EmbedRequest,
        caller: Caller,
        *,
        admitted: Account = UNMETERED,
        request_id: str,
        started_s: float,
        line: BatchLine | None = None,
    ) -> EmbedResult:
        """Embed all items of a request, and return once its usage is committed.

        Args:
            request: The client's request.
            caller: Its sender.
            admitted: The account that `admit` returned.
            request_id: The request's id, for logs and the usage records.
            started_s: When the request began, on the clock of `time.perf_counter`.
            line: The line of a batch that the request is; None if it is none.

        Raises:
            EmbedwayError: The request is refused. A usage record says so too, unless a limit or
                budget refused it, or nothing was sent and the status is 503.
        """
        context = UsageContext(
            request=request,
            caller=caller,
            id=ids.new_id("embd"),
            request_id=request_id,
            received_ms=self._now_ms(),
            started_s=started_s,
        ).of_line(line)
        account = await self._account(context, admitted)
        attempts: Sequence[Attempt] = ()
        reservation: Reservation | None = None
        is_recorded = True
        sent_s = time.perf_counter()
        deadline_s = self._sender.now_s() + self._deadline.seconds
        try:
            with self._deadline.limit():
                plan = await self._plan(request, caller, priced=bool(account.budgets))
                attempts = self._attempts(plan, caller, request_id, at_most=MAX_DEPLOYMENTS)
                if account is not UNMETERED:
                    try:
                        reservation = await self._meter.reserve(
                            account, attempts, received_ms=context.received_ms
                        )
                    except (RateLimitExceeded, BudgetExceeded):
                        is_recorded = False
                        raise
                vectors = await self._sender.send(attempts, deadline_s=deadline_s)
            result = build_result(
                vectors,
                attempts,
                context,
                space=plan.space,
                limit_statuses=reservation.limit_statuses if reservation else (),
                engine_s=time.perf_counter() - sent_s,
            )
        except asyncio.CancelledError:
            # The client left, but a provider may have done the work.
            self._abandon(context, attempts, reservation)
            raise
        except (EmbedwayError, ProviderError, TimeoutError) as error:
            refusal = self._client_error(error, request, attempts)
            was_called = any(each.calls for each in attempts)
            if reservation:
                reservation.release()
            if was_called or (is_recorded and not isinstance(refusal, ServiceOverloaded)):
                await self._record_uncharged(context, attempts, status=refusal.status)
            if refusal is error:
                raise
            raise refusal from None  # each failed call has its own line in the log
        except BaseException:
            if reservation:
                reservation.release()
            raise
        await self._conclude(context, attempts, account, reservation, result)
        return result

    async def dry_run(
        self, request: EmbedRequest, caller: Caller, *, admitted: Account = UNMETERED
    ) -> DryRun:
        """Describe what would happen to a request. Nothing is sent or recorded.

        It counts against request limits, but not against token limits. Budgets are not checked.

        Raises:
            EmbedwayError: The request would be refused.
        """
        await self._prober.refresh()
        account = await self._meter.account(request, caller, admitted)
        await self._meter.count(account)
        plan = self._router.plan(
            request, caller, accept_old_proofs=True, needs_price=bool(account.budgets)
        )
        if not plan.candidates and not plan.unproven:
            raise no_candidates_error(request, plan.excluded, plan.unproven)
        try:
            with self._deadline.limit():
                return await describe(plan, self._attempts(plan, caller, ""))
        except TimeoutError:
            raise self._late(()) from None

    async def aclose(self) -> None:
        """Wait for records being written, but only `WITHDRAW_S` for commits in doubt."""
        if self._records:
            await asyncio.wait(self._records)
        if self._withdrawals:
            _, unfinished = await asyncio.wait(self._withdrawals, timeout=WITHDRAW_S)
            for task in unfinished:
                task.cancel()

    async def _account(self, context: UsageContext, admitted: Account) -> Account:
        """Find the account of a request; `Meter.account` says what it refuses."""
        if context.is_charged_already:
            return UNMETERED
        return await self._meter.account(context.request, context.caller, admitted)

    async def _plan(self, request: EmbedRequest, caller: Caller, *, priced: bool) -> Plan:
        """Plan a request with at least one candidate, probing an unproven one if necessary.

        Raises:
            EmbedwayError: There is no candidate.
            ProviderError: The last deployment left could not be probed.
        """
        await self._prober.refresh()
        plan = self._router.plan(request, caller, needs_price=priced)
        unprovable: set[str] = set()
        failed: ProviderError | None = None
        while not plan.candidates:
            left = [
                each.deployment for each in plan.unproven if each.deployment.id not in unprovable
            ]
            if not left:
                self._probe_due(plan)  # an operator may have released a drifted deployment
                raise failed or no_candidates_error(request, plan.excluded, plan.unproven)
            unprovable.add(left[0].id)
            try:
                await self._prober.prove(left[0], plan.request.input_type)
            except ProviderError as error:
                failed = failure_for_request(error, billed="not sent")
                failed.provider = left[0].provider
            plan = self._router.plan(
                request, caller, unprovable=frozenset(unprovable), needs_price=priced
            )
        self._probe_due(plan)
        return plan

    def _probe_due(self, plan: Plan) -> None:
        """Start the probes that are due, in the background."""
        for each in plan.probes_due:
            self._prober.schedule(each, self._router.effective_input_type(each, plan.request))

    def _attempts(
        self, plan: Plan, caller: Caller, request_id: str, *, at_most: int | None = None
    ) -> Sequence[Attempt]:
        counts: TokenCounts = {}
        attempts: list[Attempt] = []
        for each in plan.candidates[:at_most]:
            deployment, check = each.deployment, None
            if self._prober.is_probed(deployment):
                check = SpaceCheck(
                    self._prober,
                    deployment,
                    plan.request.input_type,
                    revision=plan.revisions[deployment.model.id],
                )
            attempts.append(
                self._sender.attempt(
                    plan.request,
                    deployment,
                    request_id=request_id,
                    counts=counts,
                    tenant=caller.project.id if caller.project else caller.key_id,
                    check=check,
                    was_healthy=each.health == "healthy",
                )
            )
        return attempts

    async def _conclude(
        self,
        context: UsageContext,
        attempts: Sequence[Attempt],
        account: Account,
        reservation: Reservation | None,
        result: EmbedResult,
    ) -> None:
        """Record an answer; `_record` says what it raises."""
        if context.is_charged_already:
            await self._record_uncharged(context, attempts, status=REPEATED)
        else:
            await self._record(context, attempts, account, reservation, result)

    async def _record(
        self,
        context: UsageContext,
        attempts: Sequence[Attempt],
        account: Account,
        reservation: Reservation | None,
        result: EmbedResult,
    ) -> None:
        """Commit the records of an answer and settle its reservation.

        Cancelling this call changes nothing: the commit and the settling go on.

        Raises:
            StorageUnavailable: The records are not committed.
            UsageInDoubt: They may be committed.
        """
        holders = account.subjects
        records = context.records(attempts, status=ANSWERED)
        try:
            recorded = self._ledger.append(records, holders=holders)
        except BaseException:
            if reservation:
                reservation.release()
            raise

        # Awaited in place of `recorded`, which a cancelled await would cancel too.
        settled: asyncio.Future[RecordOutcome] = asyncio.get_running_loop().create_future()

        def settle(recorded: asyncio.Future[RecordOutcome]) -> None:
            self._records.discard(recorded)
            outcome = _outcome(recorded)
            if settled.done():
                pass  # the caller was cancelled
            elif not recorded.cancelled() and (broken := recorded.exception()):
                settled.set_exception(broken)
            else:
                settled.set_result(outcome)
            if outcome == "in_doubt":
                # A refused answer is not charged, but until the ledger is sure of that, its
                # reservation counts as spent.
                refused = context.records(attempts, status=UsageInDoubt.status)
                self._withdraw(records, refused, account, reservation)
            elif reservation and outcome == "committed":
                reservation.settle(tokens=result.tokens, cost_nano_usd=result.cost_nano_usd)
            elif reservation:
                reservation.release()

        self._records.add(recorded)
        recorded.add_done_callback(settle)
        outcome = await settled
        if outcome != "committed":
            raise _unrecorded_error(outcome)

    def _withdraw(
        self,
        records: Sequence[UsageRecord],
        refused: Sequence[UsageRecord],
        account: Account,
        reservation: Reservation | None,
    ) -> None:
        """Replace records whose commit is in doubt, in the background."""

        async def withdraw() -> None:
            await self._ledger.replace(records, by=refused, holders=account.subjects)
            if reservation:
                reservation.release()

        task = asyncio.ensure_future(withdraw())
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def _record_uncharged(
        self, context: UsageContext, attempts: Sequence[Attempt], *, status: int
    ) -> None:
        """Commit the records of a request that is not charged, if the database allows it."""
        with suppress(EmbedwayError):
            await asyncio.shield(
                self._keep(self._ledger.append(context.records(attempts, status=status)))
            )

    def _abandon(
        self,
        context: UsageContext,
        attempts: Sequence[Attempt],
        reservation: Reservation | None,
    ) -> None:
        """Settle and record a request whose client left. Its tokens count, but it costs nothing."""
        if reservation:
            tokens = sum(each.upstream_tokens for each in attempts)
            reservation.settle(tokens=tokens, cost_nano_usd=0)
        if any(each.calls for each in attempts):
            with suppress(EmbedwayError):
                self._keep(self._ledger.append(context.records(attempts, status=CLIENT_LEFT)))

    def _keep(self, recorded: asyncio.Future[RecordOutcome]) -> asyncio.Future[RecordOutcome]:
        """Let `aclose` wait for records that are being written."""
        self._records.add(recorded)
        recorded.add_done_callback(partial(_forget, self._records))
        return recorded

    def _client_error(
        self,
        error: EmbedwayError | ProviderError | TimeoutError,
        request: EmbedRequest,
        attempts: Sequence[Attempt],
    ) -> EmbedwayError:
        if isinstance(error, EmbedwayError):
            return error
        if isinstance(error, ProviderError):
            model = attempts[0].deployment.model.id if attempts else request.model
            return error.client_error(model=model)
        return self._late(attempts)

    def _late(self, attempts: Sequence[Attempt]) -> EmbedwayError:
        seconds = self._deadline.seconds
        message = f"The answer was not ready within {seconds:g} s. Try again, with fewer items."
        if not attempts or attempts[-1].deployment.provider == LOCAL:
            return ServiceOverloaded(message)
        providers = ", ".join(each.deployment.provider for each in attempts)
        return UpstreamTimeout(f"{providers}: {message}")


def _unrecorded_error(outcome: Literal["refused", "in_doubt"]) -> StorageUnavailable:
    if outcome == "refused":
        return StorageUnavailable(UNRECORDED)
    return UsageInDoubt(
        "The database stopped answering while the usage of this request was recorded, so it may "
        "have been charged. Look at your usage before you send it again."
    )


def _outcome(recorded: asyncio.Future[RecordOutcome]) -> RecordOutcome:
    """Return the outcome of records; a writer that failed has refused them."""
    if recorded.cancelled() or recorded.exception():
        return "refused"
    return recorded.result()


def _forget(
    kept: set[asyncio.Future[RecordOutcome]], recorded: asyncio.Future[RecordOutcome]
) -> None:
    kept.discard(recorded)
    _outcome(recorded)
