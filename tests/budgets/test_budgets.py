"""Budgets: never overspent by however many processes, and never held back for nobody."""

import asyncio
import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from servers import broken_commits
from sqlalchemy import Engine, event, func, insert, select
from writing import write

from embedway.budgets.alerts import EXHAUSTED
from embedway.budgets.enforcer import BudgetEnforcer
from embedway.budgets.hold_store import HOLD_MS, HoldStore
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import BudgetExceeded, CommitInDoubt, StorageUnavailable
from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger.ledger import Ledger
from embedway.storage import database
from embedway.storage.tables import holds, keys, usage_days

DAY_MS = 86_400_000
NOON = int(datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp() * 1000)  # a Wednesday
MIDNIGHT = NOON + DAY_MS // 2
KEY = Subject(kind="key", id="key_A", project_id="proj_A")
PROJECT = Subject(kind="project", id="proj_A", project_id="proj_A")
USER = Subject(kind="end user", id="ann/b", project_id="proj_A")


def budget(amount: int, per: str = "day", alerts: tuple[int, ...] = ()) -> Budget:
    return Budget(amount_nano_usd=amount, per=per, alerts=alerts)


def line(cost: int, at_ms: int, *, project: str = "proj_A", key: str = "key_A", user: str = ""):
    """What a request leaves in the ledger that was charged `cost`."""
    return UsageRecord(
        id=f"embd_{next(_numbers)}", at_ms=at_ms, request_id="r", project_id=project, key_id=key,
        on_behalf_of=None, user=user or None, metadata={}, model="m", provider="p", items=1,
        tokens=1, cost_nano_usd=cost, upstream_cost_nano_usd=cost, calls=1, failed_calls=0,
        latency_us=1, status=200,
    )  # fmt: skip


def charged(owed, cost: int, at_ms: int) -> UsageRecord:
    """The line of a request that is of these subjects and no others."""
    whose = {subject for subject, _ in owed}
    return line(
        cost,
        at_ms,
        project="proj_A" if whose & {PROJECT, USER} else "proj_other",
        key="key_A" if KEY in whose else "key_other",
        user="ann/b" if USER in whose else "",
    )


_numbers = itertools.count()


class Clock:
    """The time, as the test says."""

    def __init__(self, now_ms: int = NOON) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def pass_s(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


class Process:
    """A gateway's process, as far as budgets go."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.clock = clock
        self.alerts: list[tuple[int, int]] = []
        """Percents, and what was spent."""
        name = f"process-{next(_numbers)}"
        self.ledger = Ledger(engine, process=name, retry_s=0.1)
        self.holds = HoldStore(engine, process=name, now_ms=clock)
        self.budgets = BudgetEnforcer(
            self.holds,
            now_ms=clock,
            on_alert=lambda each: self.alerts.append((each.percent, each.spent_nano_usd)),
        )

    async def ask(self, owed, cost: int, *, spent: int | None = None, at_ms: int | None = None):
        """A request from its reservation to the ledger, as the pipeline does it."""
        at_ms = self.clock() if at_ms is None else at_ms
        await self.budgets.reserve(owed, cost_nano_usd=cost, at_ms=at_ms)
        await asyncio.sleep(0)
        await self.end(owed, cost, spent=cost if spent is None else spent, at_ms=at_ms)

    async def end(self, owed, cost: int, *, spent: int, at_ms: int) -> None:
        """The end of a request that was reserved."""
        subjects = [subject for subject, _ in owed]
        await write(self.ledger, [charged(owed, spent, at_ms)], holders=subjects)
        self.budgets.settle(owed, reserved_nano_usd=cost, spent_nano_usd=spent)

    async def rest(self) -> None:
        """Long enough for all that is idle to be given back."""
        for _ in range(3):
            self.clock.pass_s(2)
            await self.budgets.end_interval()

    def close(self) -> None:
        self.ledger.close()
        self.holds.close()


def again(engine: Engine) -> Engine:
    """The same database, as another process opens it."""
    url = engine.url
    sqlite = url.drivername == "sqlite"
    return database.connect(
        Path(url.database) if sqlite else url.render_as_string(hide_password=False)
    )


@asynccontextmanager
async def processes(engine: Engine, count: int = 2) -> AsyncIterator[list[Process]]:
    """Processes on one database and with one clock."""
    clock = Clock()
    engines = [again(engine) for _ in range(count)]
    started = [Process(each, clock) for each in engines]
    yield started
    for each, its in zip(started, engines, strict=True):
        await each.budgets.aclose()
        each.close()
        its.dispose()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A new SQLite database."""
    engine = database.connect(tmp_path / "budgets.db")
    yield engine
    engine.dispose()


def spent(engine: Engine, *, since_ms: int = 0, until_ms: int = 10**15) -> int:
    """What all lines from then till then charge."""
    days = usage_days.c
    with engine.connect() as connection:
        query = select(func.coalesce(func.sum(days.cost_nano_usd), 0))
        return int(connection.scalar(query.where(days.at_ms >= since_ms, days.at_ms < until_ms)))


def held(engine: Engine) -> int:
    """What all processes hold of all budgets."""
    with engine.connect() as connection:
        return int(connection.scalar(select(func.coalesce(func.sum(holds.c.amount_nano_usd), 0))))


async def refused(work) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as refusal:
        await work
    return refusal.value


def soon(refusal: BudgetExceeded) -> bool:
    return "retry-after" in refusal.headers


@given(st.sampled_from(["day", "week", "month"]), st.integers(0, 4 * 10**12))
def test_windows_follow_one_another(per: str, at_ms: int):
    """Each time is in one window; the next begins where it ends, at midnight UTC."""
    start, end = budget_window(per, at_ms)
    assert start <= at_ms < end
    assert budget_window(per, end)[0] == end
    assert budget_window(per, end - 1) == (start, end)
    first = datetime.fromtimestamp(start / 1000, UTC)
    assert start % DAY_MS == 0
    assert {"day": True, "week": first.weekday() == 0, "month": first.day == 1}[per]


async def use_up(process: Process, owed, cost: int, times: int) -> int:
    """How many of so many requests at once are answered, in the end."""

    async def one() -> int:
        for _ in range(200):
            try:
                await process.ask(owed, cost)
            except BudgetExceeded as refusal:
                if not soon(refusal):
                    return 0
                process.clock.pass_s(0.2)
                await process.budgets.end_interval()
            else:
                return 1
        return 0

    return sum(await asyncio.gather(*(one() for _ in range(times))))


def test_last_cent(any_database: Engine):
    """However many requests ask for the last cent at once, of two processes, it is spent once."""

    async def run() -> None:
        async with processes(any_database) as both:
            owed = [(KEY, (budget(1000),)), (PROJECT, (budget(700), budget(5000, "month")))]
            answered = await asyncio.gather(*(use_up(each, owed, 10, 100) for each in both))
            assert sum(answered) == 70
            assert spent(any_database) == 700
            refusal = await refused(both[0].ask(owed, 10))
            assert not soon(refusal)

    asyncio.run(run())


def test_random_storm(any_database: Engine):
    """Requests that use less than reserved, all or none never take a budget over; nothing leaks."""

    async def run() -> None:
        chance = random.Random(5)
        async with processes(any_database) as both:
            owed = [(USER, (budget(4000),)), (PROJECT, (budget(6000, "total"),))]

            async def one(process: Process) -> None:
                cost = chance.randint(1, 60)
                whose = chance.choice([owed, owed[1:]])
                for _ in range(20):
                    try:
                        await process.budgets.reserve(whose, cost_nano_usd=cost)
                        break
                    except BudgetExceeded:
                        process.clock.pass_s(0.2)
                else:
                    return
                await asyncio.sleep(0)
                used = chance.choice([0, cost, chance.randint(0, cost)])
                if used:
                    await process.end(whose, cost, spent=used, at_ms=process.clock())
                else:
                    process.budgets.settle(whose, reserved_nano_usd=cost, spent_nano_usd=0)

            await asyncio.gather(*(one(process) for process in both for _ in range(150)))
            for process in both:
                await process.rest()
            assert held(any_database) == 0
            left = 6000 - spent(any_database)
            assert left >= 0
            await both[1].ask(owed[1:], left)
            assert spent(any_database) == 6000

    asyncio.run(run())


def test_usual_request_asks_no_database(engine: Engine):
    """A request that fits into what the process holds is reserved and settled without I/O."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(10**6),)), (PROJECT, (budget(10**6, "month"),))]
            await process.ask(owed, 10)
            statements: list[str] = []
            event.listen(
                Engine, "before_cursor_execute", note := lambda *args: statements.append(args[2])
            )
            for _ in range(10):
                await process.budgets.reserve(owed, cost_nano_usd=10)
            for _ in range(10):
                process.budgets.settle(owed, reserved_nano_usd=10, spent_nano_usd=0)
            event.remove(Engine, "before_cursor_execute", note)
            assert statements == []

    asyncio.run(run())


def test_waiting_requests_share_a_lease(engine: Engine):
    """Many requests that come at once ask the database a few times, not once each."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(10**6),))]
            leases: list[str] = []
            event.listen(
                Engine, "begin", note := lambda connection: leases.append(connection.dialect.name)
            )
            await asyncio.gather(
                *(process.budgets.reserve(owed, cost_nano_usd=10) for _ in range(200))
            )
            event.remove(Engine, "begin", note)
            assert len(leases) <= 3

    asyncio.run(run())


def test_all_or_none(engine: Engine):
    """A request that one budget refuses takes nothing of the others."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            key, project = (KEY, (budget(100),)), (PROJECT, (budget(50),))
            assert "project 'proj_A'" in (await refused(process.ask([key, project], 60))).message
            await process.ask([key], 100)

    asyncio.run(run())


def test_keys_answer_for_those_they_issued(any_database: Engine):
    """What a key's issued keys spend is spent of its budget too; what others spend is not."""

    async def run() -> None:
        with any_database.begin() as connection:
            for name, issuer in (("key_A", None), ("key_B", "key_A"), ("key_C", None)):
                row = {
                    "id": name,
                    "name": name,
                    "digest": name.encode(),
                    "hint": "",
                    "created_ms": 0,
                }
                connection.execute(insert(keys).values(**row, issued_by=issuer))
        async with processes(any_database, 1) as [process]:
            for name in ("key_B", "key_C"):
                await write(process.ledger, [line(40, NOON, key=name)])
            owed = [(KEY, (budget(100),))]
            await refused(process.ask(owed, 61))
            await process.ask(owed, 60)

    asyncio.run(run())


def test_old_days_count(any_database: Engine):
    """What was spent years ago is spent of a total, but not of this month."""

    async def run() -> None:
        async with processes(any_database, 1) as [process]:
            for days in (0, 1, 2, 3, 16, 17, 18, 19, 900):
                at_ms = NOON - days * DAY_MS  # the 18th of November, and so on
                await write(process.ledger, [line(10, at_ms), line(1, at_ms, key="key_B")])
            await refused(process.ask([(KEY, (budget(90, "total"),))], 1))
            owed = [(KEY, (budget(70, "month"), budget(200, "total")))]
            await refused(process.ask(owed, 11))
            await process.ask(owed, 10)

    asyncio.run(run())


def test_refusals_say_how_it_stands(engine: Engine):
    """A refusal names whose budget it is, what is spent of it, and when it begins anew."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            day, total = budget(2 * 10**9), budget(10**9, "total")
            await process.ask([(KEY, (day,))], 15 * 10**8)
            little = await refused(process.ask([(KEY, (day,))], 10**9))
            assert little.message == (
                "Too little is left of the budget of key 'key_A': 1.5 USD of 2 USD per day are "
                "spent, and this request may cost 1 USD. It resets at 2026-11-19T00:00:00Z. "
                "Send less, wait until then, or ask its administrator to raise it."
            )
            await process.budgets.reserve([(KEY, (day,))], cost_nano_usd=5 * 10**8)
            shortly = await refused(process.ask([(KEY, (day,))], 5 * 10**8))
            assert shortly.message == (
                "The rest of the budget of key 'key_A' is reserved for requests in progress: "
                "1.5 USD of 2 USD per day are spent, 0.5 USD are reserved, and this request may "
                "cost 0.5 USD. Try again shortly."
            )
            assert soon(shortly)
            assert not soon(little)
            assert little.headers == {"x-should-retry": "false"}
            await process.end([(KEY, (day,))], 5 * 10**8, spent=5 * 10**8, at_ms=NOON)
            await process.ask([(USER, (total,))], 10**9)
            owed = [(USER, (budget(10**9), budget(4 * 10**9, "total")))]
            assert (await refused(process.ask(owed, 1))).message.startswith(
                "The budget of end user 'ann/b' is spent: 1 USD of 1 USD per day are spent."
            )
            owed = [(USER, (budget(10**9), total))]
            assert "does not reset. Ask its admin" in (await refused(process.ask(owed, 1))).message

    asyncio.run(run())


def test_spent_budgets_are_refused_without_asking_for_a_second(engine: Engine):
    """What was just found to be spent is refused at once, until it changes or a second is over."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(100),))]
            process.budgets.check(owed)
            await process.ask(owed, 100)
            process.budgets.check(owed)
            await refused(process.ask(owed, 1))
            with pytest.raises(BudgetExceeded):
                process.budgets.check(owed)
            raised = [(KEY, (budget(200),))]
            process.budgets.check(raised)
            process.clock.pass_s(1)
            process.budgets.check(owed)

    asyncio.run(run())


def test_what_costs_nothing_passes(engine: Engine):
    """A request that costs nothing passes whatever is spent, even of a budget of nothing."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(0),))]
            await process.ask(owed, 0)
            await refused(process.ask(owed, 1))
            await process.ask(owed, 0)

    asyncio.run(run())


def test_changed_budgets_hold_at_once(engine: Engine):
    """A raised budget admits, a lowered one refuses, though a part of it was held before."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            await process.ask([(KEY, (budget(1000),))], 100)
            assert held(engine)
            assert not soon(await refused(process.ask([(KEY, (budget(100),))], 1)))
            assert held(engine) == 0
            await refused(process.ask([(KEY, (budget(1000),))], 901))
            await process.ask([(KEY, (budget(1001),))], 901)

    asyncio.run(run())


def test_midnight_begins_anew(engine: Engine):
    """A budget that is spent begins anew with its window, and only then."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(100), budget(150, "week")))]
            await process.ask(owed, 100)
            process.clock.now_ms = MIDNIGHT - 1
            await refused(process.ask(owed, 1))
            process.clock.now_ms = MIDNIGHT
            await refused(process.ask(owed, 51))
            await process.ask(owed, 50)

    asyncio.run(run())


def test_late_requests_count_where_they_came(engine: Engine):
    """What came before midnight takes nothing of a spent day, though it is reserved after it."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(100),))]
            process.clock.now_ms = MIDNIGHT - 1
            await process.ask(owed, 100)
            process.clock.now_ms = MIDNIGHT + 1
            await process.ask(owed, 10)  # so that some of the new day is held
            await refused(process.ask(owed, 1, at_ms=MIDNIGHT - 1))
            await process.ask(owed, 90)
            assert spent(engine, until_ms=MIDNIGHT) == spent(engine, since_ms=MIDNIGHT) == 100

    asyncio.run(run())


def test_what_is_held_over_midnight_counts_in_the_new_window(engine: Engine):
    """What was leased the day before and is spent in the new one is not there for others."""

    async def run() -> None:
        async with processes(engine) as [one, other]:
            owed = [(KEY, (budget(1000),))]
            one.clock.now_ms = MIDNIGHT - 1
            await one.budgets.reserve(owed, cost_nano_usd=400)
            one.clock.now_ms = MIDNIGHT + 1
            assert soon(await refused(other.ask(owed, 601)))
            await one.end(owed, 400, spent=400, at_ms=MIDNIGHT - 1)
            await one.rest()
            await other.ask(owed, 1000)

    asyncio.run(run())


def test_a_dead_process_holds_nothing_for_long(engine: Engine):
    """What a killed process held can be spent a minute later, and not before."""

    async def run() -> None:
        async with processes(engine) as [dead, other]:
            owed = [(KEY, (budget(100),))]
            await dead.budgets.reserve(owed, cost_nano_usd=100)
            other.clock.pass_s(59)
            assert soon(await refused(other.ask(owed, 100)))
            other.clock.pass_s(1)
            await other.ask(owed, 100)

    asyncio.run(run())


def test_a_process_that_stood_still_relies_on_nothing(engine: Engine):
    """A process whose hold ran out while it stood still asks anew before it spends of it."""

    async def run() -> None:
        async with processes(engine) as [still, other]:
            owed = [(KEY, (budget(1000),))]
            await still.budgets.reserve(owed, cost_nano_usd=10)
            still.clock.pass_s(HOLD_MS / 1000)
            await other.ask(owed, 1000)
            await refused(still.ask(owed, 1))
            await still.end(owed, 10, spent=10, at_ms=NOON)  # the one that was under way
            await refused(still.ask(owed, 1))
            await still.rest()
            await other.rest()
            assert held(engine) == 0

    asyncio.run(run())


def test_what_was_under_way_while_a_process_stood_still_is_not_freed(engine: Engine):
    """What a request had reserved of a hold that ran out is not there again."""

    async def run() -> None:
        async with processes(engine) as [still, other]:
            owed = [(KEY, (budget(100),))]
            await still.budgets.reserve(owed, cost_nano_usd=60)
            still.clock.pass_s(HOLD_MS / 1000)
            await other.ask(owed, 90)
            await still.budgets.reserve(owed, cost_nano_usd=5)
            still.budgets.settle(owed, reserved_nano_usd=60, spent_nano_usd=0)
            await refused(still.ask(owed, 6))
            await other.ask(owed, 5)
            await still.end(owed, 5, spent=5, at_ms=NOON)
            assert spent(engine) == 100

    asyncio.run(run())


def test_clocks_that_differ(engine: Engine):
    """A process whose hold was deleted early, by another's clock, finds out when it renews it."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(1000),))]
            await process.budgets.reserve(owed, cost_nano_usd=10)
            ahead = Process(engine, Clock(NOON + HOLD_MS))
            await ahead.ask(owed, 1000)
            process.clock.pass_s(21)
            await process.budgets.end_interval()
            await refused(process.ask(owed, 1))
            await ahead.budgets.aclose()
            ahead.close()

    asyncio.run(run())


def test_requests_under_way_keep_their_hold(engine: Engine):
    """What a request has reserved stays reserved, however long it takes."""

    async def run() -> None:
        async with processes(engine) as [slow, other]:
            owed = [(KEY, (budget(1000),))]
            await slow.budgets.reserve(owed, cost_nano_usd=600)
            for _ in range(60):
                slow.clock.pass_s(2)
                await slow.budgets.end_interval()
            assert held(engine) == 600
            assert soon(await refused(other.ask(owed, 401)))
            await other.ask(owed, 400)
            await slow.end(owed, 600, spent=600, at_ms=NOON)
            assert spent(engine) == 1000

    asyncio.run(run())


def test_a_cancelled_request_leaves_nothing_behind(engine: Engine):
    """A request that is cancelled while it waits for a lease gives it back."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(100),)), (PROJECT, (budget(100),))]
            for turns in range(6):
                task = asyncio.ensure_future(process.budgets.reserve(owed, cost_nano_usd=100))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            assert await use_up(process, owed, 100, 1) == 1

    asyncio.run(run())


def test_alerts_come_once(any_database: Engine):
    """Each percentage of a budget, and its end, is told once in its window, whoever sees it."""

    async def run() -> None:
        async with processes(any_database) as both:
            owed = [(KEY, (budget(1000, alerts=(50, 90)),))]
            for number in range(100):
                await both[number % 2].ask(owed, 10)
            for each in both:
                await each.rest()
                await each.budgets.aclose()
            alerts = sorted(both[0].alerts + both[1].alerts)
            assert [percent for percent, _ in alerts] == [50, 90]
            assert all(percent * 10 <= spent < percent * 10 + 100 for percent, spent in alerts)
            later = Process(any_database, both[0].clock)  # as after a restart
            later.clock.pass_s(2)
            await refused(later.ask(owed, 1))
            await later.rest()
            await refused(later.ask(owed, 1))
            later.clock.pass_s(DAY_MS / 1000)
            await later.ask(owed, 600)
            await later.rest()
            await later.budgets.aclose()
            later.close()
            assert later.alerts[0] == (EXHAUSTED, 1000)
            assert [percent for percent, _ in later.alerts[1:]] == [50]

    asyncio.run(run())


def test_database_away(engine: Engine):
    """Without the database what is held may go on, and nothing beyond it."""

    async def run() -> None:
        async with processes(engine, 1) as [process]:
            owed = [(KEY, (budget(10_000),))]
            await process.ask(owed, 10)
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE holds RENAME TO away")
            await process.budgets.reserve(owed, cost_nano_usd=10)
            with pytest.raises(StorageUnavailable):
                await process.budgets.reserve(owed, cost_nano_usd=9000)
            with pytest.raises(StorageUnavailable):
                await process.budgets.reserve(owed, cost_nano_usd=10)
            process.budgets.settle(owed, reserved_nano_usd=10, spent_nano_usd=0)
            process.clock.pass_s(30)
            with pytest.raises(StorageUnavailable):
                await process.rest()
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO holds")
            await process.ask(owed, 9990)
            await process.rest()
            assert held(engine) == 0

    asyncio.run(run())


def test_a_failed_lease_holds_nothing_back(any_database: Engine):
    """What is free when the database goes can be spent once it is back, beside what is in use."""

    async def run() -> None:
        async with processes(any_database, 1) as [process]:
            owed = [(KEY, (budget(1000),))]
            await process.budgets.reserve(owed, cost_nano_usd=10)
            assert held(any_database) > 10
            with any_database.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE holds RENAME TO away")
            with pytest.raises(StorageUnavailable):
                await process.budgets.reserve(owed, cost_nano_usd=900)
            for _ in range(2):  # at first it is not quiet yet
                process.clock.pass_s(2)
                with pytest.raises(StorageUnavailable):
                    await process.rest()
            with any_database.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO holds")
            await process.ask(owed, 990)
            await process.end(owed, 10, spent=10, at_ms=NOON)
            assert spent(any_database) == 1000

    asyncio.run(run())


def test_a_lease_in_doubt_overspends_nothing(postgres_url: str):
    """What may have been given back is spent by nobody until its process is idle."""
    engine = database.connect(postgres_url)

    async def run() -> None:
        async with processes(engine) as [process, other]:
            owed = [(KEY, (budget(1000),))]
            await process.budgets.reserve(owed, cost_nano_usd=10)
            free = held(engine) - 10
            assert free > 0
            with broken_commits(engine, "holds"), pytest.raises(CommitInDoubt):
                await process.budgets.reserve(owed, cost_nano_usd=900)
            assert soon(await refused(other.ask(owed, 991 - free)))
            await process.end(owed, 10, spent=10, at_ms=NOON)
            await process.rest()
            await other.ask(owed, 990)
            assert spent(engine) == 1000

    asyncio.run(run())
    engine.dispose()


PRICES = st.integers(1, 60)


class Several(RuleBasedStateMachine):
    """Two processes and whatever may happen to them, beside what a simple model allows.

    The model knows no holds: it sums what the ledger was told, and what was spent beyond the rules:
    more than was reserved, or by a request of a process that stood still for more than a minute.
    """

    OWED = (
        ((KEY, (budget(300), budget(700, "week"))),),
        ((KEY, (budget(300), budget(700, "week"))), (PROJECT, (budget(400),))),
        ((PROJECT, (budget(400),)), (USER, (budget(1000, "total"),))),
    )
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "budgets.db"
        shutil.copy(self.template, path)
        self.engine = database.connect(path)
        self.clock = Clock()
        self.processes = [Process(self.engine, self.clock) for _ in range(2)]
        self.rested_ms = [NOON, NOON]
        self.under_way: list[tuple[int, tuple, int, int, bool]] = []
        """By which process, within which budgets, for how much, since when, and whether held."""
        self.lines: list[tuple[tuple, int, int]] = []
        self.beyond = dict.fromkeys((KEY, PROJECT, USER), 0)

    def run(self, work):
        return self.runner.run(work)

    @rule(at=st.integers(0, 1), owed=st.sampled_from(OWED), cost=PRICES, late_s=st.integers(0, 3))
    def ask(self, at: int, owed: tuple, cost: int, late_s: int) -> None:
        at_ms = self.clock() - late_s * 1000
        work = self.processes[at].budgets.reserve(owed, cost_nano_usd=cost, at_ms=at_ms)
        with suppress(BudgetExceeded):
            self.run(work)
            self.under_way.append((at, owed, cost, at_ms, True))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 100), used=st.sampled_from(["all", "none", "less", "more"]))
    def end(self, which: int, used: str) -> None:
        at, owed, cost, at_ms, is_held = self.under_way.pop(which % len(self.under_way))
        spent = {"all": cost, "none": 0, "less": cost // 2, "more": cost + 7}[used]
        self.run(self.processes[at].end(owed, cost, spent=spent, at_ms=at_ms))
        self.lines.append((owed, spent, at_ms))
        for subject, _ in owed:
            self.beyond[subject] += max(0, spent - cost) if is_held else spent

    @rule(at=st.integers(0, 1))
    def rest(self, at: int) -> None:
        self.run(self.processes[at].budgets.end_interval())
        self.rested_ms[at] = self.clock()

    @rule(seconds=st.sampled_from([1, 10, 70]))
    def time_passes(self, seconds: int) -> None:
        """All processes rest, but in a long time, in which none does."""
        self.clock.pass_s(seconds)
        if seconds < 70:
            for at in range(2):
                self.rest(at)
            return
        self.under_way = [(*each[:4], False) for each in self.under_way]

    @rule()
    def midnight(self) -> None:
        """The next day is about to begin; nobody stood still."""
        self.under_way = [(*each[:4], False) for each in self.under_way]
        self.clock.now_ms = budget_window("day", self.clock())[1] - 1500

    @rule(at=st.integers(0, 1))
    def crash(self, at: int) -> None:
        self.processes[at].ledger.close()
        self.processes[at] = Process(self.engine, self.clock)
        self.under_way = [each for each in self.under_way if each[0] != at]

    @invariant()
    def never_overspent(self) -> None:
        for subject, each in set(itertools.chain.from_iterable(self.OWED)):
            for allowed in each:
                windows = Counter()
                for owed, spent, at_ms in self.lines:
                    if subject in dict(owed):
                        windows[budget_window(allowed.per, at_ms)] += spent
                beyond = self.beyond[subject]
                assert all(sum <= allowed.amount_nano_usd + beyond for sum in windows.values())

    def teardown(self) -> None:
        """Once all is over, all that is left can be spent, to the last."""
        while self.under_way:
            self.end(0, "all")
        self.clock.pass_s(HOLD_MS / 1000)
        for each in self.processes:
            self.run(each.rest())
        owed = self.OWED[2]
        today = budget_window("day", self.clock())
        of_project = [(spent, at_ms) for whose, spent, at_ms in self.lines if len(whose) > 1]
        of_user = [spent for whose, spent, _ in self.lines if whose == owed]
        left = min(
            400 - sum(spent for spent, at_ms in of_project if budget_window("day", at_ms) == today),
            1000 - sum(of_user),
        )
        assert self.run(refused(self.processes[0].ask(owed, max(left, 0) + 1)))
        if left > 0:
            self.clock.pass_s(0.2)
            self.run(self.processes[1].ask(owed, left))
        for each in self.processes:
            self.run(each.budgets.aclose())
            each.close()
        self.runner.close()
        self.engine.dispose()
        self.folder.cleanup()


def test_whatever_happens(tmp_path: Path):
    """Whatever processes do and whatever happens to them, no budget is overspent or leaks."""
    Several.template = tmp_path / "template.db"
    engine = database.connect(Several.template)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    run_state_machine_as_test(
        Several,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
