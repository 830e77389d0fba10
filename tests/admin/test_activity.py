"""The activity of the last seconds: its numbers are those of what was sent."""

import statistics

import httpx
import pytest
from conftest import Gateway
from sqlalchemy import Engine, event, insert
from test_reports import line, record

from embedway.ledger import activity
from embedway.ledger.reports import UsageReports
from embedway.storage.tables import refusals

PATH = "/v1/organization/activity"
NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> dict[str, str]:
    """The headers of an administrator."""
    return {"authorization": f"Bearer {gateway.new_key('activity', '--admin')['key']}"}


def ask(gateway: Gateway, headers: dict[str, str], **parameters: object) -> httpx.Response:
    """Ask a gateway for its activity."""
    with gateway.client(headers=headers) as client:
        return client.get(PATH, params=parameters)


def test_counts_what_was_sent(gateway: Gateway, admin: dict[str, str]) -> None:
    """Requests, items, tokens and errors are those that were sent, by key and in total."""
    sender = gateway.new_key("activity sender")
    with gateway.client(headers={"authorization": f"Bearer {sender['key']}"}) as client:
        answers = [
            client.post("/v1/embeddings", json={"input": ["one", "two"]}).raise_for_status().json()
            for _ in range(4)
        ]
        assert client.post("/v1/embeddings", json={"input": "a", "model": "b"}).status_code == 404
    found = ask(gateway, admin, seconds=900, group_by="api_key_id").raise_for_status().json()
    [own] = [each for each in found["results"] if each["api_key_id"] == sender["id"]]
    assert own["api_key_name"] == "activity sender"
    assert (own["num_model_requests"], own["num_errors"], own["num_items"]) == (4, 1, 8)
    assert own["input_tokens"] == sum(each["usage"]["total_tokens"] for each in answers)
    assert 0 < own["latency_p50_ms"] <= own["latency_p99_ms"]
    for field in ("num_model_requests", "num_errors", "num_items", "input_tokens"):
        assert found["total"][field] == sum(each[field] for each in found["results"])
    assert found["replica"]["gauges"]["database_available"] == 1


def test_refused(gateway: Gateway, admin: dict[str, str]) -> None:
    """Only an admin key may ask, and a wrong parameter is named with the values to send."""
    for parameters, param, text in (
        ({"seconds": 7}, "seconds", "10, 60, 300 or 900"),
        ({"seconds": "x"}, "seconds", "10, 60, 300 or 900"),
        ({"group_by": "end_user"}, "group_by", "user_id"),
        ({"second": 60}, "second", "seconds"),
    ):
        refused = ask(gateway, admin, **parameters)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == param
        assert text in refused.json()["error"]["message"]
    usage_key = gateway.new_key("only usage", "--scope=usage")["key"]
    for key, status in ((usage_key, 403), ("sk-gateway-nope", 401)):
        refused = ask(gateway, {"authorization": f"Bearer {key}"})
        assert refused.status_code == status


def test_numbers(any_database: Engine) -> None:
    """Sums and exact percentiles are those of the records; old records and probes do not count."""
    latencies = {"a": list(range(1, 101)), "b": [7]}
    records = [
        line(number, NOW_MS - number, model=model, latency_us=latency)
        for number, (model, latency) in enumerate(
            (model, each) for model, values in latencies.items() for each in reversed(values)
        )
    ]
    records += [
        line(200, NOW_MS - 1, model="", status=404, latency_us=999),
        line(201, NOW_MS - 60_001, model="a"),
        line(202, NOW_MS - 1, model="a", key_id="", project_id="", latency_us=999),
    ]
    record(any_database, records)
    with any_database.begin() as connection:
        rows = [(NOW_MS, "p", "k", "rate_limit_exceeded", 3), (NOW_MS - 10**7, "p", "k", "x", 1)]
        names = refusals.c.keys()
        connection.execute(insert(refusals), [dict(zip(names, row, strict=True)) for row in rows])
    reports = UsageReports(any_database)
    found = reports.read_activity("model", since_ms=NOW_MS - 60_000, now_ms=NOW_MS)
    groups = {each.value: each for each in found.groups}
    assert found.groups[0].value == "a"
    assert set(groups) == {"a", "b", None}
    assert groups["a"].totals.requests == 100
    assert groups["a"].latency == activity.LatencyPercentiles(50, 99)
    assert groups["b"].latency == activity.LatencyPercentiles(7, 7)
    assert (groups[None].totals.errors, groups[None].latency) == (1, None)
    assert (found.all.totals.requests, found.all.totals.errors) == (101, 1)
    ordered = sorted([*latencies["a"], *latencies["b"]])
    assert found.all.latency == activity.LatencyPercentiles(statistics.median_low(ordered), 99)
    assert [each.requests for each in found.refusals] == [3]


def test_bounded(any_database: Engine) -> None:
    """However many records are recent, only the latest are read, by the index on time."""
    statements: list[tuple[str, object]] = []

    @event.listens_for(any_database, "before_cursor_execute")
    def note(_c, _cursor, statement, parameters, _context, _many) -> None:
        statements.append((statement, parameters))

    record(any_database, [line(number, NOW_MS - number) for number in range(5)])
    reports = UsageReports(any_database)
    found = reports.read_activity("provider", since_ms=NOW_MS - 60_000, now_ms=NOW_MS)
    assert found.all.totals.requests == 5
    empty = reports.read_activity("provider", since_ms=NOW_MS + 1, now_ms=NOW_MS + 2)
    assert (empty.groups, empty.all.totals.requests, empty.all.latency) == ([], 0, None)
    read = [each for each in statements if "FROM usage" in each[0] and each[0].startswith("SELECT")]
    assert len(read) >= 4
    if any_database.dialect.name == "sqlite":
        with any_database.connect() as connection:
            for statement, parameters in read:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps = [step[-1] for step in plan if " usage" in step[-1]]
                assert all("INDEX usage_by_time" in each for each in steps), steps
