"""What is summed by hour and day is what the lines say, whatever is recorded and however."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Postgres
from sqlalchemy import Engine, delete, insert, select, update
from typer.testing import CliRunner
from writing import write

from embedway.cli import commands, ledger
from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger import recount, retention
from embedway.ledger.commits import CommitRejected, LedgerEntry
from embedway.ledger.ledger import Ledger
from embedway.ledger.rollups import DAY_MS, HOUR_MS, ROLLUPS
from embedway.storage import database
from embedway.storage.tables import (
    holds,
    installation,
    usage,
    usage_days,
    usage_hours,
    usage_user_days,
)

DAY = 20_000 * DAY_MS
KEY = Subject(kind="key", id="key_a", project_id="proj_a")
PROJECT = Subject(kind="project", id="proj_a", project_id="proj_a")
END_USER = Subject(kind="end user", id="a/b", project_id="proj_a")


def line(id: str, **fields: object) -> UsageRecord:
    """A line with some fields of its own."""
    values = {
        "at_ms": DAY, "request_id": "req", "project_id": "proj_a", "key_id": "key_a",
        "on_behalf_of": None, "user": None, "metadata": {}, "model": "m", "provider": "p",
        "items": 1, "tokens": 2, "cost_nano_usd": 3, "upstream_cost_nano_usd": 4, "calls": 1,
        "failed_calls": 0, "latency_us": 5, "status": 200,
    }  # fmt: skip
    return UsageRecord(id=id, **(values | fields))


def record(engine: Engine, *requests: Sequence[UsageRecord], process: str = "p", **given) -> None:
    """Records each request, one after another."""
    ledger = Ledger(engine, process=process)

    async def all() -> None:
        for lines in requests:
            await write(ledger, lines, **given)

    asyncio.run(all())
    ledger.close()


def check(engine: Engine) -> list:
    """Where sums and lines differ, by the product's own means."""
    return [
        each
        for day in recount.recorded_days(engine)
        for each in recount.find_differences(engine, day)
    ]


def by_hand(lines: Sequence[UsageRecord], *, width_ms: int, end_users: bool) -> dict:
    """The sums of `lines`, made in the plainest way."""
    sums: dict = {}
    for each in lines:
        end_user = [each.on_behalf_of or each.user or ""] if end_users else []
        of = (each.project_id, each.key_id, each.model, each.provider, *end_user)
        key = (each.at_ms // width_ms * width_ms, *of)
        row = sums.setdefault(key, [0] * 11)
        answered, asked = each.status == 200, each.line == 0 and each.key_id != ""
        row[0] += answered and asked
        row[1] += asked and not answered
        if answered:
            row[2] += each.items
            row[3] += each.tokens
            row[4] += each.cached_tokens
            row[5] += each.tokens * each.estimated
            row[6] += each.tokens * (not each.priced)
            row[7] += each.cost_nano_usd
        row[8] += each.upstream_cost_nano_usd
        row[9] += each.calls
        row[10] += each.failed_calls
    return {key: tuple(row) for key, row in sums.items()}


def kept(engine: Engine, rollup: int) -> dict:
    """The rows of one of `ROLLUPS`."""
    table, width = ROLLUPS[rollup].table, len(ROLLUPS[rollup].key_columns)
    with engine.connect() as connection:
        return {tuple(row[:width]): tuple(row[width:]) for row in connection.execute(select(table))}


def committed(engine: Engine) -> list[UsageRecord]:
    """Every line that is kept."""
    with engine.connect() as connection:
        rows = connection.execute(select(usage)).mappings().all()
    return [
        UsageRecord(**{name: row[name] for name in UsageRecord.__struct_fields__}) for row in rows
    ]


names = st.sampled_from(["", "a", "b", "é/ü ", "'; DROP TABLE usage; --"])
counts = st.integers(0, 10**12)
drawn = st.fixed_dictionaries(
    {
        "at_ms": st.integers(DAY - 2 * DAY_MS, DAY + DAY_MS)
        | st.sampled_from([DAY - 1, DAY, DAY + HOUR_MS - 1, DAY + HOUR_MS, 0]),
        "project_id": names, "key_id": names, "on_behalf_of": st.none() | names,
        "user": st.none() | names, "model": names, "provider": names,
        "metadata": st.dictionaries(names, names, max_size=2),
        "items": st.integers(0, 2048), "tokens": counts, "cached_tokens": counts,
        "estimated": st.booleans(), "priced": st.booleans(), "cost_nano_usd": counts,
        "upstream_cost_nano_usd": counts, "calls": st.integers(0, 9),
        "failed_calls": st.integers(0, 9), "status": st.sampled_from([200, 200, 200, 400, 502]),
    }
)  # fmt: skip
requests = st.lists(st.lists(drawn, min_size=1, max_size=3), max_size=8)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A database for many examples, which each empty it first."""
    if request.param == "postgres":
        where = request.getfixturevalue("shared_postgres").url
    else:
        where = tmp_path_factory.mktemp("rollups") / "embedway.db"
    engine = database.connect(where)
    yield engine
    engine.dispose()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(requests, min_size=1, max_size=4))
def test_sums_are_those_of_the_lines(shared: Engine, groups: list):
    """Whatever is recorded, in whatever groups: lines are kept as they are, and sums are theirs."""
    with shared.begin() as connection:
        for table in (usage, *(each.table for each in ROLLUPS)):
            connection.execute(delete(table))
    ledger = Ledger(shared)
    lines = []
    for number, group in enumerate(groups):
        charges = [
            LedgerEntry(
                [line(f"embd_{number}_{at}", line=part, **one) for part, one in enumerate(each)]
            )
            for at, each in enumerate(group)
        ]
        assert ledger._commit(charges) == [None] * len(charges)
        lines += [each for charge in charges for each in charge.records]
    ledger.close()
    assert sorted(committed(shared), key=str) == sorted(lines, key=str)
    for at, rollup in enumerate(ROLLUPS):
        expected = by_hand(lines, width_ms=rollup.width_ms, end_users=rollup.has_end_users)
        assert kept(shared, at) == expected
    assert check(shared) == []


def test_late_lines_count_when_they_happened(any_database: Engine):
    """A line that comes late adds to the hour and day that it is of, not to those of now."""
    record(
        any_database, [line("a")], [line("b", at_ms=DAY - 1)], [line("c", at_ms=DAY - 30 * DAY_MS)]
    )
    assert [key[0] for key in sorted(kept(any_database, 0))] == [
        DAY - 30 * DAY_MS,
        DAY - HOUR_MS,
        DAY,
    ]
    assert check(any_database) == []


def test_probes_are_nobodys_requests(any_database: Engine):
    """What a probe costs upstream is summed, but it is no request and no error."""
    probe = {"project_id": "", "key_id": "", "items": 0, "tokens": 0, "cost_nano_usd": 0}
    record(any_database, [line("a", **probe)], [line("b", **probe, status=502)])
    [row] = kept(any_database, 1).values()
    assert row == (0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0)


def amounts(engine: Engine) -> dict:
    """What is held, by subject and process."""
    with engine.connect() as connection:
        rows = connection.execute(select(holds)).all()
    return {(row.subject, row.process): row.amount_nano_usd for row in rows}


def test_holds_get_less_by_what_is_charged(any_database: Engine):
    """What is charged is no longer held: of its subjects, by this process, and nothing else."""
    rows = [
        {"subject": str(subject), "process": process, "amount_nano_usd": 100, "expires_ms": 1}
        for subject in (KEY, PROJECT, END_USER)
        for process in ("p", "other")
    ]
    with any_database.begin() as connection:
        connection.execute(insert(holds), rows)
    parts = [line("a"), line("a", line=1, cost_nano_usd=10)]
    record(any_database, parts, [line("b")], holders=(KEY, END_USER))
    record(any_database, [line("c", cost_nano_usd=9)])
    record(any_database, [line("d", status=400)], holders=(KEY,))
    assert amounts(any_database) == {
        (str(KEY), "p"): 84, (str(END_USER), "p"): 84, (str(PROJECT), "p"): 100,
        (str(KEY), "other"): 100, (str(END_USER), "other"): 100, (str(PROJECT), "other"): 100,
    }  # fmt: skip


POISON = {
    "a NUL": {"user": "a\0b"},
    "half a character": {"user": "\ud800"},
    "a number of more than 64 bits": {"tokens": 2**63},
    "nothing where something must be": {"request_id": None},
    "its own second line twice": {"line": 0},
}


@pytest.mark.parametrize("what", POISON)
def test_only_what_is_at_fault_fails(any_database: Engine, what: str):
    """A request that the database does not take fails by itself; those beside it are recorded."""
    ledger = Ledger(any_database)
    charges = [
        LedgerEntry([line(f"embd_{number}"), line(f"embd_{number}", line=1)]) for number in range(9)
    ]
    charges[5] = LedgerEntry([line("embd_5"), line("embd_5", **({"line": 1} | POISON[what]))])
    failures = ledger._commit(charges)
    ledger.close()
    takes = what == "a NUL" and any_database.dialect.name == "sqlite"
    assert [number for number, each in enumerate(failures) if each] == ([] if takes else [5])
    assert len(committed(any_database)) == 18 - 2 * (not takes)
    assert check(any_database) == []
    assert "a\0b" not in str(failures[5])


def test_an_id_is_billed_once(any_database: Engine):
    """What was recorded cannot be recorded again, nor is anything summed twice."""
    ledger = Ledger(any_database)
    assert ledger._commit([LedgerEntry([line("a")])]) == [None]
    refused, taken = ledger._commit([LedgerEntry([line("a", tokens=7)]), LedgerEntry([line("b")])])
    ledger.close()
    assert refused is not None
    assert taken is None
    assert sorted(each.id for each in committed(any_database)) == ["a", "b"]
    assert check(any_database) == []


RECORDS = """
import asyncio, sys, json
from pathlib import Path
from embedway.storage import database
from embedway.ledger.ledger import Ledger
from test_rollups import line, DAY, HOUR_MS
from writing import write

async def one(ledger, id):
    await write(ledger, [line(id, at_ms=DAY + hash(id) % (3 * HOUR_MS), user=id[-1])])
    print(id, flush=True)

async def main(where, name):
    ledger = Ledger(database.connect(where))
    for turn in range(10_000):
        await asyncio.gather(*(one(ledger, f"{name}_{turn}_{each}") for each in range(20)))

where = sys.argv[1]
asyncio.run(main(where if "://" in where else Path(where), sys.argv[2]))
"""


@contextmanager
def recording(where: Path | str, name: str) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """A process that records as fast as it can, and the ids that it says are recorded."""
    command = [sys.executable, "-c", RECORDS, str(where), name]
    path = os.pathsep.join(each for each in sys.path if each)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    told: list[str] = []
    reading = threading.Thread(target=lambda: told.extend(each.strip() for each in process.stdout))
    reading.start()
    try:
        yield process, told
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()


def wait_for(told: list[str], count: int, process: subprocess.Popen) -> None:
    """Until so many more are recorded."""
    enough = len(told) + count
    pause = threading.Event()
    while len(told) < enough:
        assert process.poll() is None
        pause.wait(0.01)


def test_kill_leaves_sums_and_lines_alike(any_address: Path | str):
    """Processes that are killed while they record leave what they recorded, and its sums."""
    recorded: list[str] = []
    engine = database.connect(any_address)
    for turn in range(2):
        with (
            recording(any_address, f"a{turn}") as (one, told),
            recording(any_address, f"b{turn}") as (other, told_too),
        ):
            wait_for(told, 100, one)
            wait_for(told_too, 100, other)
        recorded += told + told_too
    assert set(recorded) <= {each.id for each in committed(engine)}
    assert len(set(recorded)) == len(recorded) >= 400
    assert check(engine) == []
    engine.dispose()


def killed(postgres: Postgres) -> None:
    """Ends who serves a connection as `kill -9` does: Postgres then recovers as from a crash."""
    serving = "SELECT pid FROM pg_stat_activity WHERE application_name = 'embedway'"
    for (pid,) in postgres.run(serving):
        os.kill(pid, signal.SIGKILL)


def crashed(postgres: Postgres) -> None:
    """Ends it without saving anything but its log, and starts it."""
    postgres.stop(signal.SIGQUIT)
    postgres.start()


def restarted(postgres: Postgres) -> None:
    """Ends it in good order, and starts it."""
    postgres.stop()
    postgres.start()


@pytest.mark.parametrize("end", [killed, crashed, restarted])
def test_postgres_restarts_unnoticed(postgres: Postgres, end: Callable[[Postgres], None]):
    """Postgres may crash and come back: who records waits, and each line is there once."""
    # The server of tests waits for no disk; to survive a crash, a commit must reach its log.
    url = f"{postgres.url}?options=-csynchronous_commit%3Don"
    with recording(url, "a") as (process, told):
        for _ in range(3):
            wait_for(told, 200, process)
            end(postgres)
        wait_for(told, 200, process)
    engine = database.connect(url)
    ids = [each.id for each in committed(engine)]
    assert set(told) <= set(ids)
    assert len(set(ids)) == len(ids)
    assert check(engine) == []
    engine.dispose()


def test_gone_for_long(postgres: Postgres):
    """While Postgres stays away requests fail, and not each after a wait of its own."""
    engine = database.connect(f"{postgres.url}?options=-csynchronous_commit%3Don")
    ledger = Ledger(engine, retry_s=0.3)
    assert ledger._commit([LedgerEntry([line("a")])]) == [None]
    postgres.stop()
    assert [str(each) for each in ledger._commit([LedgerEntry([line("b")])])] != ["None"]
    tries = [ledger._commit([LedgerEntry([line("c")])]) for _ in range(20)]
    assert all(failure for [failure] in tries)
    postgres.start()
    assert ledger._commit([LedgerEntry([line("b")]), LedgerEntry([line("c")])]) == [None, None]
    ledger.close()
    assert sorted(each.id for each in committed(engine)) == ["a", "b", "c"]
    assert check(engine) == []
    engine.dispose()


def test_replicas_add_to_the_same_sums(postgres_url: str):
    """Two processes that add to the same rows at once do not block each other and lose nothing."""
    engines = [database.connect(postgres_url) for _ in range(2)]

    def write(engine: Engine, name: str) -> None:
        ledger = Ledger(engine, retry_s=0)
        for turn in range(60):
            users = range(20) if name == "a" else reversed(range(20))
            charges = [
                LedgerEntry([line(f"{name}_{turn}_{user}", user=str(user))]) for user in users
            ]
            assert ledger._commit(charges) == [None] * 20
        ledger.close()

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, engines, "ab"))
    assert kept(engines[0], 1)[DAY, "proj_a", "key_a", "m", "p"][0] == 2400
    assert check(engines[0]) == []
    for engine in engines:
        engine.dispose()


def in_doubt() -> tuple[list[UsageRecord], list[UsageRecord]]:
    """Lines of an answer, and those of the same request as one that was refused."""
    fields = {"user": "u", "cost_nano_usd": 3, "tokens": 2}
    answered = [line("a", **fields), line("a", line=1, provider="q", **fields)]
    return answered, [line("a", user="u", cost_nano_usd=0, tokens=0, status=503)]


@pytest.mark.parametrize("is_committed", [True, False])
def test_lines_in_doubt_are_replaced(any_database: Engine, is_committed: bool):
    """What was committed after all is charged to nobody, and a hold has back what it paid."""
    answered, refused = in_doubt()
    with any_database.begin() as connection:
        row = {"subject": str(KEY), "process": "p", "amount_nano_usd": 10, "expires_ms": 1}
        connection.execute(insert(holds).values(row))
    ledger = Ledger(any_database, process="p")

    async def replace() -> None:
        if is_committed:
            await write(ledger, answered, holders=[KEY])
        for _ in range(2):  # as when the first try is in doubt too
            await ledger.replace(answered, by=refused, holders=[KEY])

    asyncio.run(replace())
    ledger.close()
    assert committed(any_database) == refused
    assert check(any_database) == []
    with any_database.connect() as connection:
        assert connection.scalar(select(holds.c.amount_nano_usd)) == 10


def test_lines_that_arrive_after_their_replacement_are_refused(any_database: Engine):
    """A commit that was still on its way when its lines were replaced changes nothing."""
    answered, refused = in_doubt()
    record(any_database, refused)
    ledger = Ledger(any_database, process="p")
    [failure] = ledger._commit([LedgerEntry(answered, [KEY])])
    ledger.close()
    assert isinstance(failure, CommitRejected)
    assert committed(any_database) == refused
    assert check(any_database) == []


def damage(engine: Engine) -> None:
    """Sums as nobody should leave them: one too large, one missing, one of nothing."""
    with engine.begin() as connection:
        connection.execute(update(usage_days).values(tokens=usage_days.c.tokens + 1))
        connection.execute(delete(usage_hours).where(usage_hours.c.at_ms == DAY))
        row = {name.name: 1 for name in usage_user_days.columns}
        row |= {"at_ms": DAY + DAY_MS, "project_id": "p", "key_id": "k", "model": "m",
                "provider": "p", "end_user": "nobody"}  # fmt: skip
        connection.execute(insert(usage_user_days).values(row))


def test_differences_are_found_and_repaired(any_database: Engine):
    """A sum that is wrong, missing or of nothing is found, and repaired from the lines alone."""
    record(any_database, [line("a")], [line("b", at_ms=DAY - DAY_MS, user="u")])
    right = [kept(any_database, at) for at in range(4)]
    damage(any_database)
    found = check(any_database)
    assert {(each.table, each.key["at_ms"]) for each in found} == {
        ("usage_days", DAY), ("usage_days", DAY - DAY_MS), ("usage_hours", DAY),
        ("usage_user_days", DAY + DAY_MS),
    }  # fmt: skip
    [tokens] = [each for each in found if each.table == "usage_days" and each.key["at_ms"] == DAY]
    assert (tokens.column, tokens.stored, tokens.computed) == ("tokens", 3, 2)
    for day in recount.recorded_days(any_database):
        recount.repair(any_database, day)
    assert check(any_database) == []
    assert [kept(any_database, at) for at in range(4)] == right


def test_repair_while_others_record(any_database: Engine):
    """Sums that are made anew while lines come in miss none of them and have none twice."""
    ledger = Ledger(any_database)
    stop = threading.Event()

    def write() -> int:
        turn = 0
        while not stop.is_set():
            assert ledger._commit([LedgerEntry([line(f"a_{turn}")])]) == [None]
            turn += 1
        return turn

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        for _ in range(15):
            recount.repair(any_database, DAY)
        stop.set()
        count = writing.result(30)
    ledger.close()
    assert kept(any_database, 1)[DAY, "proj_a", "key_a", "m", "p"][0] == count
    assert check(any_database) == []


def test_pruned_lines_leave_sums(any_database: Engine):
    """Lines of before a day go, in parts; sums stay, and are no longer compared with them."""
    count = retention.RECORDS_PER_DELETE + 10
    ledger = Ledger(any_database)
    ledger._commit([LedgerEntry([line(f"old_{at}", at_ms=DAY - 1 - at)]) for at in range(count)])
    ledger._commit([LedgerEntry([line("new")])])
    ledger.close()
    sums = [kept(any_database, at) for at in range(4)]
    assert retention.count_older(any_database, DAY) == count
    assert list(retention.prune(any_database, DAY)) == [retention.RECORDS_PER_DELETE, 10]
    assert [each.id for each in committed(any_database)] == ["new"]
    assert [kept(any_database, at) for at in range(4)] == sums
    assert check(any_database) == []
    assert list(retention.prune(any_database, DAY - DAY_MS)) == [0]
    with any_database.connect() as connection:
        assert connection.scalar(select(installation.c.value).where(
            installation.c.name == "lines_from_ms")) == str(DAY)  # fmt: skip
    with pytest.raises(ValueError, match="not the start of a UTC day"):
        next(retention.prune(any_database, DAY + 1))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """For the command line, on a data folder with two old lines and one of now."""
    (tmp_path / "data").mkdir()
    engine = database.connect(tmp_path / "data" / "embedway.db")
    now = round(datetime.now(UTC).timestamp() * 1000)
    record(engine, [line("a")], [line("b", at_ms=now - 10 * DAY_MS)], [line("c", at_ms=now)])
    engine.dispose()
    return {"EMBEDWAY_DATA_DIR": str(tmp_path / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}


def run(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit status of `embedway ledger`, and what it printed."""
    done = CliRunner().invoke(ledger.commands, arguments, env=env)
    return done.exit_code, done.stdout or done.stderr


def audited(env: dict[str, str]) -> list[dict[str, str]]:
    """What was done to the ledger, as `embedway audit` has it."""
    return json.loads(CliRunner().invoke(commands, ["audit", "--json"], env=env).output)


def test_prune_command(env: dict[str, str]):
    """It counts, asks, refuses what is not over yet, and deletes lines but no sums."""
    refused, said = run(env, "prune")
    assert refused == 2
    assert "Give either --before or --keep-days" in said
    refused, said = run(env, "prune", "--before", "2999-01-01")
    assert refused == 2
    assert "in the future" in said
    told = run(env, "prune", "--keep-days", "30", "--dry-run")[1]
    assert told.startswith("1 usage record is older")
    refused, said = run(env, "prune", "--keep-days", "0")
    assert refused == 1
    assert "--yes" in said
    nothing = "No usage records are older than 2024-10-04.\n"
    assert run(env, "prune", "--before", "2024-10-04", "--yes") == (0, nothing)
    assert run(env, "prune", "--keep-days", "0", "--yes")[1].startswith(
        "Deleted 2 usage records older"
    )
    assert run(env, "check")[0] == 0
    assert [each["action"] for each in audited(env)] == ["ledger.pruned"]


def test_check_command(env: dict[str, str]):
    """It says the first differences and fails, or repairs them."""
    engine = database.connect(Path(env["EMBEDWAY_DATA_DIR"]) / "embedway.db")
    damage(engine)
    engine.dispose()
    failed, said = run(env, "check")
    assert failed == 1
    assert "usage_days: tokens is 3, but 2 by the records (at_ms '2024-10-04T00:00Z'" in said
    failed, said = run(env, "check", "--repair", "--json")
    assert (failed, json.loads(said)["days_repaired"]) == (0, 4)
    assert [each["action"] for each in audited(env)] == ["ledger.repaired"] * 4
    assert run(env, "check") == (0, "The sums agree with the usage records: 3 days checked.\n")
