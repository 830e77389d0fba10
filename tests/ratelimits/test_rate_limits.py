"""Limits: never more than allowed in any stretch, and a client that waits as told succeeds."""

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.core.errors import RateLimitExceeded, ServiceOverloaded, TokenRateLimitExceeded
from embedway.core.limit import SECONDS, SLOT_MS, Limit, LimitPeriod, LimitUnit
from embedway.core.subject import Subject
from embedway.ratelimits.headers import format_duration, rate_limit_headers
from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.limiter import LimitReservation, RateLimiter
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.ratelimits.redis_counts import RedisCounts
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.ratelimits.status import LimitStatus
from embedway.ratelimits.window import SlidingWindow

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


def meter(
    amount: int, *, of: LimitUnit = "requests", per: LimitPeriod = "minute", whose: Subject = KEY
) -> LimitKey:
    return LimitKey(subject=whose, limit=Limit(of=of, amount=amount, per=per))


class Alone:
    """The limiter of one process under a clock set by hand, and all that it let in."""

    def __init__(self, **options: Any) -> None:
        self.clock = Hands()
        self.limiter = MemoryRateLimiter(now_ms=self.clock, **options)

    def reserve(self, *meters: LimitKey, tokens: int = 1) -> LimitReservation:
        return at_once(self.limiter.reserve(meters, tokens=tokens))

    def lets_in(self, *meters: LimitKey, tokens: int = 1) -> bool:
        try:
            self.reserve(*meters, tokens=tokens)
        except RateLimitExceeded:
            return False
        return True


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError


def most(let_in: Sequence[tuple[int, int]], length_ms: int) -> int:
    """The most that was let in in any stretch of so many milliseconds."""
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
    """Whatever is asked for and whenever, no stretch of the length has more than the limit."""
    alone, let_in = Alone(), []
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        if alone.lets_in(meter(amount, of="tokens", per=per), tokens=tokens):
            let_in.append((alone.clock.now_ms, tokens))
    assert most(let_in, SECONDS[per] * 1000) <= amount


@given(steps=STEPS, amount=st.integers(1, 30))
def test_room_comes_back_a_slot_late_at_most(steps: Sequence[tuple[int, int]], amount: int) -> None:
    """A request is refused only if a stretch that is a slot longer would have more than allowed."""
    alone, let_in = Alone(), []
    for step_ms, asked in steps:
        alone.clock.now_ms += step_ms
        now_ms, tokens = alone.clock.now_ms, min(asked, amount)
        if alone.lets_in(meter(amount, of="tokens"), tokens=tokens):
            let_in.append((now_ms, tokens))
        else:
            since_ms = now_ms - 60_000 - SLOT_MS["minute"]
            assert sum(each for at, each in let_in if at > since_ms) + tokens > amount


@pytest.mark.parametrize("per", PERS)
def test_full_use(per: LimitPeriod) -> None:
    """Who always takes what there is gets at least 95% of the limit over time."""
    alone, step_ms, taken = Alone(), SLOT_MS[per] // 5, 0
    for _ in range(20 * 5 * 21):
        alone.clock.now_ms += step_ms
        while alone.lets_in(meter(100, per=per)):
            taken += 1
    assert taken >= 20 * 100


@given(
    steps=st.lists(st.tuples(st.integers(-900, 3000), st.integers(1, 9)), max_size=150),
    amount=st.integers(1, 30),
)
def test_clock_goes_back_a_little(steps: Sequence[tuple[int, int]], amount: int) -> None:
    """While a clock is behind where it was, no time passes."""
    alone, let_in = Alone(), []
    alone.limiter.check([], tokens=1)
    latest_ms = START_MS
    for step_ms, tokens in steps:
        alone.clock.now_ms = max(alone.clock.now_ms + step_ms, latest_ms - 1000)
        latest_ms = max(latest_ms, alone.clock.now_ms)
        if alone.lets_in(meter(amount, of="tokens", per="second"), tokens=tokens):
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
    """A clock that is set back goes on from where it was: nothing is forgotten, nobody waits."""
    alone, let_in = Alone(), []
    alone.limiter.check([], tokens=1)
    passed_ms = 0
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        passed_ms += max(step_ms, 0)
        if alone.lets_in(meter(amount, of="tokens", per="second"), tokens=tokens):
            let_in.append((passed_ms, tokens))
    assert most(let_in, 1000) <= amount
    alone.clock.now_ms += 1050
    assert alone.lets_in(meter(amount, of="tokens", per="second"), tokens=amount)


METERS = st.lists(
    st.builds(
        meter,
        st.integers(1, 20),
        of=st.sampled_from(get_args(LimitUnit)),
        per=st.sampled_from(PERS),
        whose=st.sampled_from((KEY, PROJECT)),
    ),
    min_size=1,
    max_size=5,
)


@given(meters=METERS, steps=STEPS, last=st.integers(1, 20))
def test_wait_is_as_told(
    meters: list[LimitKey], steps: Sequence[tuple[int, int]], last: int
) -> None:
    """A client that waits as told succeeds, and one that waits less is refused again."""
    alone = Alone()
    for step_ms, tokens in steps:
        alone.clock.now_ms += step_ms
        alone.lets_in(*meters, tokens=tokens)
    tokens = min([last, *(each.limit.amount for each in meters if each.limit.of == "tokens")])
    if alone.lets_in(*meters, tokens=tokens):
        return
    with pytest.raises(RateLimitExceeded) as refused:
        alone.reserve(*meters, tokens=tokens)
    told_ms = int(refused.value.headers["retry-after-ms"])
    assert int(refused.value.headers["retry-after"]) * 1000 >= told_ms
    if all(each.limit.per in {"second", "minute"} for each in meters):
        assert told_ms <= 60_000
    # It is told a tenth more at most, and never less than a quarter of a second.
    less_ms = int(told_ms / 1.1) - 1 if told_ms > 280 else 0
    alone.clock.now_ms += less_ms
    assert not alone.lets_in(*meters, tokens=tokens)
    alone.clock.now_ms += told_ms - less_ms
    assert alone.lets_in(*meters, tokens=tokens)


def test_wait_of_whoever_counts_late() -> None:
    """Who is refused before its tokens are counted waits until all it may have has room."""
    alone, limited = Alone(), meter(100, of="tokens")
    for tokens in (50, 50):
        alone.reserve(limited, tokens=tokens)
        alone.clock.now_ms += 6000
    with pytest.raises(TokenRateLimitExceeded) as refused:
        alone.limiter.check([limited], tokens=1, at_most=80)
    alone.clock.now_ms += int(refused.value.headers["retry-after-ms"])
    assert alone.lets_in(limited, tokens=80)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 90_000), st.integers(0, 12), st.integers(0, 12)), max_size=60
    )
)
def test_settled(steps: Sequence[tuple[int, int, int]]) -> None:
    """What counts in the end is what was settled, from when it was reserved; never less than 0."""
    alone, limited = Alone(), meter(40, of="tokens")
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
    """What is settled after its slot has left changes nothing."""
    alone, limited = Alone(), meter(10, of="tokens")
    reservation = alone.reserve(limited, tokens=10)
    alone.clock.now_ms += 63_000
    alone.reserve(limited, tokens=4)
    alone.limiter.settle(reservation, tokens=0)
    assert alone.reserve(limited, tokens=6).statuses[0].remaining == 0


@pytest.fixture(params=["memory", "redis"])
def small(request: pytest.FixtureRequest) -> Iterator["Runner"]:
    """A limiter of either kind that keeps 50 windows of end users."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with asyncio.Runner() as loop:
        shared = SharedRateLimiter(RedisCounts(url), max_meters=50) if url else None
        if shared:
            loop.run(shared.start())
        yield Runner(shared or MemoryRateLimiter(max_meters=50), loop)
        if shared:
            loop.run(shared.aclose())


def user(number: int, project_id: str = "proj_x") -> Subject:
    return Subject(kind="end user", id=str(number), project_id=project_id)


def test_nothing_in_force_is_forgotten(small: "Runner") -> None:
    """A crowd of end users finds no room in the end; what others have used still counts."""
    key, ann = meter(3, per="day"), meter(3, per="day", whose=user(-1))
    small.reserve(key, ann)
    for number in range(49):
        small.reserve(meter(3, per="day", whose=user(number)))
    with pytest.raises(
        ServiceOverloaded, match="project proj_x has sent so many different end users"
    ):
        small.reserve(meter(3, per="day", whose=user(50)))
    assert small.reserve(key, ann).statuses[0].remaining == 1
    small.reserve(key)
    small.refusal(key)
    small.reserve(ann)
    small.refusal(ann)


def test_a_crowd_is_its_projects_own(small: "Runner") -> None:
    """While one project's end users take all room, those of others have their share of it."""
    for number in range(50):
        small.reserve(meter(3, per="day", whose=user(number)))
    for number in range(25):
        small.reserve(meter(3, per="day", whose=user(number, "proj_y")))
    for project_id in ("proj_x", "proj_y"):
        with pytest.raises(ServiceOverloaded):
            small.reserve(meter(3, per="day", whose=user(100, project_id)))


def test_room_comes_back() -> None:
    """End users who sent nothing for the length of their limit make room for others."""
    alone = Alone(max_meters=50)
    for number in range(500):
        alone.clock.now_ms += 3000
        alone.reserve(meter(2, whose=user(number)), meter(10**6))
        assert alone.limiter.key_count <= 51


def test_idle_meters_are_forgotten() -> None:
    """What nobody used for its length goes as others come."""
    alone = Alone()
    for number in range(100):
        user = Subject(kind="end user", id=str(number), project_id="proj_x")
        alone.reserve(meter(2, whose=user), meter(2, per="second", whose=user))
        alone.reserve(meter(10**6, per="day"))
    for _ in range(120):
        alone.clock.now_ms += 63_000
        alone.reserve(meter(1, whose=Subject(kind="key", id=str(_), project_id="proj_x")))
    assert alone.limiter.key_count <= 3
    assert alone.reserve(meter(101, per="day")).statuses[0].remaining == 0


def test_refused_end_users_are_not_kept() -> None:
    """A flood of refused requests with made-up end users takes no memory."""
    alone = Alone()
    alone.reserve(meter(1))
    for number in range(100):
        user = Subject(kind="end user", id=str(number), project_id="proj_x")
        assert not alone.lets_in(meter(5, whose=user), meter(1))
    assert alone.limiter.key_count == 1


def test_another_amount() -> None:
    """A limit that is changed goes on from what was used."""
    alone = Alone()
    for _ in range(5):
        alone.reserve(meter(10))
    assert not alone.lets_in(meter(5))
    assert alone.lets_in(meter(6))


# What holds of every limiter, also while time goes by.


@pytest.fixture(params=["memory", "redis"])
def limits(request: pytest.FixtureRequest) -> Iterator["Runner"]:
    """A limiter of either kind, with nothing counted."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with asyncio.Runner() as loop:
        shared = SharedRateLimiter(RedisCounts(url)) if url else None
        if shared:
            loop.run(shared.start())
            assert shared.shared
        yield Runner(shared or MemoryRateLimiter(), loop)
        if shared:
            assert shared.shared, "limits were not counted together all the time"
            loop.run(shared.aclose())


class Runner:
    """Calls a limiter."""

    def __init__(self, limiter: RateLimiter, loop: asyncio.Runner) -> None:
        self.limiter = limiter
        self.run = loop.run

    def reserve(self, *meters: LimitKey, tokens: int = 1) -> LimitReservation:
        return self.run(self.limiter.reserve(meters, tokens=tokens))

    def refusal(self, *meters: LimitKey, tokens: int = 1) -> RateLimitExceeded:
        with pytest.raises(RateLimitExceeded) as refused:
            self.reserve(*meters, tokens=tokens)
        return refused.value

    def settled(self, limited: LimitKey, left: int) -> None:
        """Waits until it is known everywhere what was settled, for it is told in the background."""
        for _ in range(1000):
            if self.remaining(limited) == [left]:
                return
            self.run(asyncio.sleep(0.001))
        assert self.remaining(limited) == [left]

    def remaining(self, *meters: LimitKey) -> list[int]:
        """What is left of limits of tokens."""
        return [each.remaining for each in self.reserve(*meters, tokens=0).statuses]


def test_all_or_none(limits: Runner) -> None:
    """A request that one meter has no room for is counted by none."""
    wide, narrow = meter(9, of="tokens", whose=PROJECT), meter(5, of="tokens")
    limits.reserve(wide, narrow, tokens=4)
    for _ in range(3):
        limits.refusal(wide, narrow, tokens=2)
    assert limits.remaining(wide, narrow) == [5, 1]


def test_standings(limits: Runner) -> None:
    """A reservation says how each limit stands, itself counted."""
    meters = (meter(5), meter(100, of="tokens", per="day"))
    limits.reserve(*meters, tokens=30)
    standings = limits.reserve(*meters, tokens=7).statuses
    assert [each.remaining for each in standings] == [3, 63]
    assert [each.limit for each in standings] == [each.limit for each in meters]
    assert [each.reset_s for each in standings] == [60, 86_400]


@pytest.mark.parametrize(
    ("whose", "name"),
    [
        (KEY, "The key key_x"),
        (PROJECT, "The project proj_x"),
        (Subject(kind="end user", id="Ann\n", project_id="proj_x"), r'The end user "Ann\n"'),
    ],
)
def test_refused_for_requests(limits: Runner, whose: Subject, name: str) -> None:
    """A refusal says whose limit it was, what it is, and when to try again."""
    limits.reserve(meter(1, whose=whose))
    refused = limits.refusal(meter(1, whose=whose), meter(100, of="tokens"), tokens=3)
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


def test_nobody_waits_longer_than_a_window_lasts():
    """A use that the clock of another replica puts in the future makes nobody wait for longer."""
    window = SlidingWindow("minute")
    window.put(20, 1, last_ms=60_900)
    assert window.wait_ms(1, amount=1, now_ms=60_000) == 60_000


def test_refused_for_tokens(limits: Runner) -> None:
    """A refusal for tokens is told from one for requests, and says what is left."""
    limits.reserve(meter(10, of="tokens"), tokens=7)
    refused = limits.refusal(meter(10, of="tokens"), meter(1), tokens=4)
    assert "may send 10 tokens per minute, and has 3 left, too few" in refused.message
    assert refused.type == "tokens"


def test_never(limits: Runner) -> None:
    """A request that alone has more than a limit is not told to wait but to be smaller."""
    for refuse in (limits.refusal, check):
        refused = (
            refuse(limits, tokens=11)
            if refuse is check
            else limits.refusal(meter(10, of="tokens"), tokens=11)
        )
        assert "alone has more. Send fewer items." in refused.message
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers


def check(limits: Runner, *, tokens: int) -> RateLimitExceeded:
    with pytest.raises(RateLimitExceeded) as refused:
        limits.limiter.check([meter(10, of="tokens")], tokens=tokens)
    return refused.value


def test_check(limits: Runner) -> None:
    """What was refused is refused again without any I/O, and what has room is not."""
    limited = meter(10, of="tokens")
    limits.reserve(limited, tokens=8)
    limits.limiter.check([limited], tokens=2)
    limits.refusal(limited, tokens=5)
    limits.limiter.check([limited], tokens=2)
    assert check(limits, tokens=3).headers["x-ratelimit-remaining-tokens"] == "2"
    assert limits.remaining(limited) == [2]


async def settle(limiter: RateLimiter, reservation: LimitReservation, *, tokens: int) -> None:
    """Settles on the event loop, which the shared limiter needs."""
    limiter.settle(reservation, tokens=tokens)


def test_settle(limits: Runner) -> None:
    """What was reserved beyond what was used can be had at once by the same process."""
    limited = meter(10, of="tokens")
    reservation = limits.reserve(limited, meter(5), tokens=10)
    limits.refusal(limited, tokens=5)
    limits.run(settle(limits.limiter, reservation, tokens=4))
    limits.limiter.check([limited], tokens=6)
    limits.settled(limited, 6)
    used_more = limits.reserve(limited, meter(5), tokens=2)
    limits.run(settle(limits.limiter, used_more, tokens=5))
    limits.settled(limited, 1)
    assert limits.reserve(meter(5)).statuses[0].remaining == 2


def test_same_limit_twice(limits: Runner) -> None:
    """Of two limits that differ in their amount alone, both hold and each use counts once."""
    twice = (meter(3), meter(2))
    limits.reserve(*twice)
    limits.reserve(*twice)
    limits.refusal(*twice)
    assert limits.reserve(meter(3)).statuses[0].remaining == 0


@pytest.mark.parametrize(
    "id", ["a b", "a:b", "a\0b", "{x}", "*", "ü\u2028", "\ud800", "a" * 100_000, "1=2,3=4"]
)
def test_odd_names(limits: Runner, id: str) -> None:
    """An end user's name is a name, whatever it is made of."""
    user, other = (Subject(kind="end user", id=each, project_id="p") for each in (id, f"{id}."))
    limits.reserve(meter(1, whose=user))
    limits.reserve(meter(1, whose=other))
    limits.refusal(meter(1, whose=user))
    elsewhere = Subject(kind="end user", id=id, project_id="q")
    limits.reserve(meter(1, whose=elsewhere))


def test_large_amounts(limits: Runner) -> None:
    """The largest limit that can be set is counted to the last token."""
    limited = meter(10**15, of="tokens", per="day")
    limits.reserve(limited, tokens=10**15 - 1)
    assert limits.reserve(limited, tokens=1).statuses[0].remaining == 0
    limits.refusal(limited, tokens=1)


def test_client_waits(limits: Runner) -> None:
    """A client that waits as told succeeds."""
    limited = meter(5, per="second")
    for _ in range(5):
        limits.reserve(limited)
    refused = limits.refusal(limited)
    limits.run(asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000))
    limits.reserve(limited)


def test_many_at_once(limits: Runner) -> None:
    """Of many requests at once exactly as many are let in as there is room for."""

    async def all_at_once() -> list[Any]:
        asked = (limits.limiter.reserve([meter(20), meter(90)], tokens=1) for _ in range(60))
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
    """Times are written as Go writes them, rounded up to milliseconds."""
    assert format_duration(seconds) == text


@given(seconds=st.floats(0, 100_000))
def test_duration_is_never_too_short(seconds: float) -> None:
    """Whoever waits as long as is written has waited long enough."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    found = re.findall(r"([\d.]+)(ms|h|m|s)", format_duration(seconds))
    read = sum(float(number) * units[unit] for number, unit in found)
    assert seconds - 1e-6 <= read <= seconds + 0.0011


def test_tightest() -> None:
    """Headers are of the limit that the smallest share is left of, of requests and of tokens."""
    standings = [
        LimitStatus(limit=Limit(of="requests", amount=10, per="minute"), remaining=5, reset_s=60),
        LimitStatus(
            limit=Limit(of="requests", amount=1000, per="day"), remaining=400, reset_s=90_000
        ),
        LimitStatus(limit=Limit(of="tokens", amount=50, per="second"), remaining=50, reset_s=0),
    ]
    assert dict(rate_limit_headers(standings)) == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "400",
        "x-ratelimit-reset-requests": "25h0m0s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "0s",
    }
    assert dict(rate_limit_headers(())) == {}
