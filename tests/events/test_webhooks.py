"""Events reach their webhooks: signed, at least once, and once for each change."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from sqlalchemy import Engine, select
from standardwebhooks import Webhook as Verifier
from webhook_receiver import SECRET, Received, Receiver, receiving

from embedway.budgets.enforcer import BudgetEnforcer
from embedway.budgets.hold_store import HoldStore
from embedway.core.budget import Budget
from embedway.core.clock import now_ms
from embedway.core.errors import BudgetExceeded
from embedway.core.subject import Subject
from embedway.events import deliverer as deliverers
from embedway.events.deliverer import Deliverer
from embedway.events.event import Event, EventType, Webhook
from embedway.events.outbox import CLAIM_MS, KEEP_MS, REMIND_MS, Outbox
from embedway.events.sending import Answer, send
from embedway.observe.events import write_budget_alert, write_space_change
from embedway.spaces.proof import Proof
from embedway.spaces.store import SpaceStore
from embedway.storage import database
from embedway.storage.tables import event_deliveries

HOUR_MS = 3_600_000


def webhook(receiver: Receiver, name: str = "ops", **fields) -> Webhook:
    given = {"events": frozenset(get_args(EventType)), "secret": b64decode(SECRET[6:])} | fields
    return Webhook(name=name, url=f"{receiver.url}/{name}?a=1", **given)


def event(type: EventType = "deployment.ejected", subject: str = "a:m", at_ms: int = 0) -> Event:
    return Event(
        type=type,
        at_ms=at_ms or now_ms(),
        subject=subject,
        text="<b> & c",
        data={"deployment": subject},
    )


def rows(engine: Engine) -> list:
    with engine.connect() as connection:
        return list(connection.execute(select(event_deliveries).order_by(event_deliveries.c.at_ms)))


def again(engine: Engine) -> Engine:
    """The same database, as another process opens it."""
    url = engine.url
    sqlite = url.drivername == "sqlite"
    return database.connect(
        Path(url.database) if sqlite else url.render_as_string(hide_password=False)
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Open a new SQLite database, where the kind makes no difference."""
    engine = database.connect(tmp_path / "events.db")
    yield engine
    engine.dispose()


class Clock:
    """The time, which a test can move on."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


class Results(list[tuple[str, str]]):
    """What became of each try."""

    def add(self, webhook: str, outcome: str) -> None:
        self.append((webhook, outcome))


@asynccontextmanager
async def delivering(
    engine: Engine, *webhooks: Webhook, clock: Callable[[], int] = now_ms
) -> AsyncIterator[tuple[Deliverer, Results]]:
    """What a gateway does for its webhooks."""
    outbox, results = Outbox(engine, now_ms=clock), Results()
    deliverer = Deliverer(outbox, on_result=results.add)
    deliverer.use(webhooks)
    yield deliverer, results
    await deliverer.aclose()
    outbox.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.02)


def sent(to: Webhook, what: Event | None = None) -> Answer:
    return asyncio.run(send(to, what or event(), now_ms=now_ms))


def test_signed_as_the_standard_says(receiver: Receiver) -> None:
    """A receiver verifies an event with the library of Standard Webhooks."""
    what = event(at_ms=1_795_910_400_123)
    answer = sent(webhook(receiver), what)
    assert answer == Answer(delivered=True, text="answered 200")
    (call,) = receiver.calls
    assert call.path == "/ops?a=1"
    assert call.headers["content-type"] == "application/json"
    body = Verifier(SECRET).verify(call.content, call.headers)
    assert body == {
        "id": what.id,
        "type": "deployment.ejected",
        "timestamp": "2026-11-29T00:00:00.123Z",
        "data": {"deployment": "a:m"},
    }
    assert call.id == what.id


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_page_verifies(language: str, receiver: Receiver, tmp_path: Path) -> None:
    """The receivers that docs/events.md shows accept what is sent, and refuse what was changed."""
    node = shutil.which("node")
    if language == "js" and not node:
        pytest.skip("node is not installed")
    page = Path(__file__).parents[2] / "docs" / "events.md"
    (block,) = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    sent(webhook(receiver))
    (call,) = receiver.calls
    body, headers = call.content.decode(), json.dumps(call.headers)

    def run(body: str) -> subprocess.CompletedProcess[str]:
        if language == "python":
            program = f"{block}\nprint(receive({body.encode()!r}, {headers})['id'])"
            command = [sys.executable, "-c", program]
        else:
            file = tmp_path / "receive.mjs"
            file.write_text(f"{block}\nconsole.log(receive({json.dumps(body)}, {headers}).id);\n")
            command = [str(node), str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run(body)
    assert good.stdout.strip() == call.id, good.stderr
    assert run(body.replace("ejected", "drifted")).returncode == 1


def test_slack(receiver: Receiver) -> None:
    """Slack gets one text, in which nothing counts as markup, and needs no secret."""
    sent(webhook(receiver, format="slack", secret=None))
    (call,) = receiver.calls
    assert call.body == {"text": "&lt;b&gt; &amp; c"}
    assert "webhook-signature" not in call.headers


def test_bad_answers(receiver: Receiver) -> None:
    """Whatever a receiver does but answer 2xx is a failure, said in words that are not its own."""
    with receiving() as elsewhere:
        receiver.answer, receiver.location = (lambda _: 302), f"{elsewhere.url}/x"
        assert "redirects are not followed" in sent(webhook(receiver)).text
        assert elsewhere.calls == []
    receiver.location = ""
    for status in (199, 304, 400, 410, 500):
        receiver.answer = lambda _, status=status: status
        answer = sent(webhook(receiver))
        assert not answer.delivered
    head = b"HTTP/1.1 200 OK\r\n"
    for raw in (
        b"secret words\r\n\r\n",
        head + b"content-length: 9999999\r\n\r\n" + b"x" * 1_200_000,
        head + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        head + b"content-length: 100\r\n\r\nsecret words",
        head + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    ):
        receiver.raw = raw
        answer = sent(webhook(receiver))
        assert not answer.delivered, raw[:40]
        assert "secret words" not in answer.text
    nobody = Webhook(name="a", url="http://127.0.0.1:1/", events=frozenset())
    assert sent(nobody).text.startswith("cannot be reached")


def test_tried_until_received(engine: Engine, receiver: Receiver) -> None:
    """A delivery is tried again with the same id, after longer and longer waits, for three days."""
    clock = Clock()
    receiver.answer = lambda _: 500

    async def run() -> None:
        async with delivering(engine, webhook(receiver), clock=clock) as (deliverer, results):
            deliverer.publish(event())
            await until(lambda: len(results) == 1)
            clock.ahead_ms += 6_000
            await until(lambda: len(results) == 2)
            receiver.answer = lambda _: 204
            clock.ahead_ms += 11_000
            await until(lambda: len(results) == 3)
            assert len(set(receiver.ids())) == 1
            receiver.answer = lambda _: 500
            deliverer.publish(event(subject="b:m", at_ms=clock()))
            await until(lambda: len(results) == 4)
            clock.ahead_ms += 73 * HOUR_MS
            await until(lambda: len(results) == 5)

    asyncio.run(run())
    assert [row.state for row in rows(engine)] == ["delivered", "failed"]
    assert [row.tries for row in rows(engine)] == [3, 2]
    assert rows(engine)[1].result == "answered 500"


def test_slow_receivers_delay_nobody(engine: Engine, receiver: Receiver) -> None:
    """A receiver that hangs holds up neither the others nor shutdown, and is tried again later."""
    release = threading.Event()

    def hang(_: Received) -> int:
        release.wait()
        return 200

    async def run() -> None:
        with receiving() as slow:
            slow.answer = hang
            hooks = webhook(receiver, "fast"), webhook(slow, "slow")
            async with delivering(engine, *hooks) as (deliverer, results):
                for number in range(5):
                    deliverer.publish(event(subject=f"{number}:m"))
                await until(lambda: len(results) == 5)
                await until(lambda: slow.calls)
                assert set(results) == {("fast", "delivered")}
            release.set()

    asyncio.run(run())
    states = [(row.webhook, row.state) for row in rows(engine)]
    assert sorted(states) == [("fast", "delivered")] * 5 + [("slow", "waiting")] * 5


def test_replicas_share_the_work(any_database: Engine, receiver: Receiver) -> None:
    """However many replicas deliver, each event arrives once, unless one dies in the middle."""

    async def run() -> None:
        hook, other = webhook(receiver), again(any_database)
        async with (
            delivering(any_database, hook) as (one, done),
            delivering(other, hook) as (two, done_too),
        ):
            for number in range(20):
                for each in (one, two):
                    each.publish(event(subject=f"{number}:m"))
            await until(lambda: len(done) + len(done_too) >= 20)
        other.dispose()

    asyncio.run(run())
    assert len(receiver.calls) == len(set(receiver.ids())) == 20
    assert {row.state for row in rows(any_database)} == {"delivered"}


def test_a_claim_lapses(any_database: Engine) -> None:
    """What a replica claimed before it died is tried by another, which alone may end it."""
    clock = Clock()
    hook = Webhook(name="ops", url="http://127.0.0.1:1/", events=frozenset(get_args(EventType)))
    outbox = Outbox(any_database, now_ms=clock, webhooks=[hook])

    async def run() -> None:
        await outbox.add_news(event())
        first = await outbox.claim("ops")
        assert first is not None
        assert await outbox.claim("ops") is None
        clock.ahead_ms += CLAIM_MS + 1
        second = await outbox.claim("ops")
        assert second is not None
        assert second.event == first.event
        await outbox.finish(first, state="failed", result="late")
        assert [row.state for row in rows(any_database)] == ["waiting"]
        await outbox.finish(second, state="delivered", result="answered 200")
        assert [row.state for row in rows(any_database)] == ["delivered"]
        assert await outbox.count_waiting() == 0
        clock.ahead_ms += KEEP_MS
        await outbox.prune()
        assert rows(any_database) == []

    asyncio.run(run())
    outbox.close()


def test_news_is_told_once(any_database: Engine) -> None:
    """Of what several replicas see, the beginning is told once, then the end, then it is news."""
    hook = Webhook(name="ops", url="http://127.0.0.1:1/", events=frozenset(get_args(EventType)))
    start_ms = now_ms()
    outbox = Outbox(any_database, now_ms=lambda: start_ms, webhooks=[hook])

    async def run() -> None:
        told: list[tuple[EventType, int]] = [
            ("deployment.recovered", 0),  # of a process that saw the beginning, and nobody else did
            ("deployment.ejected", 1),
            ("deployment.ejected", 2),
            ("deployment.recovered", 3),
            ("deployment.recovered", 4),
            ("deployment.ejected", 5),
            ("deployment.ejected", 5 + REMIND_MS),
        ]
        for type, after_ms in told:
            await outbox.add_news(event(type, at_ms=start_ms + after_ms))
        await outbox.add_news(event(subject="other:m", at_ms=start_ms + 2 * REMIND_MS))

    asyncio.run(run())
    assert [row.at_ms - start_ms for row in rows(any_database)] == [
        1, 3, 5, 5 + REMIND_MS, 2 * REMIND_MS,
    ]  # fmt: skip

    def at_once(engine: Engine) -> None:
        alone = Outbox(engine, now_ms=now_ms, webhooks=[hook])
        asyncio.run(alone.add_news(event(subject="busy:m")))
        alone.close()

    engines = [again(any_database) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(at_once, engines))
    for each in engines:
        each.dispose()
    outbox.close()
    assert [row.subject for row in rows(any_database)].count("busy:m") == 1


def test_a_budget_alert_is_one_event(any_database: Engine, receiver: Receiver) -> None:
    """However many processes see that a budget is reached or exhausted, it is one event each."""
    subject = Subject(kind="end user", id="ann <&>", project_id="proj_A")
    owed = [(subject, (Budget(amount_nano_usd=1000, per="day", alerts=(50,)),))]
    hook = webhook(receiver)

    async def ask(engine: Engine, name: str) -> None:
        outbox = Outbox(engine, now_ms=now_ms, webhooks=[hook])
        holds = HoldStore(engine, process=name, now_ms=now_ms)
        budgets = BudgetEnforcer(
            holds, now_ms=now_ms, write_alert=partial(write_budget_alert, outbox)
        )
        for _ in range(2):
            with pytest.raises(BudgetExceeded):
                await budgets.reserve(owed, cost_nano_usd=1001)
        await budgets.aclose()
        holds.close()
        outbox.close()

    async def run() -> None:
        other = again(any_database)
        await asyncio.gather(ask(any_database, "one"), ask(other, "two"))
        await ask(any_database, "restarted")
        other.dispose()

    asyncio.run(run())
    (row,) = rows(any_database)
    assert row.type == "budget.exhausted"
    assert row.text.startswith("The budget of end user ann <&> refuses requests: 0 USD of")
    data = dict(row.data)
    assert data.pop("resets_at") - data.pop("period_starts_at") == 86_400
    assert data == {
        "of": "end user",
        "id": "ann <&>",
        "project_id": "proj_A",
        "per": "day",
        "amount_usd": 0.000001,
        "spent_usd": 0.0,
    }


def proof(state: str, at_ms: int) -> Proof:
    return Proof(
        deployment="a:m", input_type=None, state=state, revision="r", home="r", cosine=0.5,
        norm_deviation=0.0, reason="cosine 0.5", fingerprint="f", models=frozenset(), at_ms=at_ms,
        since_ms=at_ms,
    )  # fmt: skip


def test_a_drift_is_one_event(any_database: Engine, receiver: Receiver) -> None:
    """Drift and release are stored together with their events, whoever finds them out."""
    outbox = Outbox(any_database, now_ms=now_ms, webhooks=[webhook(receiver)])
    changed = partial(write_space_change, outbox)

    async def run() -> None:
        one, two = (SpaceStore(any_database, on_change=changed) for _ in range(2))
        await one.keep_proof(proof("proven", 1))
        await asyncio.gather(
            one.keep_proof(proof("drifted", 2)), two.keep_proof(proof("drifted", 3))
        )
        await two.keep_proof(proof("proven", 4))  # what is quarantined stays so
        await two.keep_proof(proof("proven", 5), release=True)
        await one.keep_proof(proof("differs", 6))
        await one.keep_proof(proof("differs", 7))

    asyncio.run(run())
    outbox.close()
    assert sorted(row.type for row in rows(any_database)) == [
        "space.differs", "space.drifted", "space.released",
    ]  # fmt: skip


def test_no_webhooks_no_work(engine: Engine) -> None:
    """Without webhooks there are no tasks and no rows."""

    async def run() -> None:
        async with delivering(engine) as (deliverer, _):
            deliverer.publish(event())
            deliverer.publish_unstored(event("database.unavailable"))
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert rows(engine) == []


def test_webhooks_can_be_replaced(engine: Engine, receiver: Receiver) -> None:
    """New settings take effect at once; what waits for a webhook that stays is delivered."""

    async def run() -> None:
        stays, goes = webhook(receiver, "stays"), webhook(receiver, "goes")
        async with delivering(engine, stays, goes) as (deliverer, results):
            deliverer.publish(event())
            await until(lambda: len(results) == 2)
            deliverer.use([stays, webhook(receiver, "new")])
            deliverer.publish(event(subject="b:m"))
            await until(lambda: len(results) == 4)
            deliverer.use([])
            assert {each for each, _ in results[2:]} == {"stays", "new"}

    asyncio.run(run())


def test_too_many_are_dropped_and_counted(engine: Engine) -> None:
    """What waits in memory is bounded."""
    hook = Webhook(name="ops", url="http://127.0.0.1:1/", events=frozenset(get_args(EventType)))

    async def run() -> None:
        async with delivering(engine, hook) as (deliverer, results):
            for number in range(deliverers.MAX_QUEUED + 3):
                deliverer.publish(event("redis.available", subject=str(number)))
            assert results == [("ops", "dropped")] * 3
            for _ in range(deliverers.MAX_UNSTORED + 2):
                deliverer.publish_unstored(event("database.unavailable"))
            await until(lambda: results.count(("ops", "dropped")) == 5)

    asyncio.run(run())
