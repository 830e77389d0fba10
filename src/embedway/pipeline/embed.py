"""The one request path: from a decoded request to a recorded answer."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial

import msgspec

from embedway.batching.send import Embedded, Sender
from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Served
from embedway.core import ids, money
from embedway.core.errors import EmbedwayError, Overloaded, UpstreamTimeout
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest
from embedway.core.spaces import SpaceId
from embedway.core.vectors import Vectors
from embedway.metering import settle
from embedway.pipeline.calls import Calls
from embedway.pipeline.dry_run import DryRun, dry_run
from embedway.pipeline.engines import engine_of
from embedway.pipeline.prepare import Counted, Preparation
from embedway.pipeline.prober import Prober
from embedway.pipeline.route import Route
from embedway.ports.engine import Engine
from embedway.ports.storage import Ledger
from embedway.routing.nobody import nobody
from embedway.routing.router import Plan, Router

MAX_DEPLOYMENTS = 4
"""That one request is tried at."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is answered with."""

    id: str
    created_s: int
    served: Sequence[Served]
    """Who answered: for each part of the input, in order; none twice."""
    space: SpaceId
    vectors: Vectors
    tokens: int
    estimated: bool
    """Whether the tokens are an estimate: they could not be counted, and nobody told."""
    priced: bool
    """Whether the price is known; if not, the cost is 0."""
    cost_nano_usd: NanoUsd
    engine_s: float
    """Of the latency, what was spent waiting for and running the model."""

    @property
    def providers(self) -> str:
        """Who answered, joined by commas."""
        return ",".join(each.provider for each in self.served)


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
        self._ledger = ledger
        self._deadline_s = deadline_s
        self._now_ms = now_ms

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
            EmbedwayError: It cannot be answered; that too is recorded, unless it was shed with 503.
        """
        at_ms, id = self._now_ms(), ids.new("embd")
        row = partial(settle.row, request, caller, id=id, request_id=request_id, at_ms=at_ms)
        routes: list[Route] = []
        try:
            began_s = time.perf_counter()
            embedded = await self._embedded(request, caller, routes, request_id=request_id)
            engine_s = time.perf_counter() - began_s
        except Overloaded:
            raise  # work that was shed costs nothing, not even a row
        except EmbedwayError as error:
            # The refusal stands, recorded or not: it is not billed.
            with suppress(EmbedwayError):
                latency_s = time.perf_counter() - started_s
                if routes:
                    first = routes[0].served
                    row = partial(row, model=first.model.id, provider=first.provider)
                await self._ledger.record(row(latency_s=latency_s, status=error.status))
            raise
        answer = _answer(embedded, routes, id=id, at_ms=at_ms, engine_s=engine_s)
        await self._ledger.record(
            row(
                latency_s=time.perf_counter() - started_s,
                model=answer.served[0].model.id,
                provider=answer.providers,
                tokens=answer.tokens,
                estimated=answer.estimated,
                priced=answer.priced,
                cost_nano_usd=answer.cost_nano_usd,
            )
        )
        return answer

    async def _embedded(
        self, request: EmbedRequest, caller: Caller, routes: list[Route], *, request_id: str
    ) -> Embedded:
        """The vectors of all items, by way of `routes`, which are filled in."""
        deadline_s = self._calls.now_s() + self._deadline_s
        try:
            async with asyncio.timeout(self._deadline_s):
                plan = await self._planned(request, caller)
                routes += self._routes(request, plan, request_id=request_id)[:MAX_DEPLOYMENTS]
                return await self._sender.send(
                    routes, items=len(request.items), deadline_s=deadline_s
                )
        except TimeoutError:
            raise self._late(routes) from None
        except ProviderError as error:
            # Each call that failed has its own line in the log.
            model = routes[0].served.model.id if routes else request.model
            raise error.answer(model=model) from None

    async def dry_run(self, request: EmbedRequest, caller: Caller) -> DryRun:
        """What would become of `request`; nobody is asked and nothing is recorded.

        Raises:
            EmbedwayError: It would be refused.
        """
        await self._prober.refresh()
        plan = self._router.plan(request, caller, any_age=True)
        if not plan.ranked and not plan.unproven:
            raise nobody(request, plan.removed, plan.unproven)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await dry_run(request, plan, self._routes(request, plan, request_id=""))
        except TimeoutError:
            raise self._late(()) from None

    async def _planned(self, request: EmbedRequest, caller: Caller) -> Plan:
        """Who is asked for `request`, at least one.

        Raises:
            EmbedwayError: Nobody can be.
            ProviderError: The last one left cannot be asked whether it is of the space.
        """
        await self._prober.refresh()
        plan = self._router.plan(request, caller)
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
            plan = self._router.plan(request, caller, given_up=frozenset(given_up))
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


def _of_canaries(error: ProviderError, served: Served) -> ProviderError:
    """What a request is told that waited for a probe: of canaries, which it knows nothing of."""
    if not error.elsewhere:
        error = ProviderError("malformed", "it refuses the canaries")
    error.provider = served.provider
    return error


def _answer(
    embedded: Embedded,
    routes: Sequence[Route],
    *,
    id: str,
    at_ms: int,
    engine_s: float,
) -> Answer:
    tokens: dict[int, int] = {}
    for part in embedded.parts:
        tokens[part.at] = tokens.get(part.at, 0) + part.tokens
    by = [routes[at] for at in tokens]
    prices = [each.served.deployment.price_per_mtok_usd for each in by]
    return Answer(
        id=id,
        created_s=at_ms // 1000,
        served=[each.served for each in by],
        space=msgspec.structs.replace(by[0].space, dimensions=embedded.vectors.shape[1]),
        vectors=embedded.vectors,
        tokens=sum(tokens.values()),
        estimated=not all(each.exact for each in embedded.parts),
        priced=None not in prices,
        cost_nano_usd=sum(
            money.cost(count, price_per_mtok=price or Decimal(0))
            for count, price in zip(tokens.values(), prices, strict=True)
        ),
        engine_s=engine_s,
    )
