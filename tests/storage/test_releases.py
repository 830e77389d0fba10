"""The database of each release goes on after an upgrade, and goes back by a downgrade."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import connect as sqlite_connect

import psycopg
import pytest
from conftest import EMBEDWAY, Gateway, Minilm, clean_environment, embedway
from make_release import REPORT, configure
from sqlalchemy import Engine, MetaData, inspect, select

import embedway as package
from embedway.storage import database
from embedway.storage.tables import metadata
from embedway.testing import Upstream, space

RELEASES = sorted((Path(__file__).parent / "releases").iterdir())
INITIAL = "0001_initial"


def load(release: Path, address: Path | str) -> None:
    """Make the database of a release."""
    if isinstance(address, Path):
        address.parent.mkdir(parents=True)
        with sqlite_connect(address) as connection:
            connection.executescript((release / "sqlite.sql").read_text())
            connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        return
    with psycopg.connect(address) as connection:
        connection.execute((release / "postgres.sql").read_bytes())


def schema(engine: Engine) -> dict[str, object]:
    """Return what the database itself says of its tables."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            listed = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master")
            return dict(sorted(map(tuple, listed)))
        found = inspect(connection)
        return {
            name: (
                [{**each, "type": str(each["type"])} for each in found.get_columns(name)],
                found.get_pk_constraint(name),
                sorted(found.get_indexes(name), key=str),
                found.get_unique_constraints(name),
            )
            for name in sorted(found.get_table_names())
        }


def contents(engine: Engine, *, but: tuple[str, ...] = ()) -> dict[str, list[tuple]]:
    """Return the rows of all tables of the release."""
    tables = MetaData()
    tables.reflect(engine)
    skipped = {*but, "alembic_version"}
    with engine.connect() as connection:
        return {
            name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for name, table in tables.tables.items()
            if name not in skipped
        }


@pytest.fixture(params=RELEASES, ids=lambda each: each.name)
def release(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a release's database."""
    return request.param


@pytest.fixture
def address(any_address: Path | str, tmp_path: Path) -> Path | str:
    """Where the database is to be: in a gateway's folder, or in Postgres."""
    return tmp_path / "data" / "embedway.db" if isinstance(any_address, Path) else any_address


@pytest.fixture
def engine(release: Path, address: Path | str) -> Iterator[Engine]:
    """Open the database of a release."""
    load(release, address)
    engine = database.open_engine(address)
    yield engine
    engine.dispose()


def environment(facts: dict, address: Path | str, folder: Path) -> dict[str, str]:
    env = {"EMBEDWAY_DATA_DIR": str(folder / "data"), "EMBEDWAY_PEPPER": facts["pepper"]}
    return env | ({"EMBEDWAY_DATABASE_URL": address} if isinstance(address, str) else {})


def old_embedway(folder: Path, env: dict[str, str], *arguments: str) -> str:
    """Run a command of an Embedway that knows the first migration alone; return what it prints."""
    copied = folder / "old" / "embedway"
    if not copied.exists():
        shutil.copytree(Path(package.__file__).parent, copied)
        for each in (copied / "storage" / "migrations" / "versions").glob("0*.py"):
            if each.stem != INITIAL:
                each.unlink()
    done = subprocess.run(
        [EMBEDWAY, *arguments],
        env=clean_environment() | env | {"PYTHONPATH": str(copied.parent)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_there_and_back(
    minilm: Minilm, release: Path, engine: Engine, address: Path | str, tmp_path: Path
) -> None:
    """After an upgrade the old key works and the report is the same; a downgrade undoes it."""
    facts = json.loads((release / "facts.json").read_text())
    env = environment(facts, address, tmp_path)
    old_schema, old_rows = schema(engine), contents(engine)
    assert old_rows["usage"], "a release without usage proves nothing"
    assert "embedway db upgrade" in embedway("keys", "list", env=env, cwd=tmp_path).stderr
    upgraded = embedway("db", "upgrade", env=env, cwd=tmp_path)
    assert f"is upgraded from {INITIAL} to" in upgraded.stdout, upgraded.stderr
    new_rows = contents(engine)
    assert {name: new_rows[name] for name in old_rows} == old_rows
    assert new_rows.keys() == metadata.tables.keys()

    report = embedway(*REPORT, env=env, cwd=tmp_path)
    assert json.loads(report.stdout) == facts["usage"]
    shown = embedway("projects", "show", "web", "--json", env=env, cwd=tmp_path)
    assert json.loads(shown.stdout)["spending"] == facts["spending"]
    if isinstance(address, str):
        answer_with(facts, address, tmp_path)
        new_rows = contents(engine)
        assert len(new_rows["usage"]) == len(old_rows["usage"]) + 1

    refused = embedway("db", "downgrade", INITIAL, env=env, cwd=tmp_path)
    assert refused.returncode == 1
    assert "Events that wait for delivery" in refused.stderr
    assert "Run: embedway db downgrade 0001_initial --yes" in refused.stderr
    done = embedway("db", "downgrade", INITIAL, "--yes", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert schema(engine) == old_schema
    assert contents(engine) == {name: new_rows[name] for name in old_rows}
    if isinstance(address, Path):
        assert facts["key_id"] in old_embedway(tmp_path, env, "keys", "list")


def answer_with(facts: dict, url: str, folder: Path) -> None:
    """Answer a request with the release's key, by a gateway of this version."""
    with Upstream(vectors=space("m")) as upstream:
        gateway = Gateway(folder, pepper=facts["pepper"], database_url=url)
        try:
            configure(gateway, upstream)
            gateway.key = facts["key"]
            gateway.start()
            assert gateway.embed(model="one:m", input="some text").status_code == 200
        finally:
            gateway.kill()


def test_downgrades_that_are_refused(tmp_path: Path) -> None:
    """A revision that does not exist or is not behind is refused, and nothing is changed."""
    address = tmp_path / "data" / "embedway.db"
    load(RELEASES[0], address)
    engine = database.open_engine(address)
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    before = schema(engine)
    unknown = embedway("db", "downgrade", "0000", "--yes", env=env, cwd=tmp_path)
    assert (unknown.returncode, "There is no revision '0000'" in unknown.stderr) == (2, True)
    newest = database.known_revisions()[-1]
    behind = embedway("db", "downgrade", newest, "--yes", env=env, cwd=tmp_path)
    assert (behind.returncode, "There is nothing to undo" in behind.stderr) == (1, True)
    same = embedway("db", "downgrade", INITIAL, env=env, cwd=tmp_path)
    assert (same.returncode, f"is of revision {INITIAL}" in same.stdout) == (0, True)
    assert schema(engine) == before
    engine.dispose()


def test_every_migration_says_what_its_undoing_loses(tmp_path: Path) -> None:
    """Each migration but the first can be undone, and says what is lost."""
    engine = database.connect(tmp_path / "new.db")
    losses = database.list_losses(engine, INITIAL)
    engine.dispose()
    assert len(losses) == len(database.known_revisions()) - 1
    assert all(each.endswith(".") for each in losses)
