"""The database: its migrations, its durability, the first key, and the usage report."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from conftest import Gateway, clean_environment
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    LargeBinary,
    MetaData,
    Text,
    func,
    insert,
    select,
)

from embedway.core.keys import Key
from embedway.organization import key_secret
from embedway.organization.directory import Directory
from embedway.organization.keys import KeyBootstrap, KeyStore
from embedway.storage import database
from embedway.storage.database import DatabaseError
from embedway.storage.sqlite import Durability
from embedway.storage.store import open_store
from embedway.storage.tables import (
    metadata,
)

DAY_MS = 86_400_000
VERSIONS = [
    script.revision
    for script in ScriptDirectory(str(resources.files("embedway.storage") / "migrations"))
    .walk_revisions()
][::-1]  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = database.connect(tmp_path / "test.db")
    yield opened
    opened.dispose()


def migrate(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def rows(path: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def new_key(name: str) -> Key:
    return key_secret.issue_key(name, pepper=b"p" * 32, now_ms=1)[1]


def test_migrations_make_the_tables(any_database: Engine) -> None:
    """What the migrations make is what `tables` says, types and indexes included."""
    with any_database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def some_value(column: Column, number: int) -> object:
    match column.type:
        case Text():
            return f"text {number}"
        case LargeBinary():
            return b"%d" % number
        case Boolean():
            return bool(number % 2)
        case JSON():
            return {}
        case _:
            return 200 + number


def fill(engine: Engine, *, rows: int) -> dict[str, int]:
    """Adds rows to every table there is; how many each has then."""
    reflected = MetaData()
    reflected.reflect(engine)
    counts = {}
    with engine.begin() as connection:
        for name, table in reflected.tables.items():
            if name == "alembic_version":
                continue
            connection.execute(
                insert(table),
                [
                    {column.name: some_value(column, number) for column in table.columns}
                    for number in range(rows)
                ],
            )
            counts[name] = connection.scalar(select(func.count()).select_from(table))
    return counts


@pytest.mark.parametrize("position", range(len(VERSIONS)))
def test_each_migration_keeps_the_rows(any_address: Path | str, position: int) -> None:
    """From each revision on, with rows in every table, the way to the newest loses none."""
    before = database.open_engine(any_address)
    migrate(before, VERSIONS[position])
    counts = fill(before, rows=3)
    before.dispose()
    engine = database.connect(any_address)
    assert database.read_revisions(engine) == (VERSIONS[-1], [])
    with engine.connect() as connection:
        for name, count in counts.items():
            assert connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar() == count
    engine.dispose()


def test_migrations_one_by_one(any_address: Path | str) -> None:
    """Rows that came at any revision are there in the end, and what is left is as made at once."""
    engine = database.open_engine(any_address)
    for version in VERSIONS:
        migrate(engine, version)
        assert database.read_revisions(engine)[0] == version
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.parametrize("models", [None, ("bge-m3", 'openai:ü, and "quoted"')])
@pytest.mark.parametrize("providers", [None, ("openai",)])
def test_restrictions_are_kept(
    engine: Engine, models: tuple[str, ...] | None, providers: tuple[str, ...] | None
) -> None:
    """A key is read as it was stored, by its digest as in the list; no restriction is NULL."""
    made = msgspec.structs.replace(new_key("a"), models=models, providers=providers)
    keys = KeyBootstrap(engine)
    keys.create(made)
    assert keys.all() == [made]
    assert asyncio.run(Directory(engine).find_key_by_digest(made.digest)).key == made
    with engine.connect() as connection:
        query = "SELECT models IS NULL, providers IS NULL FROM keys"
        stored = connection.exec_driver_sql(query).one()
    assert tuple(map(bool, stored)) == (models is None, providers is None)


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    """A database that is up to date is left as it is."""
    path = tmp_path / "test.db"
    database.connect(path).dispose()
    schema = rows(path, "SELECT * FROM sqlite_master")
    database.connect(path).dispose()
    assert rows(path, "SELECT * FROM sqlite_master") == schema


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Several processes that make one data folder at the same time all open the same."""
    code = (
        "import sys; from pathlib import Path; from embedway.storage.store import open_store;"
        "print(open_store(Path(sys.argv[1])).pepper.hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "data")],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    files = {path.name.partition("-")[0] for path in (tmp_path / "data").iterdir()}
    assert files == {"embedway.db", "pepper"}


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability(tmp_path: Path, durability: Durability, synchronous: int) -> None:
    """Each connection writes ahead, and waits for the disk if a power cut is to be survived."""
    engine = database.connect(tmp_path / "embedway.db", durability=durability)
    connections = [engine.connect() for _ in range(3)]
    for connection in connections:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous
        connection.close()
    engine.dispose()


@pytest.mark.parametrize("name", ["a?b=c", "a#b", "100%41", "spaces in it", "ü"])
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    """What a folder is called does not change which file is opened."""
    open_store(tmp_path / name).database.dispose()
    assert (tmp_path / name / "embedway.db").is_file()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """Nobody else may read the data folder or the pepper."""
    open_store(tmp_path / "data").database.dispose()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert (tmp_path / "data" / "pepper").stat().st_mode & 0o077 == 0


def test_a_newer_database(tmp_path: Path) -> None:
    """A database of a newer Embedway is refused, and left alone."""
    path = tmp_path / "test.db"
    database.connect(path).dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(DatabaseError, match="newer Embedway"):
        database.connect(path)
    assert rows(path, "SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.parametrize(
    "content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_database(tmp_path: Path, content: bytes) -> None:
    """A file that is no database is refused with what to do, and left alone."""
    path = tmp_path / "test.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"damaged\. Restore it"):
        database.connect(path)
    assert path.read_bytes() == content


def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    """However many start at once, one of them makes the first key, and none after a revocation."""
    engines = [database.connect(tmp_path / "test.db") for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda each: KeyBootstrap(each).create_first(new_key("first")), engines)
        )
    keys = KeyBootstrap(engines[0])
    assert made.count(True) == len(keys.all()) == 1
    with engines[0].begin() as connection:
        KeyStore(connection).replace(msgspec.structs.replace(keys.all()[0], revoked_ms=2))
    assert keys.all()[0].revoked_ms == 2
    assert not keys.create_first(new_key("again"))
    for each in engines:
        each.dispose()


def test_reading_while_the_server_writes(new_gateway: Callable[..., Gateway]) -> None:
    """Another process reads the database, read-only, while the server goes on writing to it."""
    gateway = new_gateway().start()
    assert gateway.embed(input="one").status_code == 200
    path = gateway.folder / "data" / "embedway.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        count = "SELECT count(*) FROM usage"
        reader.execute("BEGIN")
        assert reader.execute(count).fetchone() == (1,)
        with gateway.client() as client:
            for _ in range(20):
                assert client.post("/v1/embeddings", json={"input": "more"}).status_code == 200
        assert reader.execute(count).fetchone() == (1,)
        reader.rollback()
        assert reader.execute(count).fetchone() == (21,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM usage")
