"""Rate limits: no period exceeds them, and a client that waits as told succeeds."""

import asyncio
import os
import re
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.core.errors import RateLimitExceeded, ServiceOverloaded, TokenRateLimitExceeded
from embedway.core.limit import SECONDS, SLOT_MS, Limit, LimitPeriod, LimitUnit
from embedway.core.subject import Subject
from embedway.ratelimits.headers import format_duration, rate_limit_headers
from embedway.ratelimits.limiter import LimitKey, LimitReservation, LimitStatus, RateLimiter
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.ratelimits.redis_counts import RedisCounts
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.ratelimits.shared_windows import create_memory
from embedway.ratelimits.window import SlidingWindow
from embedway.ratelimits.workers import WorkersRateLimiter

PERS: Sequence[LimitPeriod] = get_args(LimitPeriod)
KEY = Subject(kind="key", id="key_x", project_id="proj_x")
PROJECT = Subject(kind="project", id="proj_x", project_id="proj_x")
START_MS = 1_700_000_000_000


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def limit_key(
    amount: int, *, of: LimitUnit = "requests", per: LimitPeriod = "minute", subject: Subject = KEY
) -> LimitKey:
    return LimitKey(subject=subject, limit=Limit(of=of, amount=amount, per=per))


class Alone:
    """A limiter without Redis, on a clock set by hand."""

    shares_memory = False

    def __init__(self, **options: Any) -> None:
        self.clock = Hands()
        make = limiter_of_workers if self.shares_memory else MemoryRateLimiter
        self.limiter = make(now_ms=self.clock, **options)

    def reserve(self, *limit_keys: LimitKey, tokens: int = 1) -> LimitReservation:
        return at_once(self.limiter.reserve(limit_keys, tokens=tokens))

    def lets_in(self, *limit_keys: LimitKey, tokens: int = 1) -> bool:
        try:
            self.reserve(*limit_keys, tokens=tokens)
        except RateLimitExceeded:
            return False
        return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of `Alone` with the limiter of one process, and with that of workers."""
    test = metafunc.function
    test = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test
    if "Alone" in test.__code__.co_names:
        metafunc.parametrize("kind", ["one process", "workers"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Choose the limiter of `Alone`."""
    Alone.shares_memory = getattr(request, "param", "") == "workers"
    yield
    Alone.shares_memory = False


def limiter_of_workers(**options: Any) -> WorkersRateLimiter:
    """Return a limiter in new memory."""
    memory = create_memory()
    limiter = WorkersRateLimiter(memory, **options)
    weakref.finalize(limiter, os.close, memory)
    return limiter


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError


def most(let_in: Sequence[tuple[int, int]], length_ms: int) -> int:
    """Return the most that was let in in any `length_ms`."""
    best = total = first = 0
    for at_ms, amount in let_in:
        total += amount
        while at_ms - let_in[first][0] >= length_ms:
            total -= let_in[first][1]
            first += 1
        best = max(best, total)
    return best


# The window, on a clock set by hand.

STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 200), st.integers(0, 4_000), st.integers(0, 90_000)),
        st.integers(1, 12),
    ),
    min_size=1,
    max_size=150,
)


@given(steps=STEPS, amount=st.integers(1, 30), per=st.sampled_from(("second", "minute")))
def test_any_stretch(steps: Sequence[tuple[int, int]], amount: int, per: LimitPeriod) -> None:
    """Whatever is requested and when, no period exceeds the limit."""
    alone, let_in = Alone(), []
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        if alone.lets_in(limit_key(amount, of="tokens", per=per), tokens=tokens):
            let_in.append((alone.clock.now_ms, tokens))
    assert most(let_in, SECONDS[per] * 1000) <= amount


@given(steps=STEPS, amount=st.integers(1, 30))
def test_room_comes_back_a_slot_late_at_most(steps: Sequence[tuple[int, int]], amount: int) -> None:
    """A request is refused only if a period plus one slot would exceed the limit."""
    alone, let_in = Alone(), []
    for step_ms, asked in steps:
        alone.clock.now_ms += step_ms
        now_ms, tokens = alone.clock.now_ms, min(asked, amount)
        if alone.lets_in(limit_key(amount, of="tokens"), tokens=tokens):
            let_in.append((now_ms, tokens))
        else:
            since_ms = now_ms - 60_000 - SLOT_MS["minute"]
            assert sum(each for at, each in let_in if at > since_ms) + tokens > amount


@pytest.mark.parametrize("per", PERS)
def test_full_use(per: LimitPeriod) -> None:
    """A client that takes all it can gets at least 95% of the limit over time."""
    alone, step_ms, taken = Alone(), SLOT_MS[per] // 5, 0
    for _ in range(20 * 5 * 21):
        alone.clock.now_ms += step_ms
        while alone.lets_in(limit_key(100, per=per)):
            taken += 1
    assert taken >= 20 * 100


@given(
    steps=st.lists(st.tuples(st.integers(-900, 3000), st.integers(1, 9)), max_size=150),
    amount=st.integers(1, 30),
)
def test_clock_goes_back_a_little(steps: Sequence[tuple[int, int]], amount: int) -> None:
    """While a clock is behind its latest time, no time passes."""
    alone, let_in = Alone(), []
    alone.limiter.check([], tokens=1)
    latest_ms = START_MS
    for step_ms, tokens in steps:
        alone.clock.now_ms = max(alone.clock.now_ms + step_ms, latest_ms - 1000)
        latest_ms = max(latest_ms, alone.clock.now_ms)
        if alone.lets_in(limit_key(amount, of="tokens", per="second"), tokens=tokens):
            let_in.append((latest_ms, tokens))
    assert most(let_in, 1000) <= amount


@given(
    steps=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3000), st.integers(-(10**11), -1001)), st.integers(1, 9)
        ),
        max_size=150,
    ),
    amount=st.integers(1, 30),
)
def test_clock_is_set_back(steps: Sequence[tuple[int, int]], amount: int) -> None:
    """After the clock is set back, counts stay and no client waits longer."""
    alone, let_in = Alone(), []
    alone.limiter.check([], tokens=1)
    passed_ms = 0
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        passed_ms += max(step_ms, 0)
        if alone.lets_in(limit_key(amount, of="tokens", per="second"), tokens=tokens):
            let_in.append((passed_ms, tokens))
    assert most(let_in, 1000) <= amount
    alone.clock.now_ms += 1050
    assert alone.lets_in(limit_key(amount, of="tokens", per="second"), tokens=amount)


LIMIT_KEYS = st.lists(
    st.builds(
        limit_key,
        st.integers(1, 20),
        of=st.sampled_from(get_args(LimitUnit)),
        per=st.sampled_from(PERS),
        subject=st.sampled_from((KEY, PROJECT)),
    ),
    min_size=1,
    max_size=5,
)


@given(limit_keys=LIMIT_KEYS, steps=STEPS, last=st.integers(1, 20))
def test_wait_is_as_told(
    limit_keys: list[LimitKey], steps: Sequence[tuple[int, int]], last: int
) -> None:
    """A client that waits as told succeeds, and one that waits less is refused again."""
    alone = Alone()
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        alone.lets_in(*limit_keys, tokens=tokens)
    tokens = min([last, *(each.limit.amount for each in limit_keys if each.limit.of == "tokens")])
    if alone.lets_in(*limit_keys, tokens=tokens):
        return
    with pytest.raises(RateLimitExceeded) as refused:
        alone.reserve(*limit_keys, tokens=tokens)
    told_ms = int(refused.value.headers["retry-after-ms"])
    assert int(refused.value.headers["retry-after"]) * 1000 >= told_ms
    if all(each.limit.per in {"second", "minute"} for each in limit_keys):
        assert told_ms <= 59_999  # OpenAI's JavaScript client 4 and the AI SDK ignore 60,000
    # The announced wait is at most a tenth longer, and at least a quarter of a second.
    less_ms = int(told_ms / 1.1) - 1 if told_ms > 280 else 0
    alone.clock.now_ms += less_ms
    assert not alone.lets_in(*limit_keys, tokens=tokens)
    # The last of 60,000 ms passes on the way to the client and back.
    alone.clock.now_ms += told_ms - less_ms + (told_ms == 59_999)
    assert alone.lets_in(*limit_keys, tokens=tokens)


def test_wait_before_tokens_are_counted() -> None:
    """A client refused before its tokens are counted waits until the most it may have fits."""
    alone, limited = Alone(), limit_key(100, of="tokens")
    for tokens in (50, 50):
        alone.reserve(limited, tokens=tokens)
        alone.clock.now_ms += 6000
    with pytest.raises(TokenRateLimitExceeded) as refused:
        alone.limiter.check([limited], tokens=1, max_tokens=80)
    alone.clock.now_ms += int(refused.value.headers["retry-after-ms"])
    assert alone.lets_in(limited, tokens=80)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 90_000), st.integers(0, 12), st.integers(0, 12)), max_size=60
    )
)
def test_settled(steps: Sequence[tuple[int, int, int]]) -> None:
    """Settled tokens count from the time of the reservation, and never below 0."""
    alone, limited = Alone(), limit_key(40, of="tokens")
    settled: list[tuple[int, int]] = []
    last_ms: dict[int, int] = {}  # by slot
    for step_ms, reserved, used in steps:
        alone.clock.now_ms += step_ms
        try:
            reservation = alone.reserve(limited, tokens=reserved)
        except RateLimitExceeded:
            continue
        slot = alone.clock.now_ms // SLOT_MS["minute"]
        last_ms[slot] = alone.clock.now_ms
        alone.clock.now_ms += step_ms
        alone.limiter.settle(reservation, tokens=used)
        settled.append((slot, used))
        now_ms = alone.clock.now_ms
        left = 40 - sum(used for slot, used in settled if now_ms - last_ms[slot] < 60_000)
        probe = alone.reserve(limited, tokens=0)
        last_ms[now_ms // SLOT_MS["minute"]] = now_ms
        assert probe.statuses[0].remaining == max(left, 0)


def test_settled_long_after() -> None:
    """Settling after the slot has expired changes nothing."""
    alone, limited = Alone(), limit_key(10, of="tokens")
    reservation = alone.reserve(limited, tokens=10)
    alone.clock.now_ms += 63_000
    alone.reserve(limited, tokens=4)
    alone.limiter.settle(reservation, tokens=0)
    assert alone.reserve(limited, tokens=6).statuses[0].remaining == 0


@pytest.fixture(params=["memory", "workers", "redis"])
def small(request: pytest.FixtureRequest) -> Iterator["Runner"]:
    """A limiter of each kind that keeps 50 windows of end users."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with asyncio.Runner() as loop:
        shared = SharedRateLimiter(RedisCounts(url), max_windows=50) if url else None
        if shared:
            loop.run(shared.start())
        alone = limiter_of_workers if request.param == "workers" else MemoryRateLimiter
        yield Runner(shared or alone(max_windows=50), loop)
        if shared:
            loop.run(shared.aclose())


def user(number: int, project_id: str = "proj_x") -> Subject:
    return Subject(kind="end user", id=str(number), project_id=project_id)


def test_windows_in_use_are_kept(small: "Runner") -> None:
    """A crowd of end users finds no room at last; what others used still counts."""
    key, ann = limit_key(3, per="day"), limit_key(3, per="day", subject=user(-1))
    small.reserve(key, ann)
    for number in range(49):
        small.reserve(limit_key(3, per="day", subject=user(number)))
    with pytest.raises(
        ServiceOverloaded, match="project proj_x has sent so many different end users"
    ):
        small.reserve(limit_key(3, per="day", subject=user(50)))
    assert small.reserve(key, ann).statuses[0].remaining == 1
    small.reserve(key)
    small.refusal(key)
    small.reserve(ann)
    small.refusal(ann)


def test_crowd_of_one_project(small: "Runner") -> None:
    """While one project's end users take all room, other projects still get their part."""
    for number in range(50):
        small.reserve(limit_key(3, per="day", subject=user(number)))
    for number in range(25):
        small.reserve(limit_key(3, per="day", subject=user(number, "proj_y")))
    for project_id in ("proj_x", "proj_y"):
        with pytest.raises(ServiceOverloaded):
            small.reserve(limit_key(3, per="day", subject=user(100, project_id)))


def test_room_comes_back() -> None:
    """End users who sent nothing for a period make room for others."""
    alone = Alone(max_windows=50)
    for number in range(500):
        alone.clock.now_ms += 3000
        alone.reserve(limit_key(2, subject=user(number)), limit_key(10**6))
        assert alone.limiter.window_count <= 51


def test_idle_windows_are_dropped() -> None:
    """Windows unused for a period are dropped as others are added."""
    alone = Alone()
    for number in range(100):
        user = Subject(kind="end user", id=str(number), project_id="proj_x")
        alone.reserve(limit_key(2, subject=user), limit_key(2, per="second", subject=user))
        alone.reserve(limit_key(10**6, per="day"))
    for _ in range(120):
        alone.clock.now_ms += 63_000
        alone.reserve(limit_key(1, subject=Subject(kind="key", id=str(_), project_id="proj_x")))
    assert alone.limiter.window_count <= 3
    assert alone.reserve(limit_key(101, per="day")).statuses[0].remaining == 0


def test_refused_end_users_are_not_kept() -> None:
    """A flood of refused requests with made-up end users takes no memory."""
    alone = Alone()
    alone.reserve(limit_key(1))
    for number in range(100):
        user = Subject(kind="end user", id=str(number), project_id="proj_x")
        assert not alone.lets_in(limit_key(5, subject=user), limit_key(1))
    assert alone.limiter.window_count == 1


def test_another_amount() -> None:
    """A changed limit keeps what was used."""
    alone = Alone()
    for _ in range(5):
        alone.reserve(limit_key(10))
    assert not alone.lets_in(limit_key(5))
    assert alone.lets_in(limit_key(6))


# Every limiter, in real time.


@pytest.fixture(params=["memory", "workers", "redis"])
def limits(request: pytest.FixtureRequest) -> Iterator["Runner"]:
    """A limiter of each kind, with nothing counted."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with asyncio.Runner() as loop:
        shared = SharedRateLimiter(RedisCounts(url)) if url else None
        if shared:
            loop.run(shared.start())
            assert shared.is_shared
        alone = limiter_of_workers if request.param == "workers" else MemoryRateLimiter
        yield Runner(shared or alone(), loop)
        if shared:
            assert shared.is_shared, "limits were not counted together all the time"
            loop.run(shared.aclose())


class Runner:
    """Calls a limiter."""

    def __init__(self, limiter: RateLimiter, loop: asyncio.Runner) -> None:
        self.limiter = limiter
        self.run = loop.run

    def reserve(self, *limit_keys: LimitKey, tokens: int = 1) -> LimitReservation:
        return self.run(self.limiter.reserve(limit_keys, tokens=tokens))

    def refusal(self, *limit_keys: LimitKey, tokens: int = 1) -> RateLimitExceeded:
        with pytest.raises(RateLimitExceeded) as refused:
            self.reserve(*limit_keys, tokens=tokens)
        return refused.value

    def settled(self, limited: LimitKey, left: int) -> None:
        """Wait until `left` is remaining: corrections are sent in the background."""
        for _ in range(1000):
            if self.remaining(limited) == [left]:
                return
            self.run(asyncio.sleep(0.001))
        assert self.remaining(limited) == [left]

    def remaining(self, *limit_keys: LimitKey) -> list[int]:
        """Return what remains of token limits."""
        return [each.remaining for each in self.reserve(*limit_keys, tokens=0).statuses]


def test_all_or_none(limits: Runner) -> None:
    """A request that one limit has no room for is counted against none."""
    wide, narrow = limit_key(9, of="tokens", subject=PROJECT), limit_key(5, of="tokens")
    limits.reserve(wide, narrow, tokens=4)
    for _ in range(3):
        limits.refusal(wide, narrow, tokens=2)
    assert limits.remaining(wide, narrow) == [5, 1]


def test_limit_statuses(limits: Runner) -> None:
    """A reservation gives the status of each limit after counting it."""
    limit_keys = (limit_key(5), limit_key(100, of="tokens", per="day"))
    limits.reserve(*limit_keys, tokens=30)
    statuses = limits.reserve(*limit_keys, tokens=7).statuses
    assert [each.remaining for each in statuses] == [3, 63]
    assert [each.limit for each in statuses] == [each.limit for each in limit_keys]
    assert [each.reset_s for each in statuses] == [60, 86_400]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (KEY, "The key key_x"),
        (PROJECT, "The project proj_x"),
        (Subject(kind="end user", id="Ann\n", project_id="proj_x"), r'The end user "Ann\n"'),
    ],
)
def test_refused_for_requests(limits: Runner, subject: Subject, name: str) -> None:
    """A refusal says whose limit it was, what it is, and when to retry."""
    limits.reserve(limit_key(1, subject=subject))
    refused = limits.refusal(limit_key(1, subject=subject), limit_key(100, of="tokens"), tokens=3)
    assert re.fullmatch(
        re.escape(name)
        + r" may send 1 request per minute, and has used them all\. Try again in [\d.]+ s\.",
        refused.message,
    )
    assert (refused.status, refused.type, refused.code) == (429, "requests", "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    told = {name: value for name, value in refused.headers.items() if "ratelimit" in name}
    assert re.fullmatch(r"1m0s|[\d.]+s", told.pop("x-ratelimit-reset-requests"))
    assert told == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "0s",
    }


def test_longest_wait():
    """Even if another replica's clock is ahead, no client waits longer than a period."""
    window = SlidingWindow("minute")
    window.put(20, 1, last_ms=60_900)
    assert window.wait_ms(1, amount=1, now_ms=60_000) == 60_000


def test_refused_for_tokens(limits: Runner) -> None:
    """A refusal for tokens has its own type, and says what is left."""
    limits.reserve(limit_key(10, of="tokens"), tokens=7)
    refused = limits.refusal(limit_key(10, of="tokens"), limit_key(1), tokens=4)
    assert "may send 10 tokens per minute, and has 3 left, too few" in refused.message
    assert refused.type == "tokens"


def test_larger_than_the_limit(limits: Runner) -> None:
    """A request larger than a whole limit is told to send less, not to wait."""
    for refuse in (limits.refusal, check):
        refused = (
            refuse(limits, tokens=11)
            if refuse is check
            else limits.refusal(limit_key(10, of="tokens"), tokens=11)
        )
        assert "alone has more. Send fewer items." in refused.message
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers


def check(limits: Runner, *, tokens: int) -> RateLimitExceeded:
    with pytest.raises(RateLimitExceeded) as refused:
        limits.limiter.check([limit_key(10, of="tokens")], tokens=tokens)
    return refused.value


def test_check(limits: Runner) -> None:
    """`check` repeats a refusal without I/O, and lets in what has room."""
    limited = limit_key(10, of="tokens")
    limits.reserve(limited, tokens=8)
    limits.limiter.check([limited], tokens=2)
    limits.refusal(limited, tokens=5)
    limits.limiter.check([limited], tokens=2)
    assert check(limits, tokens=3).headers["x-ratelimit-remaining-tokens"] == "2"
    assert limits.remaining(limited) == [2]


async def settle(limiter: RateLimiter, reservation: LimitReservation, *, tokens: int) -> None:
    """Settle on the event loop, which the shared limiter needs."""
    limiter.settle(reservation, tokens=tokens)


def test_settle(limits: Runner) -> None:
    """Tokens reserved but not used are free at once in the same process."""
    limited = limit_key(10, of="tokens")
    reservation = limits.reserve(limited, limit_key(5), tokens=10)
    limits.refusal(limited, tokens=5)
    limits.run(settle(limits.limiter, reservation, tokens=4))
    limits.limiter.check([limited], tokens=6)
    limits.settled(limited, 6)
    used_more = limits.reserve(limited, limit_key(5), tokens=2)
    limits.run(settle(limits.limiter, used_more, tokens=5))
    limits.settled(limited, 1)
    assert limits.reserve(limit_key(5)).statuses[0].remaining == 2


def test_same_limit_twice(limits: Runner) -> None:
    """Two limits that differ only in amount both hold, and each request counts once."""
    twice = (limit_key(3), limit_key(2))
    limits.reserve(*twice)
    limits.reserve(*twice)
    limits.refusal(*twice)
    assert limits.reserve(limit_key(3)).statuses[0].remaining == 0


@pytest.mark.parametrize(
    "id", ["a b", "a:b", "a\0b", "{x}", "*", "ü\u2028", "\ud800", "a" * 100_000, "1=2,3=4"]
)
def test_odd_names(limits: Runner, id: str) -> None:
    """An end user's id may hold any characters."""
    user, other = (Subject(kind="end user", id=each, project_id="p") for each in (id, f"{id}."))
    limits.reserve(limit_key(1, subject=user))
    limits.reserve(limit_key(1, subject=other))
    limits.refusal(limit_key(1, subject=user))
    elsewhere = Subject(kind="end user", id=id, project_id="q")
    limits.reserve(limit_key(1, subject=elsewhere))


def test_large_amounts(limits: Runner) -> None:
    """The largest possible limit is counted to the last token."""
    limited = limit_key(10**15, of="tokens", per="day")
    limits.reserve(limited, tokens=10**15 - 1)
    assert limits.reserve(limited, tokens=1).statuses[0].remaining == 0
    limits.refusal(limited, tokens=1)


def test_client_waits(limits: Runner) -> None:
    """A client that waits as told succeeds."""
    limited = limit_key(5, per="second")
    for _ in range(5):
        limits.reserve(limited)
    refused = limits.refusal(limited)
    limits.run(asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000))
    limits.reserve(limited)


def test_many_at_once(limits: Runner) -> None:
    """Of many requests at once, exactly as many are let in as there is room for."""

    async def all_at_once() -> list[Any]:
        asked = (
            limits.limiter.reserve([limit_key(20), limit_key(90)], tokens=1) for _ in range(60)
        )
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = limits.run(all_at_once())
    assert sum(isinstance(each, LimitReservation) for each in answers) == 20
    assert sum(isinstance(each, RateLimitExceeded) for each in answers) == 40


# The headers.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.12, "120ms"), (0.0001, "1ms"), (0.9999, "1s"), (1, "1s"), (1.5, "1.5s"),
        (59.9999, "1m0s"), (60, "1m0s"), (360, "6m0s"), (62.25, "1m2.25s"), (3600, "1h0m0s"),
        (90_061.001, "25h1m1.001s"), (0.1 + 0.2, "300ms"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    """Durations are written as in Go, rounded up to milliseconds."""
    assert format_duration(seconds) == text


@given(seconds=st.floats(0, 100_000))
def test_duration_is_never_too_short(seconds: float) -> None:
    """A written duration is never shorter than the real one."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    found = re.findall(r"([\d.]+)(ms|h|m|s)", format_duration(seconds))
    read = sum(float(number) * units[unit] for number, unit in found)
    assert seconds - 1e-6 <= read <= seconds + 0.0011


def test_tightest() -> None:
    """Headers describe the tightest request limit and the tightest token limit."""
    statuses = [
        LimitStatus(limit=Limit(of="requests", amount=10, per="minute"), remaining=5, reset_s=60),
        LimitStatus(
            limit=Limit(of="requests", amount=1000, per="day"), remaining=400, reset_s=90_000
        ),
        LimitStatus(limit=Limit(of="tokens", amount=50, per="second"), remaining=50, reset_s=0),
    ]
    assert dict(rate_limit_headers(statuses)) == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "400",
        "x-ratelimit-reset-requests": "25h0m0s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "0s",
    }
    assert dict(rate_limit_headers(())) == {}
