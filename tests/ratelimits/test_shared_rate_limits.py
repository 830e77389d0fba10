"""Limits that replicas count together, also while Redis is away, slow or has lost its data."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Redis
from test_rate_limits import limit_key, most

from embedway.core.errors import RateLimitExceeded
from embedway.core.limit import SECONDS, SLOT_MS, LimitPeriod
from embedway.core.subject import Subject
from embedway.ratelimits.limiter import LimitKey, LimitReservation
from embedway.ratelimits.redis_counts import RedisCounts
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.ratelimits.shared_counts import (
    Count,
    CountReply,
    CountRequest,
    SharedCountsUnavailable,
)


class Counts:
    """A shared count in this process, which can be told to go away or to forget."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.away = False
        self.epoch = 1
        self.calls = 0
        self.alive: dict[str, int] = {}
        self.counted: dict[Any, dict[tuple[int, str], Count]] = {}

    def forget(self) -> None:
        """Lose all data, as a restarted Redis does."""
        self.epoch += 1
        self.counted.clear()
        self.alive.clear()

    def of(self, process: str) -> "View":
        return View(self, process)


class View:
    """The shared count as one process sees it."""

    def __init__(self, counts: Counts, process: str) -> None:
        self.counts = counts
        self.process = process

    async def count(
        self, requests: Sequence[CountRequest], *, epoch: str, now_ms: int
    ) -> CountReply:
        shared = self.counts
        shared.calls += 1
        if shared.away:
            raise SharedCountsUnavailable("it is away")
        shared.alive[self.process] = shared.now_ms
        replicas = sum(shared.now_ms - at < 10_000 for at in shared.alive.values())
        if epoch != str(shared.epoch):
            return CountReply(
                now_ms=shared.now_ms, epoch=str(shared.epoch), replicas=replicas, is_counted=False
            )
        found: list[tuple[CountRequest, int, dict[tuple[int, str], Count]]] = []
        for request in requests:
            limit = request.limit_key.limit
            slot = shared.now_ms // SLOT_MS[limit.per]
            fields = shared.counted.setdefault((request.limit_key.subject, limit.of, limit.per), {})
            own = [(slot, self.process, count) for slot, count in request.own_counts.items()]
            for its_slot, process, (amount, last_ms) in (*own, *request.other_counts):
                counted, at_ms = fields.get((its_slot, process), (0, 0))
                fields[its_slot, process] = max(counted, amount), max(at_ms, last_ms)
            for own, amount in request.corrections.items():
                if (own, self.process) in fields:
                    counted, at_ms = fields[own, self.process]
                    fields[own, self.process] = max(counted + amount, 0), at_ms
            left_ms = shared.now_ms - SECONDS[limit.per] * 1000
            for field in [each for each, (_, last_ms) in fields.items() if last_ms <= left_ms]:
                del fields[field]
            found.append((request, slot, fields))
        counted = all(
            not request.amount
            or sum(count for count, _ in fields.values()) + request.amount
            <= request.limit_key.limit.amount
            for request, _, fields in found
        )
        totals: list[bytes] = []
        for request, slot, fields in found:
            if counted and request.amount:
                before, _ = fields.get((slot, self.process), (0, 0))
                fields[slot, self.process] = before + request.amount, shared.now_ms
            known = (f"{at}:{who}={n}@{last}" for (at, who), (n, last) in fields.items())
            totals.append(",".join(known).encode())
        return CountReply(
            now_ms=shared.now_ms, epoch=epoch, replicas=replicas, is_counted=counted, totals=totals
        )

    async def aclose(self) -> None:
        """Nothing to close."""


class Replicas:
    """Replicas with one shared count, on a clock set by hand."""

    def __init__(self, number: int, *, per: LimitPeriod = "second") -> None:
        self.counts = Counts()
        self.per = per
        self.let_in: list[tuple[int, int]] = []
        self.last: tuple[SharedRateLimiter, LimitReservation] | None = None
        self.limiters = [
            SharedRateLimiter(
                self.counts.of(str(each)),
                now_s=lambda: self.counts.now_ms / 1000,
                now_ms=lambda: self.counts.now_ms,
            )
            for each in range(number)
        ]

    async def start(self) -> None:
        """Start each replica and let it learn of the others."""
        for limiter in self.limiters:
            await limiter.start()
        await self.pulse()

    async def pass_by(self, seconds: int) -> None:
        """Let time pass, with heartbeats."""
        for _ in range(seconds):
            self.counts.now_ms += 1000
            await self.pulse()

    async def aclose(self) -> None:
        for limiter in self.limiters:
            await limiter.aclose()

    async def let_in_of(self, replica: int, limited: LimitKey, times: int = 30) -> int:
        """Return how many of `times` requests are let in."""
        return sum([await self.ask(replica, limited) for _ in range(times)])

    async def pulse(self) -> None:
        for limiter in self.limiters:
            await limiter.heartbeat()

    async def ask(self, replica: int, limited: LimitKey, tokens: int = 1) -> bool:
        limiter = self.limiters[replica]
        try:
            reservation = await limiter.reserve([limited], tokens=tokens)
        except RateLimitExceeded:
            return False
        self.last = limiter, reservation
        self.let_in.append((self.counts.now_ms, tokens))
        return True

    async def settle(self, tokens: int) -> None:
        """Settle the last request that was let in for `tokens`, if that is less."""
        if self.last and tokens < self.last[1].tokens:
            limiter, reservation = self.last
            limiter.settle(reservation, tokens=tokens)
            self.let_in[-1] = (self.let_in[-1][0], tokens)
            self.last = None


def test_counts_of_replicas_that_stopped() -> None:
    """New replicas report what stopped ones counted, if the shared count loses its data."""

    async def run() -> None:
        first, limited = Replicas(2, per="minute"), limit_key(40, per="minute")
        await first.start()
        assert await first.let_in_of(0, limited, 20) + await first.let_in_of(1, limited, 19) == 39
        await first.aclose()
        second = Replicas(2, per="minute")
        second.counts = first.counts
        second.limiters = [
            SharedRateLimiter(
                first.counts.of(name),
                now_s=lambda: first.counts.now_ms / 1000,
                now_ms=lambda: first.counts.now_ms,
            )
            for name in ("other", "another")
        ]
        await second.start()
        assert await second.let_in_of(0, limited) == 1
        assert await second.let_in_of(1, limited) == 0
        first.counts.forget()
        assert await second.let_in_of(0, limited) + await second.let_in_of(1, limited) == 0
        await second.pass_by(5)
        assert await second.let_in_of(0, limited) + await second.let_in_of(1, limited) == 0
        await second.aclose()

    asyncio.run(run())


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 8)),
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 8)),
        st.tuples(st.just("pass"), st.integers(0, 700), st.just(0)),
        st.tuples(st.just("settle"), st.just(0), st.integers(0, 7)),
        st.tuples(st.sampled_from(("away", "back", "forget")), st.just(0), st.just(0)),
    ),
    max_size=200,
)


@given(events=EVENTS, amount=st.integers(3, 40), per=st.sampled_from(("second", "minute")))
def test_never_more_than_the_limit(
    events: Sequence[tuple[str, int, int]], amount: int, per: LimitPeriod
) -> None:
    """Whatever happens to the shared count, replicas never exceed the limit in any period."""

    async def run() -> Replicas:
        replicas = Replicas(3, per=per)
        await replicas.start()
        limited = limit_key(amount, of="tokens", per=per)
        pulse_ms = replicas.counts.now_ms
        for what, number, tokens in events:
            if what == "ask" and tokens <= amount:
                await replicas.ask(number, limited, tokens)
                await listen(replicas, limited)
            elif what == "settle":
                await replicas.settle(tokens)
                await asyncio.sleep(0)
                await listen(replicas, limited)
            elif what == "pass":
                replicas.counts.now_ms += number
                if replicas.counts.now_ms >= pulse_ms + 1000:
                    pulse_ms = replicas.counts.now_ms
                    await replicas.pulse()
            elif what == "forget":
                replicas.counts.forget()
            elif what in {"away", "back"}:
                replicas.counts.away = what == "away"
        await replicas.aclose()
        return replicas

    replicas = asyncio.run(run())
    assert most(replicas.let_in, SECONDS[per] * 1000) <= amount


async def listen(replicas: Replicas, limited: LimitKey) -> None:
    """Let each replica learn what the others counted, as a busy one does."""
    for limiter in replicas.limiters:
        if not replicas.counts.away and limiter.is_shared:
            await limiter.reserve([limited], tokens=0)


@pytest.mark.parametrize(
    ("amount", "used", "let_in"),
    [
        pytest.param(10, 0, (5, 5), id="halves"),
        pytest.param(11, 0, (5, 5), id="rounded down"),
        pytest.param(1, 0, (1, 1), id="one at least"),
        pytest.param(10, 10, (0, 0), id="all used by one"),
        pytest.param(10, 6, (0, 2), id="more than its share used by one"),
        pytest.param(10, 3, (2, 3), id="less than its share used by one"),
    ],
)
def test_shares(amount: int, used: int, let_in: tuple[int, int]) -> None:
    """Alone, each of two replicas lets in half of the limit, less its half of what was used."""

    async def run() -> None:
        replicas, limited = Replicas(2), limit_key(amount, of="tokens")
        await replicas.start()
        assert await replicas.let_in_of(0, limited, used) == used
        await listen(replicas, limited)
        replicas.counts.away = True
        assert (
            await replicas.let_in_of(0, limited),
            await replicas.let_in_of(1, limited),
        ) == let_in
        await replicas.aclose()

    asyncio.run(run())


def test_share_comes_back() -> None:
    """What was used before an outage expires after one period, as always."""

    async def run() -> None:
        replicas, limited = Replicas(2), limit_key(10)
        await replicas.start()
        assert await replicas.let_in_of(0, limited) == 10
        replicas.counts.away = True
        await replicas.pass_by(59)
        assert await replicas.let_in_of(0, limited) == 0
        await replicas.pass_by(1)
        assert await replicas.let_in_of(0, limited) == 5
        await replicas.aclose()

    asyncio.run(run())


def test_outage_delays_one_request() -> None:
    """During an outage only one request and the heartbeats call the shared count."""

    async def run() -> None:
        replicas, limited = Replicas(1), limit_key(100)
        await replicas.start()
        replicas.counts.away = True
        calls = replicas.counts.calls
        await replicas.let_in_of(0, limited, 50)
        assert replicas.counts.calls == calls + 1
        await replicas.pass_by(3)
        assert replicas.counts.calls == calls + 4
        await replicas.aclose()

    asyncio.run(run())


def test_reports_after_an_outage() -> None:
    """After an outage, what each replica counted alone counts for all, data lost or not."""

    async def run() -> None:
        replicas, limited = Replicas(2), limit_key(20)
        await replicas.start()
        assert await replicas.let_in_of(0, limited, 3) == 3
        assert await replicas.let_in_of(1, limited, 2) == 2
        replicas.counts.away = True
        assert await replicas.let_in_of(0, limited, 4) == 4
        replicas.counts.forget()
        replicas.counts.away = False
        await replicas.pass_by(3)
        assert [each.is_shared for each in replicas.limiters] == [True, True]
        assert await replicas.let_in_of(1, limited) == 11
        await replicas.aclose()

    asyncio.run(run())


def test_stopped_replica() -> None:
    """A replica that sends no heartbeats for a while has no share."""

    async def run() -> None:
        replicas, limited = Replicas(2), limit_key(10)
        await replicas.start()
        del replicas.limiters[1]
        await replicas.pass_by(12)
        replicas.counts.away = True
        assert await replicas.let_in_of(0, limited) == 10
        await replicas.aclose()

    asyncio.run(run())


def test_larger_than_a_share() -> None:
    """A request larger than a share but not than the limit is told to retry, not to shrink."""

    async def run() -> None:
        replicas, limited = Replicas(2), limit_key(10, of="tokens")
        await replicas.start()
        replicas.counts.away = True
        with pytest.raises(RateLimitExceeded) as refused:
            await replicas.limiters[0].reserve([limited], tokens=6)
        assert 1 <= int(refused.value.headers["retry-after"]) <= 2
        replicas.counts.away = False
        await replicas.pass_by(4)
        assert await replicas.ask(0, limited, 6)
        await replicas.aclose()

    asyncio.run(run())


# Over a real Redis, in real time.


class Pressure:
    """Two replicas with one Redis, always under more requests than the limit allows."""

    AMOUNT = 60

    def __init__(self, url: str) -> None:
        self.reasons: list[list[str | None]] = [[], []]
        self.limiters = [
            SharedRateLimiter(RedisCounts(url), on_sharing_change=reasons.append)
            for reasons in self.reasons
        ]
        self.let_in: list[tuple[int, int]] = []
        self.alone = Counter[int]()
        self._pressing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for limiter in self.limiters:
            await limiter.start()
        for limiter in self.limiters:
            await limiter.heartbeat()
        self._pressing = [asyncio.create_task(self._press(each)) for each in (0, 1) * 3]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._pressing:
            task.cancel()
        await asyncio.gather(*self._pressing, return_exceptions=True)
        for limiter in self.limiters:
            await limiter.aclose()

    async def _press(self, replica: int) -> None:
        limiter, limited = self.limiters[replica], limit_key(self.AMOUNT, per="second")
        while True:
            try:
                reservation = await limiter.reserve([limited], tokens=1)
            except RateLimitExceeded:
                await asyncio.sleep(0.005)
                continue
            self.let_in.append((reservation.at_ms, 1))
            self.alone[replica] += not limiter.is_shared

    async def until(self, *, shared: bool) -> None:
        """Wait until both replicas count together, or neither does."""
        while any(each.is_shared != shared for each in self.limiters):
            self.alive()
            await asyncio.sleep(0.02)

    def alive(self) -> None:
        """Fail if a request failed."""
        for task in self._pressing:
            if task.done():
                task.result()

    def most(self) -> int:
        """Return the most that was let in in any second."""
        self.alive()
        return most(sorted(self.let_in), 1000)


def test_two_replicas(redis_url: str) -> None:
    """Two replicas under pressure let in the whole limit and never more."""

    async def runs() -> list[list[str | None]]:
        async with Pressure(redis_url) as pressure:
            await asyncio.sleep(3)
            if pressure.alone.total():
                return pressure.reasons
            assert pressure.most() <= pressure.AMOUNT
            assert len(pressure.let_in) >= 0.95 * 3 * pressure.AMOUNT
            return []

    # On a busy machine, Redis may answer too late, and then each replica counts alone for a while.
    assert any(not (reasons := asyncio.run(runs())) for _ in range(10)), reasons


def test_redis_comes_and_goes(redis: Redis) -> None:
    """With Redis killed, restarted empty and paused, no request fails and limits hold within 5%."""

    async def run() -> None:
        async with Pressure(redis.url) as pressure:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(redis.stop)
            await pressure.until(shared=False)
            await asyncio.sleep(1.2)
            await asyncio.to_thread(redis.start)
            await pressure.until(shared=True)
            assert pressure.most() <= pressure.AMOUNT * 1.05
            assert min(pressure.alone[0], pressure.alone[1]) > 0
            redis.pause()
            await pressure.until(shared=False)
            await asyncio.sleep(0.5)
            redis.resume()
            await pressure.until(shared=True)
            await asyncio.sleep(0.5)
            assert pressure.most() <= pressure.AMOUNT * 1.05
            for reasons in pressure.reasons:
                assert [reason is None for reason in reasons] == [True, False, True, False, True]

    asyncio.run(run())


def test_redis_never_reachable() -> None:
    """Without Redis from the start, a process counts alone and answers requests."""

    async def run() -> None:
        reasons: list[str | None] = []
        limiter = SharedRateLimiter(
            RedisCounts("redis://127.0.0.1:9/0"), on_sharing_change=reasons.append
        )
        await limiter.start()
        for _ in range(3):
            await limiter.reserve([limit_key(3)], tokens=1)
        with pytest.raises(RateLimitExceeded):
            await limiter.reserve([limit_key(3)], tokens=1)
        await limiter.aclose()
        assert len(reasons) == 1 and reasons[0] and "ConnectionError" in reasons[0]

    asyncio.run(run())


def test_redis_refuses(redis: Redis) -> None:
    """A Redis without free memory is treated as unreachable."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis.url))
        await limiter.start()
        await limiter.reserve([limit_key(2)], tokens=1)
        redis.say(b"CONFIG SET maxmemory 1\r\n")
        await limiter.reserve([limit_key(2)], tokens=1)
        assert not limiter.is_shared
        with pytest.raises(RateLimitExceeded):
            await limiter.reserve([limit_key(2)], tokens=1)
        await limiter.aclose()

    asyncio.run(run())


def test_keys(redis: Redis) -> None:
    """All Redis keys have one prefix and one hash slot, expire, and contain no names."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis.url))
        await limiter.start()
        user = Subject(kind="end user", id="ann@example.com", project_id="proj_x")
        await limiter.reserve(
            [limit_key(2), limit_key(2, of="tokens", per="day", subject=user)], tokens=1
        )
        keys = redis.say(b"KEYS *\r\n").decode().split("\r\n")[2:-1:2]
        assert len(keys) == 4
        for key in keys:
            assert key.startswith("embedway:{limits}:") and "ann" not in key
            assert int(redis.say(f"TTL {key}\r\n".encode())[1:]) > 0
        redis.say(b"SCRIPT FLUSH\r\n")
        await limiter.reserve([limit_key(2)], tokens=1)
        assert limiter.is_shared
        await limiter.aclose()

    asyncio.run(run())


def test_clock_of_redis_is_set_back(redis: Redis) -> None:
    """When the clock of Redis is set back, time and limits go on from where they were."""

    async def run() -> None:
        limiter, limited = SharedRateLimiter(RedisCounts(redis.url)), limit_key(2, per="second")
        await limiter.start()
        before = await limiter.reserve([limited], tokens=1)
        # The last time that Redis stored is an hour ahead, as if its clock had been set back since.
        later_ms = before.at_ms + 3_600_000
        redis.say(b"HSET embedway:{limits}:clock now %d\r\n" % later_ms)
        after = await limiter.reserve([limited, limit_key(9)], tokens=1)
        assert after.at_ms == later_ms
        await limiter.reserve([limited], tokens=1)
        with pytest.raises(RateLimitExceeded) as refused:
            await limiter.reserve([limited], tokens=1)
        await asyncio.sleep(int(refused.value.headers["retry-after-ms"]) / 1000)
        assert (await limiter.reserve([limited], tokens=1)).at_ms > later_ms
        assert limiter.is_shared
        await limiter.aclose()

    asyncio.run(run())


def test_cancelled(redis_url: str) -> None:
    """A request cancelled while it is counted disturbs no other."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis_url))
        await limiter.start()
        for wait_s in (0, 0, 0.0001, 0.0003, 0.0005, 0.001):
            asking = asyncio.create_task(limiter.reserve([limit_key(1000)], tokens=1))
            await asyncio.sleep(wait_s)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            status = (await limiter.reserve([limit_key(1000)], tokens=1)).statuses[0]
            assert 980 < status.remaining < 1000
        assert limiter.is_shared
        await limiter.aclose()

    asyncio.run(run())


def test_busy_process(redis_url: str) -> None:
    """A process that is itself busy does not take Redis for unreachable."""

    async def run() -> bool:
        limiter = SharedRateLimiter(RedisCounts(redis_url))
        await limiter.start()
        try:
            asking = asyncio.create_task(limiter.reserve([limit_key(2000)], tokens=1))
            await asyncio.sleep(0.0002)
            time.sleep(0.2)  # as a long computation would
            await asking
            more = (limiter.reserve([limit_key(2000)], tokens=1) for _ in range(600))
            await asyncio.gather(*more)
            return limiter.is_shared
        finally:
            await limiter.aclose()

    # On a busy machine, Redis itself may answer too late.
    assert any(asyncio.run(run()) for _ in range(10))


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "127.0.0.1:6379"])
def test_no_redis_url(url: str) -> None:
    """A URL that is not a Redis URL is refused at once."""
    with pytest.raises(ValueError):
        RedisCounts(url)
