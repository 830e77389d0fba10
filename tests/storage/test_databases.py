"""What holds on either database, and what only several processes over one Postgres can show."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import embedway
from servers import Postgres, Redis
from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from typer.testing import CliRunner

from embedway.cli import commands
from embedway.core.budget import Budget
from embedway.core.errors import StorageUnavailable
from embedway.core.limit import Limit
from embedway.core.project import DEFAULT_PROJECT, EndUser, Project
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.organization import key_secret
from embedway.organization.directory import Directory
from embedway.organization.keys import KeyBootstrap
from embedway.spaces.proof import Proof, Reference
from embedway.spaces.store import SpaceStore
from embedway.storage import copying, database, pepper, records
from embedway.storage.copying import CopyError
from embedway.storage.database import DatabaseError
from embedway.storage.store import open_store
from embedway.storage.tables import (
    end_users,
    installation,
    keys,
    metadata,
    projects,
    usage,
    usage_user_days,
)

PEPPER = "5a" * 32


@pytest.fixture
def opened() -> Iterator[Callable[[Path | str], Engine]]:
    """Opens databases, and closes them in the end."""
    engines: list[Engine] = []

    def connect(where: Path | str) -> Engine:
        engines.append(database.connect(where))
        return engines[-1]

    yield connect
    for engine in engines:
        engine.dispose()


def rows(engine: Engine) -> dict[str, list[tuple]]:
    with engine.connect() as connection:
        return {
            name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for name, table in metadata.tables.items()
        }


def counter(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(select(installation.c.value)))


def test_writing_is_alone(opened: Callable, any_address: Path | str) -> None:
    """Of many that read and then write under one lock, none overwrites what another wrote."""
    engines = [opened(any_address) for _ in range(4)]
    with engines[0].begin() as connection:
        connection.execute(insert(installation).values(name="counter", value="0"))

    def count(engine: Engine) -> None:
        for _ in range(10):
            with database.locked_transaction(engine, lock="counter") as connection:
                value = int(connection.scalar(select(installation.c.value)))
                connection.execute(update(installation).values(value=str(value + 1)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, engines * 2))
    assert counter(engines[0]) == 80


def test_writing_is_undone_on_an_error(any_database: Engine) -> None:
    """What was written before an error is not there, and the lock is free again."""

    def fail() -> None:
        with database.locked_transaction(any_database, lock="counter") as connection:
            connection.execute(insert(installation).values(name="counter", value="0"))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert rows(any_database)["installation"] == []


def test_other_locks_are_not_waited_for(postgres_url: str, opened: Callable) -> None:
    """On Postgres, who holds one lock does not keep those out who want another."""
    engine = opened(postgres_url)
    with (
        database.locked_transaction(engine, lock="one"),
        database.locked_transaction(engine, lock="another"),
    ):
        pass


def test_every_wait_is_bounded(postgres_url: str, opened: Callable) -> None:
    """Sessions on Postgres wait for no statement or lock for long, but where it is asked for."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    engine = opened(postgres_url)
    with engine.connect() as connection:

        def settings() -> list[str]:
            return [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

        assert settings() == ["5s", "5s", "10s"]
        database.lift_time_limits(connection)
        assert settings() == ["0", "0", "0"]
        connection.rollback()
        assert settings() == ["5s", "5s", "10s"]
        assert connection.exec_driver_sql("SHOW TimeZone").scalar() == "UTC"
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "embedway"


def test_many_open_at_once(opened: Callable, any_address: Path | str) -> None:
    """However many open a new database at the same time, each finds all of its tables."""
    with ThreadPoolExecutor(6) as threads:
        engines = list(threads.map(lambda _: opened(any_address), range(6)))
    assert {database.read_revisions(each)[1] == [] for each in engines} == {True}
    assert len(rows(engines[0])["projects"]) == 1


def test_records_are_read_as_written(any_database: Engine) -> None:
    """A key, its issuer, its project and an end user are found as they were stored."""
    limit, budget = (
        Limit(amount=2**40, of="tokens", per="day"),
        Budget(amount_nano_usd=2**50, per="month"),
    )
    project = Project(
        id="proj_a", name='ü "and" \\ more', created_ms=2**41, models=("a", "b"), eu_native=True,
        allow_quantization=False, limits=(limit,), user_budgets=(budget,),
    )  # fmt: skip
    issuer = key_secret.issue_key("issuer", pepper=b"p" * 32, now_ms=1, project_id="proj_a")[1]
    key = key_secret.issue_key(
        "key", pepper=b"p" * 32, now_ms=2, project_id="proj_a", issued_by=issuer.id,
        providers=("openai",), limits=(limit,), budgets=(budget,),
    )[1]  # fmt: skip
    admin = key_secret.issue_key(
        "admin", pepper=b"p" * 32, now_ms=3, project_id=None, scopes=("admin",)
    )[1]
    blocked = EndUser(project_id="proj_a", id="ü", created_ms=3, blocked_ms=4, limits=())
    with any_database.begin() as connection:
        for table, record in (
            (projects, project), (keys, issuer), (keys, key), (keys, admin), (end_users, blocked)
        ):  # fmt: skip
            connection.execute(insert(table).values(records.to_row(record)))

    async def look() -> None:
        directory = Directory(any_database)
        held = await directory.find_key_by_digest(key.digest)
        assert (held.key, held.issuer, held.project, held.has_end_users) == (
            key,
            issuer,
            project,
            True,
        )
        held = await directory.find_key(issuer.id)
        assert (held.key, held.issuer, held.project) == (issuer, None, project)
        held = await directory.find_key(admin.id)
        assert (held.key, held.project, held.has_end_users) == (admin, None, False)
        assert await directory.find_project("proj_a") == (project, True)
        assert (await directory.find_project(DEFAULT_PROJECT))[1] is False
        assert await directory.find_end_user("proj_a", "ü") == blocked
        assert await directory.find_end_user(DEFAULT_PROJECT, "ü") is None
        for nobody in (
            await directory.find_key_by_digest(b""),
            await directory.find_key("' OR 1=1 --"),
        ):
            assert nobody is None

    asyncio.run(look())


def test_spaces_are_kept(any_database: Engine) -> None:
    """The first reference of a space stays, and so does what is known to have drifted."""
    store = SpaceStore(any_database)
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = Reference(
        model="m", revision="r", input_type=None, texts="t", vectors=vectors, made_by="a", made_ms=1
    )
    proof = Proof(
        deployment="a", input_type="query", state="drifted", revision="r", home="r", cosine=0.5,
        norm_deviation=None, reason="", fingerprint="f", models=frozenset("ab"), at_ms=1,
        since_ms=1,
    )  # fmt: skip
    proven = msgspec.structs.replace(proof, state="proven", cosine=1.0)

    async def look() -> None:
        await store.keep_reference(first)
        later = msgspec.structs.replace(first, vectors=-vectors, made_by="b")
        assert (await store.keep_reference(later)).made_by == "a"
        assert await store.keep_proof(proof) == proof
        assert await store.keep_proof(proven) == proof
        assert (await store.load())[1] == [proof]
        assert await store.keep_proof(proven, release=True) == proven
        (kept,), proofs = await store.load()
        assert proofs == [proven]
        assert np.array_equal(kept.vectors, vectors)
        assert (await store.load(known={first.key}))[0] == []

    asyncio.run(look())


def test_the_longest_values_can_be_recorded(any_database: Engine) -> None:
    """Whatever a request may hold fits into every table, its keys and its indexes."""
    random = Random(1)

    def text(characters: int) -> str:
        return "".join(chr(random.randrange(0x10000, 0x110000)) for _ in range(characters))

    longest: dict[str, Any] = {
        "model": text(256), "provider": "p" * 64, "key_id": "issuer:" + "k" * 64,
        "project_id": "proj_" + "0" * 24, "end_user": text(MAX_ATTRIBUTION_CHARACTERS),
        "user": text(MAX_ATTRIBUTION_CHARACTERS), "request_id": "~" * 128, "id": "embd_1",
        "metadata": {text(64): text(512) for _ in range(16)},
    }  # fmt: skip
    with any_database.begin() as connection:
        for table in (usage, usage_user_days):
            values = {
                each.name: longest.get(
                    each.name, False if each.name in {"estimated", "priced"} else 1
                )
                for each in table.columns
            }
            connection.execute(insert(table).values(values))
    with any_database.connect() as connection:
        assert connection.execute(select(usage.c.metadata)).scalar() == longest["metadata"]


def test_one_pepper_for_all(opened: Callable, any_address: Path | str, tmp_path: Path) -> None:
    """Who brings another pepper than the database's is refused and told so; who has it is not."""
    url = any_address if isinstance(any_address, str) else None

    def pepper_of(folder: str, **given: Any) -> bytes:
        store = open_store(tmp_path / folder, database_url=url, **given)
        store.database.dispose()
        return store.pepper

    made = pepper_of("first")
    assert pepper_of("first") == pepper_of("first", pepper=made.hex()) == made
    for wrong in (PEPPER, "00" * 32):
        with pytest.raises(DatabaseError, match="EMBEDWAY_PEPPER is not the one") as told:
            pepper_of("first", pepper=wrong)
        assert wrong not in str(told.value)
        assert made.hex() not in str(told.value)
    other = "second" if url else "first"
    (tmp_path / other).mkdir(exist_ok=True)
    (tmp_path / other / "pepper").write_bytes(b"x" * 32)
    with pytest.raises(DatabaseError, match="pepper is not the one"):
        pepper_of(other)
    (tmp_path / other / "pepper").unlink()
    with pytest.raises(DatabaseError, match="or set EMBEDWAY_PEPPER"):
        pepper_of(other)
    assert not (tmp_path / other / "pepper").exists()
    assert pepper_of(other, pepper=made.hex()) == made
    kept = rows(opened(url or tmp_path / "first" / "embedway.db"))["installation"]
    assert len(kept) == 1
    assert made.hex() not in repr(kept)


def test_the_first_pepper_is_the_one(
    opened: Callable, any_address: Path | str, tmp_path: Path
) -> None:
    """Of many with peppers of their own that open a new database at once, one is taken."""
    engines = [opened(any_address) for _ in range(6)]

    def settle(number: int) -> bool:
        try:
            pepper.load_pepper(engines[number], tmp_path / "none", configured=f"{number:064x}")
        except DatabaseError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(settle, range(6))).count(True) == 1


def test_a_pepper_from_before_fingerprints(any_database: Engine, tmp_path: Path) -> None:
    """A database that does not know its pepper yet takes that of the first who opens it."""
    file = tmp_path / "pepper"
    file.write_bytes(b"x" * 32)
    assert pepper.load_pepper(any_database, file, configured=None) == b"x" * 32
    with pytest.raises(DatabaseError):
        pepper.load_pepper(any_database, file, configured=PEPPER)


def test_a_lost_pepper(any_database: Engine, tmp_path: Path) -> None:
    """Only who says so begins with a new pepper, and no key works from then on."""
    file = tmp_path / "pepper"
    lost = pepper.load_pepper(any_database, file, configured=None)
    key = key_secret.issue_key("a", pepper=lost, now_ms=1)[1]
    with any_database.begin() as connection:
        connection.execute(insert(keys).values(records.to_row(key)))
    file.unlink()
    with pytest.raises(DatabaseError, match="repepper"):
        pepper.load_pepper(any_database, file, configured=None)
    pepper.discard_pepper(any_database, file, configured=None, now_ms=5)
    new = pepper.load_pepper(any_database, file, configured=None)
    assert new not in {lost, None}
    # Nor does what is known to others stay.
    pepper.discard_pepper(any_database, file, configured=None, now_ms=6)
    newest = pepper.load_pepper(any_database, file, configured=None)
    assert newest != new
    with pytest.raises(DatabaseError, match="still is"):
        pepper.discard_pepper(any_database, file, configured=newest.hex(), now_ms=7)
    with any_database.connect() as connection:
        assert connection.scalar(select(keys.c.revoked_ms)) == 5


def test_restarts_of_postgres(postgres: Postgres, opened: Callable) -> None:
    """While Postgres is away requests fail with what clients are told; then none does, ever."""
    engine = opened(postgres.url)
    held = [engine.connect() for _ in range(6)]
    for connection in held:
        connection.exec_driver_sql("SELECT 1")
        connection.close()
    directory, spaces = Directory(engine), SpaceStore(engine)

    async def fails() -> None:
        for asked in (
            directory.find_key_by_digest(b""),
            directory.find_project("p"),
            spaces.load(),
        ):
            with pytest.raises(StorageUnavailable):
                await asked

    async def works() -> None:
        for _ in range(4):
            asked = (directory.find_key_by_digest(b""), directory.find_project("p"), spaces.load())
            await asyncio.gather(*asked)

    postgres.stop()
    postgres.start()
    asyncio.run(works())
    postgres.stop()
    asyncio.run(fails())
    postgres.start()
    asyncio.run(works())


def test_a_transaction_that_postgres_ends(postgres: Postgres, opened: Callable) -> None:
    """Of a transaction that a restart of Postgres cuts short nothing is kept, and it is told."""
    engine = opened(postgres.url)

    def cut_short() -> None:
        with database.locked_transaction(engine, lock="counter") as connection:
            connection.execute(insert(installation).values(name="counter", value="0"))
            postgres.stop()
            postgres.start()

    with pytest.raises(SQLAlchemyError):
        cut_short()
    assert rows(engine)["installation"] == []


def refusal(url: str) -> str:
    with pytest.raises(DatabaseError) as told:
        database.connect(url).dispose()
    assert "s3cret" not in str(told.value)
    return str(told.value)


def test_what_is_said_of_postgres(shared_postgres: Postgres, postgres_url: str) -> None:
    """Each reason for which Postgres cannot be opened is told with its cure and no password."""
    host = f"127.0.0.1:{shared_postgres.port}"
    shared_postgres.run("DROP ROLE IF EXISTS guarded")
    shared_postgres.run("CREATE ROLE guarded LOGIN PASSWORD 'another'")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        said = refusal(f"postgresql://me:s3cret@127.0.0.1:{port}/embedway")
    assert "Check that Postgres runs" in said
    assert f"postgresql://me:***@127.0.0.1:{port}/embedway" in said
    assert "Correct the user or the password" in refusal(f"postgres://guarded:s3cret@{host}/test")
    assert "createdb" in refusal(f"postgresql+psycopg://embedway:s3cret@{host}/nowhere")
    assert "createuser" in refusal(f"postgresql://nobody_here:s3cret@{host}/nowhere")
    assert "Take it out of" in refusal(f"postgresql://a:s3cret@{host}/b?sslmod=s3cret")
    assert "is invalid" in refusal("mysql://a:s3cret@host/b")
    engine = database.connect(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    assert "written by a newer Embedway: its revision is 9999" in refusal(postgres_url)


def filled(folder: Path) -> Engine:
    """A SQLite data folder with rows of every table."""
    random = Random(7)
    engine = open_store(folder, pepper=PEPPER).database
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name == "installation":
                continue
            made = [
                {column.name: _value(column.type.python_type, random) for column in table.columns}
                for _ in range(60)
            ]
            connection.execute(insert(table), made)
    return engine


def _value(type: type, random: Random) -> object:
    texts = ["ü", "\t\\N\n", "'\"", "", "\U0001f600"]
    values: dict[type, Callable[[], object]] = {
        str: lambda: random.choice(texts) + str(random.random()),
        int: lambda: random.randrange(2**31),
        bool: lambda: random.random() < 0.5,
        float: random.random,
        bytes: lambda: random.randbytes(40),
        object: lambda: {"a\\": ["ü", None, "\n"]},
    }
    return values[type]()


def test_copies_are_the_same(opened: Callable, postgres_url: str, tmp_path: Path) -> None:
    """Postgres has every row of SQLite, and of each the same values; nothing is copied twice."""
    source, target = filled(tmp_path / "data"), opened(postgres_url)
    seen: dict[str, tuple[int, int]] = {}

    def progress(name: str, done: int, total: int) -> None:
        if not seen:  # the copy has begun
            with source.begin() as connection:
                connection.execute(delete(usage).where(usage.c.id == "none"))
        seen[name] = (done, total)

    before = rows(source)
    copied = copying.copy_database(source, target, progress=progress)
    assert rows(target) == before
    assert copied.rows == {name: len(each) for name, each in before.items()}
    assert copied.missed_records == 0
    assert {done == total for done, total in seen.values()} == {True}
    with pytest.raises(CopyError, match="There are rows in audit, batches, budget_alerts"):
        copying.copy_database(source, target, progress=progress)
    assert rows(target) == before
    source.dispose()


def test_copies_are_whole_or_not_there(opened: Callable, postgres_url: str, tmp_path: Path) -> None:
    """An interrupted copy leaves the target as it was; lines written meanwhile are told."""
    source, target = filled(tmp_path / "data"), opened(postgres_url)
    empty = rows(target)

    def interrupt(name: str, done: int, total: int) -> None:
        if name == "usage" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copying.copy_database(source, target, progress=interrupt)
    assert rows(target) == empty
    begun = threading.Event()

    def write(name: str, done: int, total: int) -> None:
        if not begun.is_set():
            begun.set()
            with source.begin() as connection:
                row = dict(connection.execute(select(usage)).mappings().first())
                connection.execute(insert(usage).values(row | {"id": "embd_late"}))

    assert copying.copy_database(source, target, progress=write).missed_records == 1
    with target.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(usage)) == 60
    source.dispose()


def test_commands(postgres_url: str, tmp_path: Path) -> None:
    """`db` upgrades, moves everything to Postgres where the same keys work, and says what is."""
    url = postgres_url.replace("embedway@", "embedway:s3cret@")

    def run(*arguments: str, folder: str = "data", input: str = "", **env: str) -> str:
        given = {"DATA_DIR": str(tmp_path / folder), "LOCAL_SERVERS": "false"} | env
        done = CliRunner().invoke(
            commands, arguments, input=input, env={f"EMBEDWAY_{n}": v for n, v in given.items()}
        )
        said = done.output + str(done.exception or "")
        assert "s3cret" not in said
        return said

    assert "There is no" in run("db", "status")
    assert not (tmp_path / "data").exists()
    assert "embedway db init" in run("db", "upgrade")
    assert "is made" in run("db", "init")
    assert "up to date" in run("db", "upgrade")
    store = open_store(tmp_path / "data")
    KeyBootstrap(store.database).create(key_secret.issue_key("a", pepper=store.pepper, now_ms=1)[1])
    store.database.dispose()
    assert "pending   0001_initial" in run("db", "status", DATABASE_URL=url)
    assert "those of the original" in run("db", "copy", "--to", "-", input=url)
    assert "There are rows in" in run("db", "copy", DATABASE_URL=url)
    status = json.loads(run("db", "status", "--json", DATABASE_URL=url))
    assert (status["pending"], status["rows"]["keys"]) == ([], 1)
    assert status["database"].startswith("postgresql://embedway:***@127.0.0.1:")
    moved = open_store(tmp_path / "data", database_url=url)
    assert KeyBootstrap(moved.database).all() == KeyBootstrap(store.database).all()
    for each in (moved, store):
        each.database.dispose()
    assert "Forgotten" in run("db", "repepper", "--yes", DATABASE_URL=url)
    status = json.loads(run("db", "status", "--json"))
    assert status["database"] == str(tmp_path / "data" / "embedway.db")


def test_the_doctor_looks_at_both(postgres: Postgres, redis: Redis, tmp_path: Path) -> None:
    """`doctor` says of Postgres and Redis whether they answer, and the cure, but no password."""
    env = {
        "EMBEDWAY_DATA_DIR": str(tmp_path),
        "EMBEDWAY_DATABASE_URL": postgres.url.replace("embedway@", "embedway:s3cret@"),
        # A Redis without a password takes any.
        "EMBEDWAY_REDIS_URL": redis.url.replace("//", "//:s3cret@"),
        "EMBEDWAY_PEPPER": PEPPER,
    }
    assert embedway("db", "init", env=env).returncode == 0

    def found() -> dict[str, tuple[str, str]]:
        done = embedway("doctor", "--json", env=env, cwd=tmp_path)
        assert "s3cret" not in done.stdout + done.stderr
        return {row["check"]: (row["level"], row["detail"]) for row in json.loads(done.stdout)}

    well = found()
    assert well["redis"] == ("ok", f"127.0.0.1:{redis.port} answers")
    assert well["data"][0] == "ok"
    postgres.stop()
    redis.stop()
    ill = found()
    for name, cure in (("data", "Check that Postgres runs"), ("redis", "Start Redis, or correct")):
        assert ill[name][0] == "fail"
        assert cure in ill[name][1]
    del env["EMBEDWAY_REDIS_URL"]
    assert found()["redis"][0] == "ok"
