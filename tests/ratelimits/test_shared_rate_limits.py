"""Limits that several replicas count together, also while Redis is away, slow, or has forgotten."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Redis
from test_rate_limits import meter, most

from embedway.core.errors import RateLimitExceeded
from embedway.core.limit import SECONDS, SLOT_MS, LimitPeriod
from embedway.core.subject import Subject
from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.limiter import LimitReservation
from embedway.ratelimits.redis_counts import RedisCounts
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.ratelimits.shared_counts import (
    Count,
    CountReply,
    CountRequest,
    SharedCountsUnavailable,
)


class Counts:
    """What replicas share, in this process: it does what it is told, goes away and forgets."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.away = False
        self.epoch = 1
        self.asked = 0
        self.alive: dict[str, int] = {}
        self.counted: dict[Any, dict[tuple[int, str], Count]] = {}

    def forget(self) -> None:
        """Loses all it knows, as a Redis that is started anew."""
        self.epoch += 1
        self.counted.clear()
        self.alive.clear()

    def of(self, process: str) -> "View":
        return View(self, process)


class View:
    """That, for one process."""

    def __init__(self, counts: Counts, process: str) -> None:
        self.counts = counts
        self.process = process

    async def count(self, asks: Sequence[CountRequest], *, epoch: str, now_ms: int) -> CountReply:
        shared = self.counts
        shared.asked += 1
        if shared.away:
            raise SharedCountsUnavailable("it is away")
        shared.alive[self.process] = shared.now_ms
        replicas = sum(shared.now_ms - at < 10_000 for at in shared.alive.values())
        if epoch != str(shared.epoch):
            return CountReply(
                now_ms=shared.now_ms, epoch=str(shared.epoch), replicas=replicas, counted=False
            )
        found: list[tuple[CountRequest, int, dict[tuple[int, str], Count]]] = []
        for ask in asks:
            limit = ask.meter.limit
            slot = shared.now_ms // SLOT_MS[limit.per]
            fields = shared.counted.setdefault((ask.meter.subject, limit.of, limit.per), {})
            told = [(slot, self.process, count) for slot, count in ask.own.items()]
            for told_slot, process, (amount, last_ms) in (*told, *ask.others):
                counted, at_ms = fields.get((told_slot, process), (0, 0))
                fields[told_slot, process] = max(counted, amount), max(at_ms, last_ms)
            for own, amount in ask.changes.items():
                if (own, self.process) in fields:
                    counted, at_ms = fields[own, self.process]
                    fields[own, self.process] = max(counted + amount, 0), at_ms
            left_ms = shared.now_ms - SECONDS[limit.per] * 1000
            for field in [each for each, (_, last_ms) in fields.items() if last_ms <= left_ms]:
                del fields[field]
            found.append((ask, slot, fields))
        counted = all(
            not ask.amount
            or sum(count for count, _ in fields.values()) + ask.amount <= ask.meter.limit.amount
            for ask, _, fields in found
        )
        totals: list[bytes] = []
        for ask, slot, fields in found:
            if counted and ask.amount:
                before, _ = fields.get((slot, self.process), (0, 0))
                fields[slot, self.process] = before + ask.amount, shared.now_ms
            known = (f"{at}:{who}={n}@{last}" for (at, who), (n, last) in fields.items())
            totals.append(",".join(known).encode())
        return CountReply(
            now_ms=shared.now_ms, epoch=epoch, replicas=replicas, counted=counted, totals=totals
        )

    async def aclose(self) -> None:
        """Nothing to close."""


class Replicas:
    """Replicas over one shared count, on a clock set by hand."""

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
        """Starts each, and lets it hear of the others."""
        for limiter in self.limiters:
            await limiter.start()
        await self.pulse()

    async def pass_by(self, seconds: int) -> None:
        """Lets time go by, and each be heard of meanwhile."""
        for _ in range(seconds):
            self.counts.now_ms += 1000
            await self.pulse()

    async def aclose(self) -> None:
        for limiter in self.limiters:
            await limiter.aclose()

    async def let_in_of(self, replica: int, limited: LimitKey, times: int = 30) -> int:
        """How many of so many requests are let in."""
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
        """Settles what was last let in, if that is less."""
        if self.last and tokens < self.last[1].tokens:
            limiter, reservation = self.last
            limiter.settle(reservation, tokens=tokens)
            self.let_in[-1] = (self.let_in[-1][0], tokens)
            self.last = None


def test_what_is_known_of_replicas_that_are_no_more() -> None:
    """Replicas that came after others tell what those counted, should the shared count forget."""

    async def run() -> None:
        first, limited = Replicas(2, per="minute"), meter(40, per="minute")
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
    """Whatever happens to the shared count, replicas that use it never let in more in a stretch."""

    async def run() -> Replicas:
        replicas = Replicas(3, per=per)
        await replicas.start()
        limited = meter(amount, of="tokens", per=per)
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
    """Lets each replica hear of what the others counted, as one does that is asked all the time."""
    for limiter in replicas.limiters:
        if not replicas.counts.away and limiter.shared:
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
    """Alone, each of two lets in half of the limit, less its part of what was used."""

    async def run() -> None:
        replicas, limited = Replicas(2), meter(amount, of="tokens")
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
    """What was used before the shared count went away leaves after its length, as ever."""

    async def run() -> None:
        replicas, limited = Replicas(2), meter(10)
        await replicas.start()
        assert await replicas.let_in_of(0, limited) == 10
        replicas.counts.away = True
        await replicas.pass_by(59)
        assert await replicas.let_in_of(0, limited) == 0
        await replicas.pass_by(1)
        assert await replicas.let_in_of(0, limited) == 5
        await replicas.aclose()

    asyncio.run(run())


def test_nobody_waits_for_what_is_away() -> None:
    """Only one request and then the pulse ask a shared count that is away."""

    async def run() -> None:
        replicas, limited = Replicas(1), meter(100)
        await replicas.start()
        replicas.counts.away = True
        asked = replicas.counts.asked
        await replicas.let_in_of(0, limited, 50)
        assert replicas.counts.asked == asked + 1
        await replicas.pass_by(3)
        assert replicas.counts.asked == asked + 4
        await replicas.aclose()

    asyncio.run(run())


def test_told_when_it_is_back() -> None:
    """What each let in alone counts for all once the shared count is back, if it forgot or not."""

    async def run() -> None:
        replicas, limited = Replicas(2), meter(20)
        await replicas.start()
        assert await replicas.let_in_of(0, limited, 3) == 3
        assert await replicas.let_in_of(1, limited, 2) == 2
        replicas.counts.away = True
        assert await replicas.let_in_of(0, limited, 4) == 4
        replicas.counts.forget()
        replicas.counts.away = False
        await replicas.pass_by(3)
        assert [each.shared for each in replicas.limiters] == [True, True]
        assert await replicas.let_in_of(1, limited) == 11
        await replicas.aclose()

    asyncio.run(run())


def test_replica_that_is_gone() -> None:
    """A replica that was not heard of for a while has no share."""

    async def run() -> None:
        replicas, limited = Replicas(2), meter(10)
        await replicas.start()
        del replicas.limiters[1]
        await replicas.pass_by(12)
        replicas.counts.away = True
        assert await replicas.let_in_of(0, limited) == 10
        await replicas.aclose()

    asyncio.run(run())


def test_larger_than_a_share() -> None:
    """What is more than a share but not than the limit is told to come back, not to be smaller."""

    async def run() -> None:
        replicas, limited = Replicas(2), meter(10, of="tokens")
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
    """Two replicas over one Redis that are asked for more than is allowed, all the time."""

    AMOUNT = 60

    def __init__(self, url: str) -> None:
        self.told: list[list[str | None]] = [[], []]
        self.limiters = [
            SharedRateLimiter(RedisCounts(url), on_away=told.append) for told in self.told
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
        limiter, limited = self.limiters[replica], meter(self.AMOUNT, per="second")
        while True:
            try:
                reservation = await limiter.reserve([limited], tokens=1)
            except RateLimitExceeded:
                await asyncio.sleep(0.005)
                continue
            self.let_in.append((reservation.at_ms, 1))
            self.alone[replica] += not limiter.shared

    async def until(self, *, shared: bool) -> None:
        """Waits until both replicas count together, or neither does."""
        while any(each.shared != shared for each in self.limiters):
            self.alive()
            await asyncio.sleep(0.02)

    def alive(self) -> None:
        """Fails if a request failed."""
        for task in self._pressing:
            if task.done():
                task.result()

    def most(self) -> int:
        """That was let in in any second."""
        self.alive()
        return most(sorted(self.let_in), 1000)


def test_two_replicas(redis_url: str) -> None:
    """Two replicas under pressure let in no more than the limit in any stretch, and all of it."""

    async def run() -> None:
        async with Pressure(redis_url) as pressure:
            await asyncio.sleep(3)
            assert pressure.most() <= pressure.AMOUNT
            assert len(pressure.let_in) >= 0.95 * 3 * pressure.AMOUNT
            assert not pressure.alone.total(), pressure.told

    asyncio.run(run())


def test_redis_comes_and_goes(redis: Redis) -> None:
    """Killed, started with nothing and paused: no request fails, and limits hold within 5%."""

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
            for told in pressure.told:
                assert [reason is None for reason in told] == [True, False, True, False, True]

    asyncio.run(run())


def test_redis_is_not_there() -> None:
    """Without a Redis from the start a process counts for itself, and requests are answered."""

    async def run() -> None:
        told: list[str | None] = []
        limiter = SharedRateLimiter(RedisCounts("redis://127.0.0.1:9/0"), on_away=told.append)
        await limiter.start()
        for _ in range(3):
            await limiter.reserve([meter(3)], tokens=1)
        with pytest.raises(RateLimitExceeded):
            await limiter.reserve([meter(3)], tokens=1)
        await limiter.aclose()
        assert len(told) == 1 and told[0] and "ConnectionError" in told[0]

    asyncio.run(run())


def test_redis_refuses(redis: Redis) -> None:
    """A Redis that has no memory left is as one that is away."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis.url))
        await limiter.start()
        await limiter.reserve([meter(2)], tokens=1)
        redis.say(b"CONFIG SET maxmemory 1\r\n")
        await limiter.reserve([meter(2)], tokens=1)
        assert not limiter.shared
        with pytest.raises(RateLimitExceeded):
            await limiter.reserve([meter(2)], tokens=1)
        await limiter.aclose()

    asyncio.run(run())


def test_keys(redis: Redis) -> None:
    """All that is in Redis is under one prefix, in one hash slot, expires, and names nobody."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis.url))
        await limiter.start()
        user = Subject(kind="end user", id="ann@example.com", project_id="proj_x")
        await limiter.reserve([meter(2), meter(2, of="tokens", per="day", whose=user)], tokens=1)
        keys = redis.say(b"KEYS *\r\n").decode().split("\r\n")[2:-1:2]
        assert len(keys) == 4
        for key in keys:
            assert key.startswith("embedway:{limits}:") and "ann" not in key
            assert int(redis.say(f"TTL {key}\r\n".encode())[1:]) > 0
        redis.say(b"SCRIPT FLUSH\r\n")
        await limiter.reserve([meter(2)], tokens=1)
        assert limiter.shared
        await limiter.aclose()

    asyncio.run(run())


def test_clock_of_redis_is_set_back(redis: Redis) -> None:
    """Time goes on from where it was, and limits with it, when the clock of Redis is set back."""

    async def run() -> None:
        limiter, limited = SharedRateLimiter(RedisCounts(redis.url)), meter(2, per="second")
        await limiter.start()
        before = await limiter.reserve([limited], tokens=1)
        # What Redis takes for the last time is an hour from now: as if it had been set back since.
        later_ms = before.at_ms + 3_600_000
        redis.say(b"HSET embedway:{limits}:clock now %d\r\n" % later_ms)
        after = await limiter.reserve([limited, meter(9)], tokens=1)
        assert after.at_ms == later_ms
        await limiter.reserve([limited], tokens=1)
        with pytest.raises(RateLimitExceeded) as refused:
            await limiter.reserve([limited], tokens=1)
        await asyncio.sleep(int(refused.value.headers["retry-after-ms"]) / 1000)
        assert (await limiter.reserve([limited], tokens=1)).at_ms > later_ms
        assert limiter.shared
        await limiter.aclose()

    asyncio.run(run())


def test_cancelled(redis_url: str) -> None:
    """A request that is given up while it is counted disturbs no other."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis_url))
        await limiter.start()
        for wait_s in (0, 0, 0.0001, 0.0003, 0.0005, 0.001):
            asking = asyncio.create_task(limiter.reserve([meter(1000)], tokens=1))
            await asyncio.sleep(wait_s)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            standing = (await limiter.reserve([meter(1000)], tokens=1)).statuses[0]
            assert 980 < standing.remaining < 1000
        assert limiter.shared
        await limiter.aclose()

    asyncio.run(run())


def test_busy_process(redis_url: str) -> None:
    """A process that is late itself, or has a crowd at once, does not take Redis for away."""

    async def run() -> None:
        limiter = SharedRateLimiter(RedisCounts(redis_url))
        await limiter.start()
        asking = asyncio.create_task(limiter.reserve([meter(2000)], tokens=1))
        await asyncio.sleep(0.0002)
        time.sleep(0.2)  # as a long computation would
        await asking
        await asyncio.gather(*(limiter.reserve([meter(2000)], tokens=1) for _ in range(600)))
        assert limiter.shared
        await limiter.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "127.0.0.1:6379"])
def test_no_redis_url(url: str) -> None:
    """What is no URL of a Redis is refused at once."""
    with pytest.raises(ValueError):
        RedisCounts(url)
