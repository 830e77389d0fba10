"""Usage as it is reported: sums by any time, zone and group are those of the lines."""

import asyncio
import csv
import json
import random
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import openai
import pyarrow.parquet
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Header
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, insert
from test_cli import at_terminal
from typer.testing import CliRunner
from writing import write

from embedway.admin import errors
from embedway.admin.usage import CostsResult, RefusalsResult, UsageResult, router
from embedway.admin.usage_parameters import CostsRequest, EmbeddingsUsageRequest, RefusalsRequest
from embedway.cli import commands
from embedway.core.errors import InvalidRequest, NotFound
from embedway.core.keys import Caller, Key
from embedway.core.project import Project
from embedway.core.usage import UsageRecord
from embedway.ledger.buckets import (
    DAY_MS,
    HOUR_MS,
    TimeSpan,
    Width,
    epoch_ms,
    plan_reads,
    split_span,
)
from embedway.ledger.ledger import Ledger
from embedway.ledger.query import UsageFilter, UsageGroup, UsageQuery
from embedway.ledger.reports import RECORDS_FROM, RECORDS_PER_BATCH, UsageReports
from embedway.organization.transaction import write_organization
from embedway.storage import database
from embedway.storage.tables import SUMS, installation, refusals, usage_days
from embedway.storage.tables import usage as usage_lines

ZONES = (
    *("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns"),
    *("Pacific/Apia", "Australia/Lord_Howe", "America/Sao_Paulo"),
)
STARTS = tuple(
    epoch_ms(datetime(*day, tzinfo=UTC))
    for day in ((2026, 3, 28), (2026, 10, 24), (2011, 12, 29), (2010, 11, 6), (2026, 4, 4))
)
"""Near these, clocks are set in some zone, or a day is left out."""
DAYS = 3
DIMENSIONS = ("project_id", "key_id", "end_user", "model", "provider", "on_behalf_of")
METADATA = ("metadata.team", 'metadata.$."it\'s" ü')
NOW_MS = epoch_ms(datetime(2026, 11, 1, 12, 30, 30, tzinfo=UTC))


def line(number: int, at_ms: int, **fields: object) -> UsageRecord:
    """A line of a request of its own."""
    values = {
        "request_id": "req", "project_id": "proj_a", "key_id": "key_a", "on_behalf_of": None,
        "user": None, "metadata": {}, "model": "m", "provider": "p", "items": 1, "tokens": 2,
        "cost_nano_usd": 3, "upstream_cost_nano_usd": 4, "calls": 1, "failed_calls": 0,
        "latency_us": 5, "status": 200,
    }  # fmt: skip
    return UsageRecord(id=f"embd_{number}", at_ms=at_ms, **(values | fields))


def some_lines(seed: int = 0, count: int = 400) -> list[UsageRecord]:
    """Lines of all kinds, many of them at edges of hours."""
    pick = random.Random(seed)
    made: list[UsageRecord] = []
    for number in range(count):
        at_ms = pick.choice(STARTS) + pick.randrange(DAYS * DAY_MS)
        if pick.random() < 0.3:
            at_ms += pick.choice((0, -1)) - at_ms % (HOUR_MS // 4)
        probe = pick.random() < 0.1
        made.append(
            line(
                number if pick.random() < 0.8 else 0,
                at_ms,
                line=number,
                project_id="" if probe else pick.choice(("proj_a", "proj_b")),
                key_id="" if probe else pick.choice(("key_a", "key_b", "issuer:corp")),
                on_behalf_of=pick.choice((None, None, "ann")),
                user=pick.choice((None, "bob", 'ann, "ü"')),
                metadata=pick.choice(({}, {"team": "x"}, {"team": "", "it's": "1"},
                                      {'$."it\'s" ü': "'; DROP TABLE usage; --"})),
                model=pick.choice(("m", "n")),
                provider=pick.choice(("p", "q", "")),
                status=pick.choice((200, 200, 200, 400, 499, 502)),
                items=pick.randrange(5), tokens=pick.randrange(9), cached_tokens=1,
                estimated=pick.random() < 0.3, priced=pick.random() < 0.7,
                cost_nano_usd=pick.randrange(2**40), upstream_cost_nano_usd=pick.randrange(2**40),
                calls=pick.randrange(3), failed_calls=pick.randrange(2),
            )
        )  # fmt: skip
    # A request has one line 0, and the rest of them others.
    return [
        msgspec.structs.replace(each, line=0 if each.id != "embd_0" else each.line) for each in made
    ]


def record(engine: Engine, lines: Sequence[UsageRecord]) -> None:
    """Commits lines as the gateway does."""

    async def all_of_them() -> None:
        await asyncio.gather(*(write(ledger, [each]) for each in lines))

    ledger = Ledger(engine)
    asyncio.run(all_of_them())
    ledger.close()


def refuse(engine: Engine, rows: Sequence[tuple]) -> None:
    """Stores counts of refused requests: when, project, key, reason, and how many."""
    named = [dict(zip(refusals.c.keys(), row, strict=True)) for row in rows]
    with engine.begin() as connection:
        connection.execute(insert(refusals), named)


def value(of: str, line: UsageRecord) -> str | None:
    """What a line is of."""
    if of.startswith("metadata."):
        return line.metadata.get(of.removeprefix("metadata."))
    return getattr(line, of) or None


def figures(line: UsageRecord) -> list[int]:
    """What a line adds to each sum."""
    asked, answered = line.line == 0 and line.key_id != "", line.status == 200
    return [
        int(asked and answered), int(asked and not answered),
        *(amount if answered and counted else 0 for amount, counted in (
            (line.items, True), (line.tokens, True), (line.cached_tokens, True),
            (line.tokens, line.estimated), (line.tokens, not line.priced),
            (line.cost_nano_usd, True))),
        line.upstream_cost_nano_usd, line.calls, line.failed_calls,
    ]  # fmt: skip


def naive(lines: Sequence[UsageRecord], spans: Sequence[TimeSpan], query: UsageQuery) -> dict:
    """The same sums, one line after another."""
    sums: dict = defaultdict(lambda: [0] * len(SUMS))
    for each in lines:
        if any((value(f.dimension, each) or "") not in f.values for f in query.filters):
            continue
        for span in spans:
            if span.start_ms <= each.at_ms < span.end_ms:
                key = (span, tuple(value(of, each) for of in query.group_by))
                sums[key] = [a + b for a, b in zip(sums[key], figures(each), strict=True)]
    return dict(sums)


def told(found: Sequence[UsageGroup]) -> dict:
    """The sums by bucket and group, each there once."""
    keys = {(each.bucket, each.group): each for each in found}
    assert len(keys) == len(found)
    return {key: [*msgspec.structs.astuple(each.totals)] for key, each in keys.items()}


queries = st.builds(
    UsageQuery,
    group_by=st.lists(st.sampled_from((*DIMENSIONS, *METADATA)), unique=True, max_size=3).map(
        tuple
    ),
    filters=st.lists(
        st.one_of(
            st.builds(
                UsageFilter,
                st.sampled_from((*DIMENSIONS, *METADATA)),
                st.lists(
                    st.sampled_from(("", "proj_a", "key_a", "ann", "m", "p", "x", "' OR 1=1 --")),
                    min_size=1, unique=True,
                ).map(tuple),
            ),
            st.just(UsageFilter("key_id", ("key_a", "key_b"))),
        ),
        max_size=2,
    ).map(tuple),
    width=st.sampled_from((None, "1h", "1d", "1mo")),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
)  # fmt: skip
spans = st.builds(
    lambda start, offset, length: TimeSpan(start + offset, start + offset + length),
    st.sampled_from(STARTS),
    st.one_of(st.integers(-DAY_MS, DAY_MS), st.sampled_from((-DAY_MS, 0, HOUR_MS))),
    st.one_of(st.integers(1, 4 * DAY_MS), st.sampled_from((HOUR_MS, DAY_MS, 31 * DAY_MS))),
)


@given(spans, st.sampled_from(("1m", "1h", "1d", "1mo")), st.sampled_from(ZONES))
@settings(deadline=None, max_examples=60)
def test_buckets(span: TimeSpan, width: Width, zone: str) -> None:
    """Buckets join without gaps, where clocks begin a minute, an hour, a day or a month."""
    place = ZoneInfo(zone)
    cut = (
        TimeSpan(span.start_ms, min(span.end_ms, span.start_ms + DAY_MS)) if width == "1m" else span
    )
    found = list(split_span(cut, width, place))
    assert (found[0].start_ms, found[-1].end_ms) == (cut.start_ms, cut.end_ms)
    shown = {"1m": "%M", "1h": "%H %z", "1d": "%m-%d", "1mo": "%Y-%m"}[width]
    for before, after in pairwise(found):
        assert before.end_ms == after.start_ms
        last, first = (
            datetime.fromtimestamp(at // 1000, UTC).astimezone(place)
            for at in (before.end_ms - 1, after.start_ms)
        )
        assert last.strftime(shown) != first.strftime(shown)
        assert first.second == 0
        assert first.minute == 0 or width == "1m"
        assert first.hour == 0 or width in {"1m", "1h"} or zone == "America/Sao_Paulo"


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Asia/Kathmandu", (2026, 3, 29), 24),
        ("America/St_Johns", (2010, 11, 7), 25),
        ("America/Sao_Paulo", (2018, 11, 4), 23),
    ],
)
def test_days_when_clocks_are_set(zone: str, day: tuple[int, int, int], hours: float) -> None:
    """A day is as long as it is there: 23 hours, 25, or with half an hour more."""
    start_ms = epoch_ms(datetime(*day, tzinfo=ZoneInfo(zone)))
    first = next(split_span(TimeSpan(start_ms, start_ms + 3 * DAY_MS), "1d", ZoneInfo(zone)))
    assert (first.end_ms - first.start_ms) / HOUR_MS == hours


def test_a_day_that_was_left_out() -> None:
    """Apia went from the 29th to the 31st of December 2011: there is no bucket between."""
    zone = ZoneInfo("Pacific/Apia")
    start_ms = epoch_ms(datetime(2011, 12, 28, tzinfo=zone))
    end_ms = epoch_ms(datetime(2012, 1, 2, tzinfo=zone))
    days = [
        datetime.fromtimestamp(each.start_ms / 1000, zone).day
        for each in split_span(TimeSpan(start_ms, end_ms), "1d", zone)
    ]
    assert days == [28, 29, 31, 1]


def test_clocks_that_are_set_back_across_midnight() -> None:
    """In St. John's 2010-11-07 began twice: a report from between the two ends its first day."""
    zone = ZoneInfo("America/St_Johns")
    start_ms = epoch_ms(datetime(2010, 11, 6, 23, 30, fold=1, tzinfo=zone))
    days = [*split_span(TimeSpan(start_ms, start_ms + 2 * DAY_MS), "1d", zone)]
    begins = [datetime.fromtimestamp(each.start_ms / 1000, zone) for each in days]
    assert [(each.day, each.hour) for each in begins] == [(6, 23), (8, 0)]


def test_clocks_that_are_set_by_half_an_hour() -> None:
    """On Lord Howe hours begin where the clock shows a full one, also on that day."""
    zone = ZoneInfo("Australia/Lord_Howe")
    for day in ((2026, 4, 5), (2026, 10, 4)):
        start_ms = epoch_ms(datetime(*day, tzinfo=zone))
        hours = [*split_span(TimeSpan(start_ms, start_ms + 6 * HOUR_MS), "1h", zone)]
        begins = [datetime.fromtimestamp(each.start_ms / 1000, zone) for each in hours]
        assert {each.minute for each in begins} == {0}
        lengths = {(each.end_ms - each.start_ms) / HOUR_MS for each in hours[:-1]}
        assert lengths == {1.0, 1.5}


@given(spans, queries)
@settings(deadline=None, max_examples=60)
def test_runs_read_each_moment_once(span: TimeSpan, query: UsageQuery) -> None:
    """The parts that are read make up the buckets, and rows of roll-ups lie wholly in one."""
    spans = list(split_span(span, query.width, query.zone))
    parts = []
    for run in plan_reads(spans, ("days", "hours", "records")):
        grid_ms = {"days": DAY_MS, "hours": HOUR_MS, "records": 1}[run.source]
        for number, start_ms in enumerate(range(run.span.start_ms, run.span.end_ms, run.piece_ms)):
            end_ms = start_ms + run.piece_ms
            assert start_ms % grid_ms == end_ms % grid_ms == 0
            bucket = spans[run.first_bucket + number]
            assert bucket.start_ms <= start_ms < end_ms <= bucket.end_ms
            parts.append((start_ms, end_ms))
    parts.sort()
    assert (parts[0][0], parts[-1][1]) == (span.start_ms, span.end_ms)
    assert all(before[1] == after[0] for before, after in pairwise(parts))


def test_a_month_by_day_is_one_query() -> None:
    """Whole days are read from sums of days at once; a start in mid-hour costs lines once."""
    month = TimeSpan(STARTS[0], STARTS[0] + 30 * DAY_MS)
    utc, berlin = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
    sources = ("days", "hours", "records")
    [run] = plan_reads(split_span(month, "1d", utc), sources)
    assert (run.source, run.span, run.piece_ms) == ("days", month, DAY_MS)
    late = TimeSpan(month.start_ms + HOUR_MS // 2, month.end_ms)
    assert [each.source for each in plan_reads(split_span(late, "1d", utc), sources)] == [
        "days", "hours", "records",
    ]  # fmt: skip
    there = plan_reads(split_span(month, "1d", berlin), sources)
    assert {each.source for each in there} == {"hours"}
    assert len(there) == 3, "two parts of 23 hours, all days after them, and the last part"


def test_sums_are_those_of_the_lines(any_database: Engine) -> None:
    """In any zone, by any time and group, of any of them, roll-ups say what the lines say."""
    lines = some_lines()
    record(any_database, lines)
    usage = UsageReports(any_database)

    @given(spans, queries)
    @settings(deadline=None, max_examples=60)
    def check(span: TimeSpan, query: UsageQuery) -> None:
        wanted = list(split_span(span, query.width, query.zone))
        assert told(usage.sum_usage(query, wanted)) == naive(lines, wanted, query)

    check()
    everything = UsageQuery(group_by=("model", "end_user"), width="1mo")
    found = told(usage.sum_usage(everything))
    assert sum(each[0] for each in found.values()) == sum(figures(each)[0] for each in lines)
    in_order = [(each.bucket.start_ms, *((v or "") for v in each.group)) for each in
                usage.sum_usage(everything)]  # fmt: skip
    assert in_order == sorted(in_order)


def test_minutes_are_those_of_the_lines(any_database: Engine) -> None:
    """A minute holds the lines from its first millisecond to its last."""
    start_ms = STARTS[0]
    times = [start_ms - 1, start_ms, start_ms + 59_999, start_ms + 60_000, start_ms + 119_999]
    record(any_database, [line(number, at_ms) for number, at_ms in enumerate(times)])
    spans = list(
        split_span(TimeSpan(start_ms, start_ms + 120_000), "1m", ZoneInfo("Asia/Kathmandu"))
    )
    found = UsageReports(any_database).sum_usage(UsageQuery(width="1m"), spans)
    assert [(each.bucket, each.totals.requests) for each in found] == [
        (spans[0], 2), (spans[1], 2),
    ]  # fmt: skip


def test_nothing_is_scanned(any_database: Engine) -> None:
    """No query of whole hours and days reads a line, and none walks through a whole table."""
    record(any_database, some_lines(count=50))
    said: list[tuple[str, object]] = []
    event.listen(
        any_database, "before_cursor_execute", lambda *args: said.append((args[2], args[3]))
    )
    usage = UsageReports(any_database)
    spans = list(split_span(TimeSpan(STARTS[0], STARTS[0] + 31 * DAY_MS), "1d", ZoneInfo("UTC")))
    for by in (("model",), ("end_user",), ("project_id", "key_id")):
        said.clear()
        usage.sum_usage(UsageQuery(group_by=by, filters=(UsageFilter("model", ("m",)),)), spans)
        sums = [each for each in said if "GROUP BY" in each[0]]
        assert len(sums) == 1
        assert "FROM usage_" in sums[0][0]
        assert "FROM usage \n" not in sums[0][0]
        with any_database.connect() as connection:
            if any_database.dialect.name == "sqlite":
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sums[0][0]}", sums[0][1])
            else:
                connection.exec_driver_sql("SET enable_seqscan = off")
                plan = connection.exec_driver_sql(f"EXPLAIN {sums[0][0]}", sums[0][1])
            shown = "\n".join(map(str, plan.all()))
            connection.rollback()
        assert "at_ms>? AND at_ms<?" in shown or "Index Cond: ((at_ms >=" in shown, shown


def test_pruned_lines(any_database: Engine) -> None:
    """What needs lines that were pruned is refused and says what works; what does not, works."""
    record(any_database, [line(1, STARTS[0] + 1), line(2, STARTS[0] + 2 * DAY_MS)])
    kept_ms = STARTS[0] + DAY_MS
    with any_database.begin() as connection:
        connection.execute(insert(installation).values(name=RECORDS_FROM, value=str(kept_ms)))
    usage, all_of_it = UsageReports(any_database), STARTS[0]
    assert (
        len(usage.sum_usage(UsageQuery(width="1h", group_by=("end_user",)), since_ms=all_of_it))
        == 2
    )
    for query, since_ms in (
        (UsageQuery(group_by=("metadata.team",)), all_of_it),
        (UsageQuery(width="1d", zone=ZoneInfo("Asia/Kolkata")), all_of_it),
        (UsageQuery(), all_of_it + 1),
        (UsageQuery(filters=(UsageFilter("metadata.team", ("x",)),)), None),
    ):
        with pytest.raises(InvalidRequest, match=r"kept since 2026-03-29T00:00:00\+00:00.*full"):
            usage.sum_usage(query, since_ms=since_ms)
    assert len(usage.sum_usage(UsageQuery(group_by=("metadata.team",)), since_ms=kept_ms)) == 1
    with pytest.raises(InvalidRequest):
        list(usage.read_records(since_ms=all_of_it))


# The API


CALLERS = {
    "admin": Caller(key_id="key_admin", project=None, scopes=frozenset({"admin"})),
    "a": Caller(
        key_id="key_a",
        project=Project(id="proj_a", name="a", created_ms=0),
        scopes=frozenset({"usage"}),
    ),
    "plain": Caller(
        key_id="key_b",
        project=Project(id="proj_a", name="a", created_ms=0),
        scopes=frozenset({"embeddings", "keys", "tokens"}),
    ),
}
CALLERS["ann"] = msgspec.structs.replace(
    CALLERS["a"], on_behalf_of="ann", scopes=frozenset({"usage", "admin"})
)
USAGE = "/v1/organization/usage/embeddings"


def caller(authorization: str = Header()) -> Caller:
    return CALLERS[authorization.removeprefix("Bearer ")]


def application(engine: Engine) -> FastAPI:
    """The routes on their own."""
    app = FastAPI()
    errors.install(app)
    app.include_router(router(UsageReports(engine), caller=Depends(caller), now_ms=lambda: NOW_MS))
    return app


def client_of(engine: Engine, who: str = "admin") -> TestClient:
    """A client of the routes, as one of `CALLERS`."""
    app = application(engine)
    return TestClient(
        app, headers={"authorization": f"Bearer {who}"}, raise_server_exceptions=False
    )


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """The URL of the routes on a socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application(engine), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with `some_lines`."""
    engine = database.connect(tmp_path_factory.mktemp("usage") / "test.db")
    record(engine, some_lines())
    yield engine
    engine.dispose()


def asked(client: TestClient, path: str = USAGE, **parameters: object) -> dict:
    answer = client.get(path, params={"start_time": STARTS[0] // 1000} | parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def all_pages(client: TestClient, path: str = USAGE, **parameters: object) -> list[dict]:
    """The buckets of all pages."""
    page = asked(client, path, **parameters)
    found = page["data"]
    while page["has_more"]:
        page = asked(client, path, **parameters, page=page["next_page"])
        found += page["data"]
    assert page["next_page"] is None
    return found


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_pages_join(filled: Engine, zone: str) -> None:
    """Pages of any size together are the whole: no bucket is lost, there twice or out of order."""
    client, end = client_of(filled), (STARTS[0] + 3 * DAY_MS) // 1000
    more = {"end_time": end, "group_by": ["model", "user_id"], "time_zone": zone}
    whole = asked(client, limit=31, **more)
    assert not whole["has_more"]
    assert any(each["results"] for each in whole["data"])
    for limit in (1, 2, 3):
        assert all_pages(client, limit=limit, **more) == whole["data"]
    hours = all_pages(client, bucket_width="1h", limit=7, **more)
    assert sum(r["input_tokens"] for b in hours for r in b["results"]) == sum(
        r["input_tokens"] for b in whole["data"] for r in b["results"]
    )


def test_the_shape(filled: Engine) -> None:
    """Buckets without usage are there, results are null but for their groups, fields are known."""
    client = client_of(filled)
    page = asked(client, group_by=["project_id", "metadata.team"], limit=5)
    assert (page["object"], page["has_more"], len(page["data"])) == ("page", True, 5)
    assert [each["results"] for each in page["data"][3:]] == [[], []]
    first = page["data"][0]
    assert (first["object"], first["start_time"]) == ("bucket", STARTS[0] // 1000)
    assert first["end_time"] - first["start_time"] == 86_400
    for each in first["results"]:
        assert set(each) == set(UsageResult.model_fields)
        assert each["object"] == "organization.usage.embeddings.result"
        assert each["user_id"] is each["api_key_id"] is each["model"] is each["provider"] is None
        assert set(each["metadata"]) == {"team"}
    assert {each["project_id"] for each in first["results"]} == {None, "proj_a", "proj_b"}
    assert (
        asked(client, "/api/v1/llm/usage/embeddings", limit=1)["data"]
        == asked(client, limit=1)["data"]
    )


def test_costs_are_exact(tmp_path: Path) -> None:
    """Amounts have every digit, as a number, and line items are models."""
    engine = database.connect(tmp_path / "test.db")
    record(engine, [line(1, STARTS[0], cost_nano_usd=12_345_678_901_234_567, tokens=9),
                    line(2, STARTS[0], cost_nano_usd=1, model="n")])  # fmt: skip
    client = client_of(engine)
    answer = client.get(
        "/v1/organization/costs",
        params={"start_time": STARTS[0] // 1000, "group_by": "line_item", "limit": 180},
    )
    body = json.loads(answer.text, parse_float=Decimal)
    one, other = body["data"][0]["results"]
    assert set(one) == set(CostsResult.model_fields)
    assert one["amount"] == {"value": Decimal("12345678.901234567"), "currency": "usd"}
    assert one["amount_nano_usd"] == 12_345_678_901_234_567
    assert (one["line_item"], one["quantity"], one["quantity_unit"]) == ("m", 9, "tokens")
    assert one["model"] is None
    assert (other["amount"]["value"], other["upstream_amount_nano_usd"]) == (Decimal("1e-9"), 4)
    only = asked(client, "/v1/organization/costs", line_items="n")["data"][0]["results"]
    assert [(each["amount_nano_usd"], each["quantity"]) for each in only] == [(1, None)]
    engine.dispose()


def test_the_openai_client(filled: Engine) -> None:
    """OpenAI's own client reads usage and costs, with its way of writing lists."""
    start, end = STARTS[0] // 1000, (STARTS[0] + DAYS * DAY_MS) // 1000
    with served(filled) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", admin_api_key="admin")
        asked = {
            "start_time": start, "end_time": end, "group_by": ["project_id", "model"],
            "project_ids": ["proj_a", "proj_b"], "models": ["m"], "limit": 2,
        }  # fmt: skip
        page = client.admin.organization.usage.embeddings(**asked)
        second = client.admin.organization.usage.embeddings(**asked, page=page.next_page)
        costs = client.admin.organization.usage.costs(
            start_time=start, end_time=end, group_by=["line_item"], bucket_width="1d"
        )
        client.close()
    assert page.has_more
    results = [each for bucket in page.data for each in bucket.results]
    assert {(each.project_id, each.model) for each in results} == {
        ("proj_a", "m"), ("proj_b", "m"),
    }  # fmt: skip
    assert all(each.object == "organization.usage.embeddings.result" for each in results)
    assert second.data[0].start_time == page.data[-1].end_time
    amounts = [each.amount for bucket in costs.data for each in bucket.results]
    assert amounts
    assert all(each.currency == "usd" and each.value > 0 for each in amounts)


BAD = [
    ({"start_time": None}, "start_time", "is missing"),
    ({"start_time": "-1"}, "start_time", "from 0 to"),
    ({"start_time": "1e9"}, "start_time", "whole number"),
    ({"start_time": "٣"}, "start_time", "whole number"),
    ({"start_time": "9" * 5000}, "start_time", "whole number"),
    ({"start_time": STARTS[0]}, "start_time", "in seconds"),
    ({"start_time": "1; DROP TABLE usage"}, "start_time", "whole number"),
    ({"start_time": NOW_MS // 1000 + 1}, "start_time", "not before the end"),
    ({"start_time": [1, 2]}, "start_time", "there twice"),
    ({"end_time": "0"}, "start_time", "not before the end"),
    ({"end_time": ""}, "end_time", "Unix time"),
    ({"bucket_width": "1w"}, "bucket_width", "one of 1d, 1h, 1m"),
    ({"limit": 0}, "limit", "from 1 to 31"),
    ({"limit": 32}, "limit", "from 1 to 31"),
    ({"limit": 169, "bucket_width": "1h"}, "limit", "from 1 to 168"),
    ({"limit": "ten"}, "limit", "from 1 to 31"),
    ({"group_by": "tokens"}, "group_by", "one of project_id"),
    ({"group_by": "model; --"}, "group_by", "one of project_id"),
    ({"group_by": "line_item"}, "group_by", "one of project_id"),
    ({"group_by": "metadata."}, "group_by", "1 to 64"),
    ({"group_by": "metadata." + "k" * 65}, "group_by", "1 to 64"),
    ({"group_by": [f"metadata.{n}" for n in range(9)]}, "group_by", "the most is 8"),
    ({"time_zone": "Mars/Olympus"}, "time_zone", "Europe/Berlin"),
    ({"time_zone": "../../../etc/passwd"}, "time_zone", "Europe/Berlin"),
    ({"models": "a\0"}, "models", "NUL"),
    ({"metadata.a\0": "x"}, "group_by", "1 to 64"),
    ({"project_id": "proj_a"}, "project_id", "no parameter"),
    ({"models": ["m"] * 501}, None, "the most is 500"),
    ({"page": "x"}, "page", "no page of this query"),
    ({"page": "ü"}, "page", "no page of this query"),
    ({"page": "A" * 43}, "page", "no page of this query"),
]


@pytest.mark.parametrize(("parameters", "param", "said"), BAD)
def test_what_is_not_possible(
    filled: Engine, parameters: dict, param: str | None, said: str
) -> None:
    """Each error is a 400 that names the parameter and says what to send."""
    given = {"start_time": STARTS[0] // 1000} | parameters
    answer = client_of(filled).get(USAGE, params={k: v for k, v in given.items() if v is not None})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]
    assert len(error["message"]) < 400


def test_a_page_is_of_its_query(filled: Engine) -> None:
    """A cursor works for the query it came from, unchanged, and for no other."""
    client = client_of(filled)
    token = asked(client, limit=1)["next_page"]
    assert asked(client, limit=2, page=token)["data"][0]["start_time"] == STARTS[0] // 1000 + 86_400
    start = {"start_time": STARTS[0] // 1000, "page": token}
    for other in (
        {"group_by": "model"}, {"models": "m"}, {"time_zone": "Europe/Berlin"},
        {"bucket_width": "1h"}, {"start_time": STARTS[0] // 1000 + 1},
        {"end_time": NOW_MS // 1000}, {"metadata.team": "x"},
        *({"page": token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]}
          for at in range(0, len(token), 5)),
    ):  # fmt: skip
        assert client.get(USAGE, params=start | other).status_code == 400, other
    costs = client.get("/v1/organization/costs", params=start)
    assert costs.status_code == 400


def test_a_page_that_a_client_made_up(filled: Engine) -> None:
    """A cursor with a right checksum is refused where its time is not part of the query's."""
    start_s = STARTS[0] // 1000
    asked = EmbeddingsUsageRequest.model_validate({"start_time": str(start_s)})
    for span in (TimeSpan(0, NOW_MS), TimeSpan(STARTS[0], 2**64 - 1), TimeSpan(NOW_MS, NOW_MS)):
        given = {"start_time": start_s, "page": asked.cursor(span)}
        answer = client_of(filled).get(USAGE, params=given)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "page")


INJECTIONS = ("' OR 1=1 --", '"; DROP TABLE usage; --', "%' UNION SELECT * FROM keys --", "\\", "?",
              ":x", "%s", "%(x)s", "{}", "$1")  # fmt: skip


def test_sql_is_inert(any_database: Engine) -> None:
    """SQL in a filter or the name of a metadata key is a value that nothing has."""
    record(any_database, some_lines(count=60))
    client = client_of(any_database)
    before = all_pages(client, group_by="model")
    for text in INJECTIONS:
        for name in ("project_ids", "user_ids", "api_key_ids", "models", "providers"):
            page = asked(client, **{name: text})
            assert [each for each in page["data"] if each["results"]] == []
        groups = asked(client, group_by=f"metadata.{text}")["data"]
        values = {r["metadata"][text] for each in groups for r in each["results"]}
        assert values <= {None}
        filtered = asked(client, **{f"metadata.{text}": "x"})["data"]
        assert not any(each["results"] for each in filtered)
    assert all_pages(client, group_by="model") == before


def test_rights(filled: Engine) -> None:
    """A key sees its project only, an end user's token that user only, and most keys nothing."""
    everything = {"group_by": ["project_id", "user_id"], "limit": 31}

    def groups(who: str, **parameters: object) -> set:
        data = asked(client_of(filled, who), **everything, **parameters)["data"]
        return {(r["project_id"], r["user_id"]) for each in data for r in each["results"]}

    assert {project for project, _ in groups("admin")} == {None, "proj_a", "proj_b"}
    assert {project for project, _ in groups("a")} == {"proj_a"}
    assert groups("a", project_ids="proj_a") == groups("a")
    assert groups("ann") == groups("ann", user_ids="ann") == {("proj_a", "ann")}
    for who, parameters in (
        ("a", {"project_ids": ["proj_a", "proj_b"]}),
        ("a", {"project_ids": ""}),
        ("ann", {"user_ids": "bob"}),
        ("ann", {"project_ids": "proj_b"}),
        ("plain", {}),
    ):
        for path in (USAGE, "/api/v1/llm/usage/embeddings", "/v1/organization/costs"):
            client = client_of(filled, who)
            answer = client.get(path, params={"start_time": STARTS[0] // 1000} | parameters)
            assert answer.status_code == 403, (who, parameters)
            assert answer.json()["error"]["code"] == "insufficient_permissions"


REFUSALS_PATH = "/v1/organization/usage/refusals"


def test_refused_requests_over_http(any_database: Engine) -> None:
    """A key sees the refusals of its project, an end user none; groups are as documented."""
    rows = [(STARTS[0], "proj_a", "key_a", "insufficient_quota", 2), (STARTS[0], "", "", "x", 3),
            (STARTS[0] + DAY_MS, "proj_b", "key_b", "x", 4)]  # fmt: skip
    refuse(any_database, rows)
    admin = client_of(any_database)
    first, second = asked(admin, REFUSALS_PATH, limit=2, group_by=["project_id", "reason"])["data"]
    assert [(r["project_id"], r["reason"], r["num_requests"]) for r in first["results"]] == [
        (None, "x", 3), ("proj_a", "insufficient_quota", 2),
    ]  # fmt: skip
    assert set(first["results"][0]) == set(RefusalsResult.model_fields)
    [only] = second["results"]
    assert (only["project_id"], only["num_requests"]) == ("proj_b", 4)
    pages = all_pages(admin, REFUSALS_PATH, limit=1, reasons="x")
    assert [r["num_requests"] for bucket in pages for r in bucket["results"]] == [3, 4]
    own = asked(client_of(any_database, "a"), REFUSALS_PATH)["data"]
    assert [r["num_requests"] for bucket in own for r in bucket["results"]] == [2]
    start = {"start_time": STARTS[0] // 1000}
    for who, status, more in (
        ("ann", 403, {}), ("plain", 403, {}), ("a", 403, {"project_ids": "proj_b"}),
        ("admin", 400, {"group_by": "model"}), ("admin", 400, {"metadata.team": "x"}),
    ):  # fmt: skip
        answer = client_of(any_database, who).get(REFUSALS_PATH, params=start | more)
        assert answer.status_code == status, (who, more)
        assert "metadata.KEY" not in answer.text


def test_names_beside_ids(tmp_path: Path) -> None:
    """Projects and keys have their names beside their ids, but not for an end user's token."""
    engine = database.connect(tmp_path / "test.db")
    record(engine, [line(1, STARTS[0], user="ann"), line(2, STARTS[0], project_id="", key_id="")])
    with write_organization(engine) as organisation:
        organisation.projects.add(Project(id="proj_a", name="web", created_ms=1))
    groups = {"group_by": ["project_id", "api_key_id"]}
    for path in (USAGE, "/v1/organization/costs"):
        nobody, found = asked(client_of(engine), path, **groups)["data"][0]["results"]
        assert (found["project_name"], found["api_key_name"]) == ("web", None)
        assert nobody["project_name"] is None
        [found] = asked(client_of(engine, "ann"), path, **groups)["data"][0]["results"]
        assert (found["project_id"], found["project_name"]) == ("proj_a", None)
    engine.dispose()


def test_a_database_that_is_away(tmp_path: Path) -> None:
    """Usage that cannot be read is 503, not an empty page."""
    engine = database.connect(tmp_path / "test.db")
    client = client_of(engine)
    (tmp_path / "test.db").unlink()
    answer = client.get(USAGE, params={"start_time": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    engine.dispose()


def test_every_parameter_is_described(filled: Engine) -> None:
    """OpenAPI names every parameter of each endpoint."""
    client = client_of(filled)
    paths = client.get("/openapi.json").json()["paths"]
    for path, endpoint in (
        (USAGE, EmbeddingsUsageRequest), ("/v1/organization/costs", CostsRequest),
        (REFUSALS_PATH, RefusalsRequest),
    ):  # fmt: skip
        names = {each["name"] for each in paths[path]["get"]["parameters"]} - {"authorization"}
        assert names == {"start_time", "end_time", "bucket_width", "limit", "page", "time_zone",
                         "group_by", *endpoint.filters}  # fmt: skip


# The command line


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a data folder with usage of two days around the end of summer time."""
    folder = tmp_path_factory.mktemp("home")
    engine = database.connect(folder / "embedway.db")
    berlin = ZoneInfo("Europe/Berlin")
    times = [datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1)]
    record(
        engine,
        [
            line(1, epoch_ms(times[0]), metadata={"team": 'größe, "x"'}, user="=1+1"),
            line(2, epoch_ms(times[1]), cost_nano_usd=2**53 + 1, model="n", on_behalf_of="ann"),
            line(3, epoch_ms(times[1]) + DAY_MS, failed_calls=2, user="line\nbreak"),
            line(4, epoch_ms(times[1]) + DAY_MS, status=400, key_id="key_b", user=""),
        ],
    )  # fmt: skip
    with write_organization(engine) as organisation:
        for id, archived_ms in (("proj_a", None), ("proj_old", 2)):
            organisation.projects.add(
                Project(id=id, name=f"name of {id}", created_ms=1, archived_ms=archived_ms)
            )
        organisation.keys.add(
            Key(id="key_a", project_id="proj_a", name="k", digest=b"", hint="", scopes=(),
                created_ms=1)
        )  # fmt: skip
    engine.dispose()
    return {"EMBEDWAY_DATA_DIR": str(folder), "EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT": "false"}


def shown(home: dict[str, str], *arguments: str) -> list[dict]:
    """What `embedway usage --json` prints."""
    ran = CliRunner(env=home).invoke(commands, ["usage", *arguments, "--json"])
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_command(home: dict[str, str]) -> None:
    """Usage is summed by what is asked, in that order, in a time zone, of what is named."""
    rows = shown(home, "--by", "hour,user", "--time-zone", "Europe/Berlin")
    assert [(row["hour"], row["user"]) for row in rows] == [
        ("2026-10-25T02:00+02:00", "=1+1"),
        ("2026-10-25T02:00+01:00", "ann"),
        ("2026-10-26T02:00+01:00", None),
        ("2026-10-26T02:00+01:00", "line\nbreak"),
    ]
    assert list(rows[0]) == [
        "hour", "user", "requests", "errors", "items", "tokens", "cached_tokens",
        "estimated_tokens", "unpriced_tokens", "failed_calls", "cost_usd", "upstream_cost_usd",
    ]  # fmt: skip
    assert [(row["key"], row["month"], row["requests"], row["errors"], row["failed_calls"])
            for row in shown(home, "--by", "key,month")] == [
        ("key_a", "2026-10", 3, 0, 2), ("key_b", "2026-10", 0, 1, 0),
    ]  # fmt: skip
    assert [row["day"] for row in shown(home, "--by", "day", "--time-zone", "Asia/Kolkata")] == [
        "2026-10-25", "2026-10-26",
    ]  # fmt: skip
    by_team = shown(home, "--by", "metadata.team,on-behalf-of", "--user", "ann", "--user", "=1+1")
    assert [(row["metadata.team"], row["on_behalf_of"], row["tokens"]) for row in by_team] == [
        (None, "ann", 2), ('größe, "x"', None, 2),
    ]  # fmt: skip
    assert shown(home, "--by", "model", "--metadata", 'team=größe, "x"')[0]["requests"] == 1
    assert [row["requests"] for row in shown(home, "--by", "", "--model", "n", "--model", "m")] == [
        3
    ]
    late = shown(
        home, "--by", "model", "--since", "2026-10-26T02:00", "--time-zone", "Europe/Berlin"
    )
    assert [row["requests"] for row in late] == [1]
    assert shown(home, "--since", "2999-01-01") == []


def test_at_a_terminal(tmp_path: Path) -> None:
    """A usual report fits 100 columns: names beside whole ids, and no columns of zeros."""
    home = {"EMBEDWAY_DATA_DIR": str(tmp_path)}
    engine = database.connect(tmp_path / "embedway.db")
    project, key = "proj_4be27885400d466b", "key_81326c2d31580449"
    paid = {"tokens": 123_456_789, "cost_nano_usd": 2_469_135_780, "upstream_cost_nano_usd": 0}
    mine = {"project_id": project, "key_id": key, "user": "alice", "status": 200, **paid}
    record(engine, [line(1, NOW_MS, **mine), line(2, NOW_MS, **mine | {"status": 502})])
    with write_organization(engine) as organisation:
        organisation.projects.add(Project(id=project, name="web", created_ms=1))
        organisation.keys.add(
            Key(id=key, project_id=project, name="shop", digest=b"", hint="", scopes=(),
                created_ms=1)
        )  # fmt: skip
    engine.dispose()
    printed = at_terminal("usage", "--by", "project,key,user", env=home, columns=100)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed).replace("\r", "")
    _, _, table = plain.rpartition("\nproject")  # after the line that names the database
    header, names, ids = f"project{table}".rstrip("\n").split("\n")
    assert max(map(len, (header, names, ids))) <= 100
    assert header.split() == [
        "project", "key", "user", "requests", "errors", "items", "tokens", "cost", "usd",
    ]  # fmt: skip
    assert names.split() == ["web", "shop", "alice", "1", "1", "1", "123456789", "2.46913578"]
    assert ids.split() == [project, key]
    [row] = shown(home, "--by", "project,key")
    assert list(row)[:4] == ["project", "project_name", "key", "key_name"]
    assert (row["project_name"], row["key_name"], row["unpriced_tokens"]) == ("web", "shop", 0)
    [row] = written(home, tmp_path / "a.csv", "--by", "project,key")
    assert list(row)[:4] == ["project", "project_name", "key", "key_name"]
    assert (row["project_name"], row["key_name"]) == ("web", "shop")


@pytest.mark.parametrize("user", ["\x1b]0;title\x07\x1b[31mred", "a\nkey_forged", "\u202egnp.exe"])
def test_what_clients_send_steers_no_terminal(tmp_path: Path, user: str) -> None:
    """Ids of end users and metadata are shown with all that is not printable written out."""
    home = {"EMBEDWAY_DATA_DIR": str(tmp_path)}
    engine = database.connect(tmp_path / "embedway.db")
    record(engine, [line(1, NOW_MS, user=user, metadata={"team": user})])
    engine.dispose()
    written_out = user.encode("unicode_escape").decode()
    for by in ("user", "metadata.team"):
        piped = CliRunner(env=home).invoke(commands, ["usage", "--by", by]).stdout
        for printed in (at_terminal("usage", "--by", by, env=home, columns=100), piped):
            assert written_out in printed
            assert user not in printed


def test_whose_usage(home: dict[str, str]) -> None:
    """Projects are named by id or name, archived ones by id; keys by id; '' is nobody."""
    for arguments, requests in (
        (("--project", "proj_a"), [3]),
        (("--project", "name of proj_a", "--project", ""), [3]),
        (("--project", "proj_old"), []),
        (("--project", ""), []),
        (("--key", "key_a", "--key", ""), [3]),
        (("--key", "issuer:corp"), []),
    ):
        found = [row["requests"] for row in shown(home, "--by", "project", *arguments)]
        assert found == requests, arguments
    for arguments in (
        ("--project", "name of proj_old"),
        ("--project", "proj_a", "--project", "web"),
        ("--project", "\udcff"),
        ("--key", "key_x"),
    ):
        ran = CliRunner(env=home).invoke(commands, ["usage", *arguments])
        assert isinstance(ran.exception, NotFound), arguments


def refused(home: dict[str, str], *arguments: str) -> str:
    """The error of a call that is not understood."""
    ran = CliRunner(env=home).invoke(commands, ["usage", *arguments])
    assert ran.exit_code == 2, ran.stdout
    return ran.stderr


def test_refused_requests(home: dict[str, str], tmp_path: Path) -> None:
    """Refused requests are counted by time, project, key and reason, and by nothing else."""
    engine = database.connect(Path(home["EMBEDWAY_DATA_DIR"]) / "embedway.db")
    rows = [(STARTS[0], "proj_a", "key_a", "insufficient_quota", 2), (STARTS[0], "", "", "x", 3),
            (STARTS[0] + DAY_MS, "proj_a", "key_b", "=1+1", 1)]  # fmt: skip
    refuse(engine, rows)
    found = shown(home, "--refused")
    assert [tuple(row.values()) for row in found] == [
        ("2026-03-28", None, None, "x", 3),
        ("2026-03-28", "proj_a", "name of proj_a", "insufficient_quota", 2),
        ("2026-03-29", "proj_a", "name of proj_a", "=1+1", 1),
    ]
    assert list(found[0]) == ["day", "project", "project_name", "reason", "requests"]
    only = shown(home, "--refused", "--by", "key", "--key", "key_a", "--until", "2026-03-29")
    assert only == [{"key": "key_a", "key_name": "k", "requests": 2}]
    [row] = written(home, tmp_path / "a.csv", "--refused", "--by", "reason", "--project", "proj_a",
                    "--since", "2026-03-29")  # fmt: skip
    assert row == {"reason": "'=1+1", "requests": "1"}
    for arguments, said in (
        (("--refused", "--by", "model"), "Choose from: day, hour, month, project, key, reason"),
        (("--refused", "--user", "ann"), "counted by project and key"),
        (("--refused", "--lines", "--output", str(tmp_path / "x.csv")), "no records"),
        (("--by", "reason"), "nothing is summed by 'reason'"),
    ):
        assert said in refused(home, *arguments), arguments
    ran = CliRunner(env=home).invoke(commands, ["usage", "--user", "ann"])
    assert "Refused" not in ran.stdout, "they are of no end user"
    with engine.begin() as connection:
        connection.execute(delete(refusals))
    engine.dispose()


def test_what_the_command_refuses(home: dict[str, str], tmp_path: Path) -> None:
    """What is not possible is said in a line, with what is."""
    for arguments, said in (
        (("--by", "week"), "--by 'week' is not possible: nothing is summed by 'week'. Choose from"),
        (("--by", "day,month"), "--by 'day,month' has 'day' and 'month'. Choose one of them."),
        (("--by", "model,day,model"), "--by 'model,day,model' has 'model' more than once."),
        (("--time-zone", "Berlin"), "There is no time zone 'Berlin'"),
        (
            ("--since", "2026-01-02", "--until", "2026-01-01T13:30"),
            "--since '2026-01-02' is not before --until '2026-01-01T13:30'",
        ),
        (("--metadata", "team"), "write KEY=VALUE"),
        (("--user", "\udcff"), "not UTF-8"),
        (("--lines",), "--lines needs --output"),
        (("--output", "usage.xlsx"), ".csv or .parquet"),
        (("--output", str(tmp_path / "no" / "x.csv")), "there is no folder"),
        (("--output", str(tmp_path / "x.csv"), "--json"), "Leave one of them out"),
    ):
        assert said in refused(home, *arguments), arguments
    assert list(tmp_path.iterdir()) == []


def written(home: dict[str, str], output: Path, *arguments: str) -> list[dict]:
    """The rows of the file that is written."""
    ran = CliRunner(env=home).invoke(commands, ["usage", *arguments, "--output", str(output)])
    assert ran.exit_code == 0, ran.stderr
    assert str(output) in ran.stdout
    if output.suffix == ".parquet":
        return pyarrow.parquet.read_table(output).to_pylist()
    with output.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_exported_sums_are_exact(home: dict[str, str], tmp_path: Path) -> None:
    """Files hold costs as whole nano-dollars and as exact decimals."""
    [_, row] = written(home, tmp_path / "a.parquet", "--by", "model")
    assert (row["model"], row["requests"], row["cost_nano_usd"]) == ("n", 1, 2**53 + 1)
    assert row["cost_usd"] == Decimal(2**53 + 1).scaleb(-9)
    [small, row] = written(home, tmp_path / "a.csv", "--by", "model")
    assert (small["cost_usd"], row["cost_usd"]) == ("0.000000006", "9007199.254740993")
    assert row["cost_nano_usd"] == str(2**53 + 1)
    none = written(home, tmp_path / "none.parquet", "--since", "2999-01-01")
    assert none == []
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "a.csv",
        "a.parquet",
        "none.parquet",
    ]


def test_exported_lines(home: dict[str, str], tmp_path: Path) -> None:
    """Every field of every line is in the file as it is; a formula in CSV is only text."""
    rows = written(home, tmp_path / "lines.parquet", "--lines", "--time-zone", "Europe/Berlin")
    assert [row["id"] for row in rows] == [f"embd_{number}" for number in (1, 2, 3, 4)]
    first, second, third, fourth = rows
    assert json.loads(first["metadata"]) == {"team": 'größe, "x"'}
    assert "größe" in first["metadata"]
    assert first["at"] == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert (first["user"], first["on_behalf_of"], third["user"]) == ("=1+1", None, "line\nbreak")
    assert (second["user"], fourth["user"], first["estimated"]) == (None, "", False)
    assert (second["cost_nano_usd"], second["cost_usd"]) == (
        2**53 + 1, Decimal(2**53 + 1).scaleb(-9),
    )  # fmt: skip
    as_text = written(home, tmp_path / "lines.csv", "--lines", "--until", "2026-10-26")
    assert [row["user"] for row in as_text] == ["'=1+1", ""]
    assert as_text[0]["metadata"] == first["metadata"]
    raw = written(home, tmp_path / "some.csv", "--lines", "--model", "n", "--user", "ann")
    assert [row["id"] for row in raw] == ["embd_2"]


def insert_many(engine: Engine, count: int) -> None:
    """Inserts lines faster than the ledger would; their sums are not added to, but their day is."""
    rows = [
        msgspec.structs.asdict(line(number, STARTS[0] + number // 7)) | {"end_user": ""}
        for number in range(count)
    ]
    sums = dict.fromkeys(SUMS, 0)
    with engine.begin() as connection:
        connection.execute(
            insert(usage_days).values(
                at_ms=STARTS[0], project_id="p", key_id="k", model="m", provider="p", **sums
            )
        )
        connection.execute(insert(usage_lines), rows)


def test_many_lines_are_exported_in_pieces(any_database: Engine) -> None:
    """Lines come oldest first, a bounded number at a time, each once."""
    count = 2 * RECORDS_PER_BATCH + 1
    insert_many(any_database, count)
    batches = list(UsageReports(any_database).read_records())
    assert [len(each) for each in batches] == [RECORDS_PER_BATCH, RECORDS_PER_BATCH, 1]
    rows = [row for each in batches for row in each]
    assert len({row[0] for row in rows}) == count
    times = [row[2] for row in rows]
    assert times == sorted(times)


def test_nobody_asks_for_ever(any_database: Engine) -> None:
    """What takes too long is ended and refused with what to do, and what comes next is answered."""
    insert_many(any_database, 4_000)
    query, day = UsageQuery(group_by=("metadata.team",)), TimeSpan(STARTS[0], STARTS[0] + DAY_MS)
    hasty = UsageReports(any_database, time_limit_s=0.001)
    with pytest.raises(InvalidRequest, match=r"longer than 0\.001 s"):
        hasty.sum_usage(query, [day], max_results=10)
    for usage in (hasty, UsageReports(any_database)):
        assert usage.sum_usage(query, [day])[0].totals.requests == 4_000
