"""Watches a simulation from outside, and says which promise was broken.

It sees what clients, providers and the database see, and what the rate limiter let in. It knows
every right vector and price. `RULES` lists the promises.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from chaos.simulation.database import SimulatedDatabase
from chaos.simulation.process import Process
from chaos.simulation.replica import DEADLINE_S, MAX_PARALLEL, Replica
from chaos.simulation.shared_count import SimulatedRedis
from chaos.simulation.upstream import (
    EXACT,
    POISON,
    PRICES_USD,
    REQUEST,
    CallWatch,
    Upstream,
    WatchedCall,
    true_tokens,
    true_vector,
)
from chaos.simulation.world import DAY_MS, World
from embedway.core import money
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import (
    BudgetExceeded,
    EmbedwayError,
    InvalidRequest,
    RateLimitExceeded,
    ServiceOverloaded,
    StorageUnavailable,
    UpstreamError,
    UpstreamTimeout,
)
from embedway.core.limit import SECONDS
from embedway.core.request import EmbedRequest
from embedway.core.subject import Subject
from embedway.core.usage import ANSWERED
from embedway.pipeline.result import EmbedResult
from embedway.ratelimits.limiter import LimitKey, LimitReservation, RateLimiter
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.spaces.canaries import CANARIES

RULES: Mapping[str, str] = {
    "vectors": "every vector of a 200 is the right one for its item and model, in order",
    "billing": "a 200 is in the ledger before the client has it, once, with exact tokens and cost; "
    "nothing else is charged",
    "sums": "the ledger's sums are those of its records",
    "limits": "no rate limit is exceeded beyond what docs/limits.md says",
    "budgets": "nothing is spent, and nothing held, beyond a budget",
    "holds": "a minute after the last trouble, no budget is held by anybody",
    "retries": "no call is repeated more often than documented, nor after a billed answer",
    "retry-after": "no provider is called before its Retry-After is over",
    "parallel": "no request has more calls in flight at a provider than the provider's limit",
    "deadline": "every request ends in time, and nothing is done for it afterwards",
    "status": "every status has a cause, and none is 500",
    "leftovers": "nothing is left of requests that have ended",
}
"""The promises, by their short names."""

COMMIT_WAIT_S = 20.5
"""How long a commit may take until it is in doubt, as docs/operations.md says."""
LOOKUP_WAIT_S = 15.5
"""How long a look-up may take until it fails."""
MAX_TRIES = 3
RETRY_FLOOR = 3
RETRY_SHARE = 0.2
HEARTBEATS = frozenset({"SharedRateLimiter._send_heartbeats", "SimulatedRedis.run"})
"""The tasks of a replica at rest, which tells Redis every second that it is there."""
TOGETHER_AGAIN_MS = 6_000
"""How long after Redis is back all replicas surely count together, and their clocks agree."""
CHECK_EVERY = 4
"""Budgets are checked at every so many commits."""


class BrokenPromise(msgspec.Struct, frozen=True):
    """A promise that was not kept."""

    rule: str
    text: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.rule}: {self.text} (at {self.at_s:.3f} s)"


class Exchange:
    """One request of a client, and what became of it."""

    def __init__(
        self, number: int, request: EmbedRequest, subjects: Mapping[Subject, Sequence[Budget]]
    ) -> None:
        self.number = number
        self.request = request
        self.subjects = subjects
        self.replica: Replica | None = None
        self.began_s = 0.0
        self.end = "open"
        """`answered`, `refused`, `left` by the client, or `broken` with the replica."""
        self.result_id = ""
        self.tokens = 0
        self.cost_nano_usd = 0

    def __str__(self) -> str:
        return f"request {self.number}"

    @property
    def model(self) -> str:
        """The model's id."""
        return self.request.model.rpartition(":")[2]


class WatchedLimiter:
    """A rate limiter whose decisions the oracle sees."""

    def __init__(self, limiter: RateLimiter, oracle: "Oracle", replica: Replica) -> None:
        self._limiter = limiter
        self._oracle = oracle
        self._replica = replica
        self.check = limiter.check

    async def reserve(self, limit_keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Reserve, and tell the oracle."""
        decision = self._oracle.begin_decision(self._replica, self._limiter)
        reservation = await self._limiter.reserve(limit_keys, tokens=tokens)
        self._oracle.let_in(decision, limit_keys, reservation)
        return reservation

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Settle, and tell the oracle."""
        self._oracle.settle(reservation, tokens)
        self._limiter.settle(reservation, tokens=tokens)


class _Decision(msgspec.Struct, frozen=True):
    """What a limiter knew when it began to decide about a request."""

    replica: Replica
    limiter: RateLimiter
    was_shared: bool
    gateways: int
    """How many gateways Redis had told this one of."""


class _Use(msgspec.Struct):
    """What one request counts against one limit."""

    at_ms: int
    process: Process
    of: str
    amount: int


class Oracle(CallWatch):
    """Checks all promises of one simulation."""

    def __init__(
        self, world: World, database: SimulatedDatabase, redis: SimulatedRedis | None
    ) -> None:
        self.world = world
        self.broken: list[BrokenPromise] = []
        self.exchanges: dict[str, Exchange] = {}
        self.counts = Counter[str]()
        self.budgets: dict[Subject, Sequence[Budget]] = {}
        """The budgets of every subject that sent a request."""
        self._database = database
        self._redis = redis
        self._uses: defaultdict[tuple[Subject, str, str], list[_Use]] = defaultdict(list)
        self._by_reservation: dict[int, tuple[LimitReservation, list[_Use]]] = {}
        self._apart_ms = -DAY_MS
        """When limits were last not counted together, on the limiters' clock."""
        self._calls: defaultdict[tuple[Any, str, tuple[str, ...]], list[WatchedCall]] = defaultdict(
            list
        )
        self._running: dict[WatchedCall, None] = {}
        self._most_running: Counter[Process] = Counter()
        self._rests_until_s: dict[tuple[Process, str, str], float] = {}
        self._commits = 0
        database.on_commit.append(self._on_commit)

    def breaks(self, rule: str, text: str) -> None:
        """Record a broken promise."""
        promise = BrokenPromise(rule, text, self.world.now_s)
        self.broken.append(promise)
        self.world.note(f"BROKEN {rule}: {text}")

    def unseen(self, _: object, context: dict[str, Any]) -> None:
        """Record an error that the event loop reports because nobody looked at it."""
        source = context.get("future") or context.get("task")
        process = getattr(source, "process", None)
        if process is None or process.is_alive:
            error = context.get("exception")
            self.breaks("leftovers", f"{context['message']}: {error!r}")

    # What clients see.

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        """Note a request that a client sent."""
        exchange.replica, exchange.began_s = replica, self.world.now_s
        self.exchanges[str(exchange)] = exchange
        self.budgets.update(exchange.subjects)
        request = exchange.request
        self.world.note(
            f"{exchange} to {replica.process.name}: {len(request.items)} x {request.model}"
        )

    def answered(self, exchange: Exchange, result: EmbedResult) -> None:
        """Check a 200."""
        self._ended(exchange, "answered", "200")
        exchange.result_id, exchange.tokens = result.id, result.tokens
        exchange.cost_nano_usd = result.cost_nano_usd
        texts = exchange.request.items
        expected = np.stack([true_vector(exchange.model, text) for text in texts])
        if result.vectors.shape != expected.shape or not np.allclose(
            result.vectors, expected, atol=1e-5
        ):
            self.breaks("vectors", f"{exchange} got wrong vectors from {result.providers}")
        found = self._database.plain.execute(
            'SELECT count(*) FROM "usage" WHERE id = ? AND status = 200', (result.id,)
        ).fetchone()[0]
        if not found:
            self.breaks("billing", f"{exchange} was answered before its usage was committed")

    def refused(self, exchange: Exchange, error: Exception) -> None:
        """Check a refusal."""
        status = error.status if isinstance(error, EmbedwayError) else 500
        name = type(error).__name__
        self._ended(exchange, "refused", f"{status} {name}")
        seen = self.world.faults_seen
        texts = exchange.request.items
        replica = exchange.replica
        match error:
            case BudgetExceeded():
                is_explained = bool(exchange.subjects)
            case RateLimitExceeded():
                is_explained = True  # `limits` checks that the limit is not exceeded
            case StorageUnavailable():
                is_explained = "database" in seen
            case ServiceOverloaded():
                is_explained = bool(seen) or not (replica and replica.is_ready)
            case UpstreamTimeout():
                is_explained = bool(seen)  # the deadline passed, whatever took so long
            case UpstreamError():
                is_explained = "upstream" in seen
            case InvalidRequest():
                is_explained = any(str(text).startswith(POISON) for text in texts)
            case _:
                is_explained = False
        if not is_explained:
            self.breaks("status", f"{exchange} got {status} without a cause: {error!r}")

    def left(self, exchange: Exchange) -> None:
        """Note a client that left before its answer."""
        self._ended(exchange, "left", "the client leaves")

    def lost(self, exchange: Exchange) -> None:
        """Note a connection that broke off."""
        self._ended(exchange, "broken", "the connection breaks")

    def _ended(self, exchange: Exchange, end: str, text: str) -> None:
        exchange.end = end
        self.counts[end] += 1
        took_s = self.world.now_s - exchange.began_s
        self.world.note(f"{exchange}: {text} after {took_s:.3f} s")
        most_s = DEADLINE_S + 0.1
        if "database" in self.world.faults_seen:
            most_s += LOOKUP_WAIT_S + COMMIT_WAIT_S
        if took_s > most_s:
            self.breaks("deadline", f"{exchange} took {took_s:.1f} s")

    # What providers see.

    def begin(
        self, upstream: Upstream, model: str, items: Sequence[str], headers: Mapping[str, str]
    ) -> WatchedCall:
        """Check a call that begins."""
        call = super().begin(upstream, model, items, headers)
        now_s, process, exchange = self.world.now_s, call.process, call.request
        assert process is not None
        self.counts["calls"] += 1
        self._running[call] = None
        mine = [each for each in self._running if each.process is process]
        self._most_running[process] = max(self._most_running[process], len(mine))
        rest_s = self._rests_until_s.get((process, upstream.name, model), 0.0)
        falls_back = upstream.trouble == "refuses base64"
        if now_s < rest_s and upstream.name != "gamma" and not falls_back:
            self.breaks("retry-after", f"{upstream.name} is called {rest_s - now_s:.3f} s early")
        if items[0] in CANARIES:
            call.request = None
            return call
        if exchange.end != "open":
            self.breaks("deadline", f"{upstream.name} is called for {exchange}, which has ended")
        same = [
            each for each in mine if each.request is exchange and each.upstream == call.upstream
        ]
        if len(same) > MAX_PARALLEL:
            self.breaks("parallel", f"{exchange} has {len(same)} calls at {upstream.name}")
        self._check_retry(call, mine, falls_back=falls_back)
        return call

    def end(self, call: WatchedCall, how: str) -> None:
        """Note how a call ended."""
        self._running.pop(call, None)
        trouble = "" if call.trouble == "well" else f" ({call.trouble})"
        what = "canaries" if call.request is None else f"{call.request}"
        self.world.note(
            f"{call.upstream} for {what}: {how}{trouble}, {len(call.items)} x {call.model}"
        )
        if call.retry_after_s is not None and call.process is not None:
            until_s = self.world.now_s + call.retry_after_s - 0.001
            self._rests_until_s[call.process, call.upstream, call.model] = until_s

    def _check_retry(self, call: WatchedCall, mine: list[WatchedCall], *, falls_back: bool) -> None:
        before = self._calls[call.request, call.upstream, call.items]
        if before and not falls_back:
            call.is_retry = True
            self.counts["retries"] += 1
            if len(before) >= MAX_TRIES:
                self.breaks("retries", f"{call.request} is tried again at {call.upstream}")
            if before[-1].was_answered:
                self.breaks("retries", f"{call.request} is sent again after a billed answer")
            retries = sum(each.is_retry for each in mine)
            # Calls whose answer is being checked count too, but no provider sees them.
            calls = self._most_running[call.process] + 8
            if retries > max(RETRY_FLOOR, RETRY_SHARE * calls):
                self.breaks("retries", f"{retries} retries in flight with {calls} calls")
        before.append(call)

    # What the rate limiter lets in.

    def watch_limiter(self, replica: Replica, limiter: RateLimiter) -> RateLimiter:
        """Return a limiter that tells the oracle what it lets in."""
        return WatchedLimiter(limiter, self, replica)

    def begin_decision(self, replica: Replica, limiter: RateLimiter) -> _Decision:
        """Note what a limiter knows."""
        was_shared = isinstance(limiter, SharedRateLimiter) and limiter.is_shared
        return _Decision(replica, limiter, was_shared, self._gateways(replica))

    def let_in(
        self, decision: _Decision, keys: Sequence[LimitKey], reservation: LimitReservation
    ) -> None:
        """Check that a request that was let in had room."""
        replica, limiter = decision.replica, decision.limiter
        at_ms = reservation.at_ms
        if isinstance(limiter, SharedRateLimiter) and not limiter.is_shared:
            self._apart_ms = max(self._apart_ms, at_ms)
        uses: list[_Use] = []
        for key in dict.fromkeys(keys):
            amount = key.limit.units(reservation.tokens)
            name = (key.subject, key.limit.of, key.limit.per)
            since_ms = at_ms - SECONDS[key.limit.per] * 1000
            recent = [each for each in self._uses[name] if each.at_ms > since_ms]
            use = _Use(at_ms, replica.process, key.limit.of, amount)
            # If Redis' clock was set back, what a gateway let in alone may seem to come later.
            own = amount + sum(
                each.amount
                for each in recent
                if each.process is replica.process and each.at_ms <= at_ms
            )
            total = sum(each.amount for each in recent) + amount
            self._check_limit(decision, key, own=own, total=total, since_ms=since_ms)
            self._uses[name] = [*recent, use]
            uses.append(use)
        self._by_reservation[id(reservation)] = (reservation, uses)

    def _check_limit(
        self, decision: _Decision, key: LimitKey, *, own: int, total: int, since_ms: int
    ) -> None:
        amount = key.limit.amount
        if not isinstance(decision.limiter, SharedRateLimiter):
            counted, most = own, amount  # it starts from zero when it restarts
        elif since_ms > max(self._apart_ms, self._redis_lost_ms()) + TOGETHER_AGAIN_MS:
            counted, most = total, amount
        elif decision.was_shared and self._is_counted_by_redis():
            return  # within what Redis knew, whatever became of Redis then
        else:
            # It may have heard of other gateways just after it decided.
            gateways = min(decision.gateways, self._gateways(decision.replica))
            counted, most = own, max(1, amount // gateways)
        if counted > most:
            self.breaks("limits", f"{key.subject} has {counted} of {most} {key.limit}")

    def _gateways(self, replica: Replica) -> int:
        return self._redis.told.get(replica.process.name, 1) if self._redis else 1

    def _is_counted_by_redis(self) -> bool:
        return self._redis is not None and REQUEST.get() in self._redis.counted

    def _redis_lost_ms(self) -> int:
        return self._redis.lost_data_ms if self._redis else 0

    def settle(self, reservation: LimitReservation, tokens: int) -> None:
        """Note what a request used in the end."""
        _, uses = self._by_reservation.pop(id(reservation), (None, []))
        for use in uses:
            if use.of == "tokens":
                use.amount = min(use.amount, tokens)

    # What the database has.

    def _on_commit(self) -> None:
        self._commits += 1
        if self._commits % CHECK_EVERY == 0:
            self.check_budgets()

    def check_budgets(self) -> None:
        """Check what is spent and held of every budget."""
        if not self.budgets:
            return
        rows = self._database.plain.execute(
            "SELECT project_id, key_id, end_user, at_ms, cost_nano_usd "
            'FROM "usage" WHERE cost_nano_usd > 0'
        ).fetchall()
        held = dict(
            self._database.plain.execute(
                "SELECT subject, sum(amount_nano_usd) FROM holds GROUP BY subject"
            )
        )
        now_ms = self.world.now_ms()
        is_one_day = now_ms // DAY_MS == self.world.start_ms // DAY_MS and (
            now_ms % DAY_MS > 10_000 and now_ms % DAY_MS < DAY_MS - 10_000
        )
        for subject, budgets in self.budgets.items():
            spent: defaultdict[tuple[Budget, int], int] = defaultdict(int)
            for project_id, key_id, end_user, at_ms, cost in rows:
                if not _concerns(subject, project_id, key_id, end_user):
                    continue
                for budget in budgets:
                    spent[budget, budget_window(budget.per, at_ms)[0]] += cost
            for budget in budgets:
                windows = [amount for (each, _), amount in spent.items() if each == budget]
                most = max(windows, default=0)
                if is_one_day:
                    most += held.get(str(subject), 0)
                if most > budget.amount_nano_usd:
                    self.breaks(
                        "budgets", f"{subject}: {most} of {budget.amount_nano_usd} nano-USD are "
                        f"spent and held",
                    )  # fmt: skip

    def check_ledger(self, replicas: Sequence[Replica]) -> None:
        """Check the records of all requests, at the end."""
        died = {each.process.name for each in replicas if not each.process.is_alive}
        died |= {each.process.name for each in replicas if each.is_stopped}
        rows = self._database.plain.execute(
            "SELECT request_id, id, status, provider, items, tokens, cost_nano_usd "
            'FROM "usage" ORDER BY id, line'
        ).fetchall()
        records: defaultdict[str, list[Any]] = defaultdict(list)
        for row in rows:
            records[row[0]].append(row)
        for name, found in records.items():
            exchange = self.exchanges.get(name)
            if exchange is None:
                if name != "probe" or any(row[6] for row in found):
                    self.breaks("billing", f"{name!r} is in the ledger, and nobody sent it")
                continue
            self._check_records(exchange, found, died)
        for name, exchange in self.exchanges.items():
            if exchange.end == "answered" and name not in records:
                self.breaks("billing", f"{exchange} was answered and is not in the ledger")

    def _check_records(self, exchange: Exchange, rows: list[Any], died: set[str]) -> None:
        if len({row[1] for row in rows}) > 1:
            self.breaks("billing", f"{exchange} is in the ledger twice")
        charged = [row for row in rows if row[2] == ANSWERED]
        if any(row[5] or row[6] for row in rows if row[2] != ANSWERED):
            self.breaks("billing", f"{exchange} was refused and charged")
        if exchange.end == "answered" and [row[1] for row in charged] != (
            [exchange.result_id] * len(rows)
        ):
            self.breaks("billing", f"{exchange} was answered, but its records say otherwise")
        if exchange.end == "refused" and charged:
            assert exchange.replica is not None
            if exchange.replica.process.name not in died:
                self.breaks("billing", f"{exchange} was refused and its records say 200")
        if charged:
            self._check_charge(exchange, charged)

    def _check_charge(self, exchange: Exchange, charged: list[Any]) -> None:
        """Check what an answer is charged."""
        for _, _, _, provider, _, tokens, cost in charged:
            price = Decimal(str(PRICES_USD[provider]))
            if cost != money.cost(tokens, price_per_mtok=price):
                self.breaks("billing", f"{exchange} costs {cost} for {tokens} tokens")
        texts = [str(text) for text in exchange.request.items]
        if sum(row[4] for row in charged) != len(texts):
            self.breaks("billing", f"{exchange} has {len(texts)} items, its records others")
        least = most = sum(true_tokens(exchange.model, text) for text in texts)
        if exchange.model != EXACT and "upstream" in self.world.faults_seen:
            # If a provider says no count or a wrong one, an estimate or its own count is charged.
            least = min(least, sum(len(text) // 3 + 1 for text in texts))
            most = sum(len(text) + 64 for text in texts)
        tokens = sum(row[5] for row in charged)
        if not least <= tokens <= most:
            self.breaks("billing", f"{exchange} has {least} tokens and is charged {tokens}")
        cost = sum(row[6] for row in charged)
        if exchange.end == "answered" and (tokens, cost) != (
            exchange.tokens, exchange.cost_nano_usd,
        ):  # fmt: skip
            self.breaks("billing", f"{exchange} was told another price than it is charged")

    def check_sums(self) -> None:
        """Check the ledger's sums by hour and day."""
        ask = self._database.plain.execute
        sums = "sum(tokens), sum(cost_nano_usd), sum(upstream_cost_nano_usd), sum(calls)"
        group = f"SELECT project_id, key_id, model, provider, {sums} FROM"
        by = "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        records = ask(f'{group} "usage" {by}').fetchall()
        for table in ("usage_hours", "usage_days"):
            stored = ask(f"{group} {table} {by}").fetchall()
            stored = [row for row in stored if any(row[4:])]  # a replaced record leaves zeros
            if stored != [row for row in records if any(row[4:])]:
                self.breaks("sums", f"{table} has other sums than the records")

    def check_leftovers(self, replica: Replica) -> None:
        """Check that a replica is at rest."""
        name = replica.process.name
        tasks = [each.get_coro().__qualname__ for each in replica.process.tasks()]
        if left := [each for each in tasks if each not in HEARTBEATS]:
            self.breaks("leftovers", f"{name} still runs {', '.join(left)}")
        budget = replica.sender._budget
        if budget.calls or budget.retries:
            self.breaks(
                "leftovers", f"{name} counts {budget.calls} calls, {budget.retries} retries"
            )
        for each in replica.deployments:
            if in_flight := replica.healths.get(each).in_flight:
                self.breaks("leftovers", f"{name} counts {in_flight} calls at {each.id}")
        if replica.ledger.waiting_records:
            self.breaks("leftovers", f"{name} has records to write")
        for call in self._running:
            if call.process is replica.process:
                self.breaks("leftovers", f"{call.upstream} still works for {name}")


def _concerns(subject: Subject, project_id: str, key_id: str, end_user: str) -> bool:
    if subject.project_id != project_id:
        return False
    match subject.kind:
        case "project":
            return True
        case "key":
            return subject.id == key_id
        case "end user":
            return subject.id == end_user


async def quiet() -> None:
    """Let everything that is due in this turn happen."""
    for _ in range(5):
        await asyncio.sleep(0)
