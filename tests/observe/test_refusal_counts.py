"""Refused requests: who was refused, and why, is counted, logged and shown."""

import asyncio
import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

from conftest import Client, Gateway, get
from raw_http import until
from servers import broken_commits
from sqlalchemy import Engine
from typer.testing import CliRunner

from embedway.cli import commands
from embedway.core.clock import now_ms
from embedway.core.limit import Limit
from embedway.ledger.query import UsageFilter, UsageQuery
from embedway.ledger.refusals import RefusalStore
from embedway.ledger.reports import UsageReports
from embedway.observe.refusals import RefusalCounts
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService
from embedway.storage import database
from embedway.storage.store import open_store

ADMIN = Actor.at_command_line("tests")
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 18 * 3_600_000 + 29 * 60_000
"""A minute before midnight in India."""


def counted(engine: Engine, *by: str, **query: object) -> dict:
    """How many requests of each group were refused."""
    found = UsageReports(engine).count_refusals(UsageQuery(group_by=by, **query))
    return {each.group: each.requests for each in found}


def test_who_is_refused(gateway: Gateway) -> None:
    """The log names whose request was refused and why; metrics, reports and HTTP count it."""
    store = open_store(Path(gateway.env["EMBEDWAY_DATA_DIR"]))
    acts = AdminService(store.database, pepper=store.pepper, now_ms=now_ms)
    project = acts.create_project(ADMIN, {"name": "refused"})
    limit = Limit(of="requests", amount=1, per="day")
    changes = {"name": "one a day", "limits": (limit,)}
    secret, key = acts.create_key(ADMIN, project_id=project.id, changes=changes)
    other, reader, revoked = (
        acts.create_key(ADMIN, project_id=project.id, changes={"name": "k", "scopes": (scope,)})
        for scope in ("embeddings", "usage", "embeddings")
    )
    acts.revoke_key(ADMIN, revoked[1].id, project_id=project.id)
    refusals = 'embedway_refusals_total{reason="rate_limit_exceeded"}'
    before = sample(gateway, refusals)
    with Client(base_url=gateway.url, headers={"authorization": f"Bearer {secret}"}) as client:
        for id, status in (("whole", 200), ("limited-1", 429), ("limited-2", 429)):
            answer = client.post(
                "/v1/embeddings",
                json={"input": "a", "model": "auto", "user": "ada"},
                headers={"x-request-id": id, "x-on-behalf-of": "eve"},
            )
            assert answer.status_code == status
        for credential, body, headers in (
            (
                other[0],
                {"input": "a", "model": "gpt", "user": "ada"},
                {"x-request-id": "unknown-model"},
            ),
            (other[0], {"input": "a"}, {"x-request-id": "named", "x-on-behalf-of": "ada"}),
            (revoked[0], {"input": "a"}, {"x-request-id": "revoked"}),
            (other[0][:-1], {"input": "a"}, {"x-request-id": "mistyped"}),
        ):
            headers["authorization"] = f"Bearer {credential}"
            client.post("/v1/embeddings", json=body, headers=headers)
    assert sample(gateway, refusals) == before + 2
    metrics = get(f"{gateway.url}/metrics").text
    assert project.id not in metrics

    until(lambda: '"mistyped"' in gateway.log.read_text())
    lines = {
        line["request_id"]: line
        for line in map(json.loads, filter(is_json, gateway.log.read_text().splitlines()))
        if line["event"] == "answered"
    }
    told = {"project": project.id, "key": key.id, "end_user": "eve"}
    assert (told | {"model": "auto"}).items() <= lines["whole"].items()
    assert "reason" not in lines["whole"]
    # Refused before its body is read, so the model is not known.
    assert (told | {"reason": "rate_limit_exceeded"}).items() <= lines["limited-2"].items()
    unknown = {"reason": "model_not_found", "model": "gpt", "end_user": "ada"}
    assert unknown.items() <= lines["unknown-model"].items()
    assert lines["named"]["reason"] == "insufficient_permissions"
    assert lines["named"]["key"] == other[1].id
    assert lines["revoked"]["reason"] == lines["mistyped"]["reason"] == "invalid_api_key"
    assert lines["revoked"]["key"] == revoked[1].id
    assert not {"project", "key", "model"} & lines["mistyped"].keys()

    of_project = (UsageFilter("project_id", (project.id,)),)
    until(lambda: sum(counted(store.database, filters=of_project).values()) == 5)
    assert counted(store.database, "reason", filters=of_project) == {
        ("rate_limit_exceeded",): 2, ("model_not_found",): 1, ("insufficient_permissions",): 1,
        ("invalid_api_key",): 1,
    }  # fmt: skip
    printed = CliRunner(env=gateway.env).invoke(
        commands, ["usage", "--by", "key", "--project", project.id]
    )
    usage, refused = printed.stdout.split("\nRefused requests (--refused shows them by day):\n")
    assert "one a day" in usage
    assert f"refused ({project.id})" in refused
    assert "rate_limit_exceeded" in refused
    with Client(base_url=gateway.url, headers={"authorization": f"Bearer {reader[0]}"}) as client:
        answer = client.get(
            "/v1/organization/usage/refusals",
            params={"start_time": now_ms() // 1000 - 86_400,
                    "group_by": ["project_id", "api_key_id", "reason"]},
        )  # fmt: skip
    results = [each for bucket in answer.json()["data"] for each in bucket["results"]]
    limited = [each for each in results if each["reason"] == "rate_limit_exceeded"]
    assert limited == [
        {
            "object": "organization.usage.refusals.result", "project_id": project.id,
            "project_name": "refused", "api_key_id": key.id, "api_key_name": "one a day",
            "reason": "rate_limit_exceeded", "num_requests": 2,
        }
    ]  # fmt: skip
    assert {each["project_id"] for each in results} == {project.id}
    store.database.dispose()


def is_json(line: str) -> bool:
    return line.startswith("{")


def sample(gateway: Gateway, name: str) -> float:
    """The value of a metric with its labels; 0 before it is first counted."""
    lines = get(f"{gateway.url}/metrics", timeout=30).text.splitlines()
    return float(next((line.split()[-1] for line in lines if line.startswith(name)), 0))


def test_counts_of_several_processes(any_database: Engine) -> None:
    """What several processes count adds up, and quarter hours lie in the right day of any zone."""
    times = [NOW_MS]

    async def count() -> None:
        with closing(RefusalStore(any_database)) as store:
            processes = [RefusalCounts(store, now_ms=lambda: times[-1]) for _ in range(2)]
            for at_ms in (NOW_MS, NOW_MS + 60_000):
                times.append(at_ms)
                for each in processes:
                    for key in ("key_a", "key_a", "key_b"):
                        each.add("budget", project_id="proj_a", key_id=key)
                    each.add("invalid_api_key")
            await asyncio.gather(*(each.aclose() for each in processes))

    asyncio.run(count())
    assert counted(any_database, "project_id", "key_id", "reason") == {
        ("proj_a", "key_a", "budget"): 8, ("proj_a", "key_b", "budget"): 4,
        (None, None, "invalid_api_key"): 4,
    }  # fmt: skip
    kolkata = UsageQuery(width="1d", zone=ZoneInfo("Asia/Kolkata"))
    assert [each.requests for each in UsageReports(any_database).count_refusals(kolkata)] == [8, 8]
    late = UsageReports(any_database).count_refusals(UsageQuery(), since_ms=NOW_MS + 60_000)
    assert [each.requests for each in late] == [8]
    nobody = UsageQuery(filters=(UsageFilter("key_id", ("",)),))
    assert [each.requests for each in UsageReports(any_database).count_refusals(nobody)] == [4]


def test_counts_in_doubt_are_not_added_twice(postgres_url: str) -> None:
    """Counts whose commit is in doubt are given up: too few is better than too many."""
    engine = database.connect(postgres_url)

    async def count() -> None:
        with closing(RefusalStore(engine)) as store:
            counts = RefusalCounts(store, now_ms=lambda: NOW_MS)
            counts.add("in doubt")
            with broken_commits(engine, "refusals"):
                await counts.aclose()
            counts.add("afterwards")
            await counts.aclose()

    asyncio.run(count())
    assert counted(engine, "reason") == {("afterwards",): 1}
    engine.dispose()


def test_counts_wait_for_a_database_that_is_away(tmp_path: Path) -> None:
    """Refusals are counted while the database is away, and written once it is back."""
    engine = database.connect(tmp_path / "test.db")
    tried = Counter[str]()

    class Store(RefusalStore):
        async def add(self, counts) -> None:
            tried["to write"] += 1
            await super().add(counts)

    def rename(table: str, name: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")

    async def count() -> None:
        with closing(Store(engine)) as store:
            counts = RefusalCounts(store, now_ms=lambda: NOW_MS, write_every_s=0, max_waiting=2)
            rename("refusals", "away")
            for reason in ("a", "b", "c", "a"):
                counts.add(reason)
            while tried["to write"] < 3:
                await asyncio.sleep(0)
            counts.add("b")
            rename("away", "refusals")
            await counts.aclose()

    asyncio.run(count())
    assert counted(engine, "reason") == {("a",): 2, ("b",): 2}, "there was room for two sums"
    engine.dispose()
