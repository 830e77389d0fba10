"""Databases of an older Embedway, of a newer one, and from before the first release."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import EMBEDWAY, Gateway, Minilm, clean_environment
from sqlalchemy import Engine, insert

import embedway
from embedway.storage import database
from embedway.storage.database import DatabaseError
from embedway.storage.store import SQLITE_FILE
from embedway.storage.tables import audit

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0004_next"
down_revision = "0003_batches"


def upgrade():
    op.add_column("audit", sa.Column("weather", sa.Text, server_default="fair"))
"""
ACT: dict[str, object] = {
    "id": "audit_1", "at_ms": 1, "actor": "a", "action": "b", "target": "c", "details": {}
}  # fmt: skip


@pytest.fixture
def address(any_address: Path | str) -> Path | str:
    """Where a new database is to be, with the name that a data folder gives its file."""
    return any_address.with_name(SQLITE_FILE) if isinstance(any_address, Path) else any_address


@pytest.fixture
def next_embedway(tmp_path: Path, address: Path | str) -> Callable[..., str]:
    """Runs commands of an Embedway with a second migration; returns all that they print."""
    package = tmp_path / "next" / "embedway"
    shutil.copytree(Path(embedway.__file__).parent, package)
    (package / "storage" / "migrations" / "versions" / "0004_next.py").write_text(NEXT)
    env = clean_environment() | {
        "PYTHONPATH": str(package.parent),
        "EMBEDWAY_DATA_DIR": str(tmp_path),
        "EMBEDWAY_LOCAL_SERVERS": "false",
    }
    if isinstance(address, str):
        env["EMBEDWAY_DATABASE_URL"] = address

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [EMBEDWAY, *arguments], env=env, check=False, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    return run


def weather(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, weather FROM audit")
        return [(row.id, row.weather) for row in rows]


def test_an_older_database_is_upgraded(
    next_embedway: Callable[..., str], address: Path | str
) -> None:
    """`db upgrade` runs the missing migrations and keeps the rows; other commands refuse."""
    engine = database.connect(address)
    with engine.begin() as connection:
        connection.execute(insert(audit).values(ACT))
    said = next_embedway("keys", "list")
    assert "is of revision 0003_batches, and this Embedway needs 0004_next" in said
    assert said.rstrip().endswith("embedway db upgrade")
    assert database.read_revisions(engine) == ("0003_batches", [])
    assert "pending   0004_next" in next_embedway("db", "status")
    assert "is upgraded from 0003_batches to 0004_next" in next_embedway("db", "upgrade")
    assert "pending   none" in next_embedway("db", "status")
    assert weather(engine) == [("audit_1", "fair")]
    engine.dispose()


def test_running_gateways_go_on(
    next_embedway: Callable[..., str], address: Path | str, tmp_path: Path, minilm: Minilm
) -> None:
    """While a newer version adds to the tables, a running gateway answers and bills."""
    if isinstance(address, Path):
        pytest.skip("several replicas share a Postgres")
    gateway = Gateway(tmp_path, database_url=address)
    admin = gateway.new_key("admin", "--admin")["key"]
    try:
        gateway.start()
        assert gateway.embed(input="before").status_code == 200
        assert "is upgraded from 0003_batches to 0004_next" in next_embedway("db", "upgrade")
        assert gateway.embed(input="after").status_code == 200
        with gateway.client(headers={"authorization": f"Bearer {admin}"}) as client:
            made = client.post("/v1/organization/projects", json={"name": "later"})
        assert made.status_code == 200, made.text
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    finally:
        gateway.kill()
    assert "written by a newer Embedway" in gateway.cli("usage").stderr
    engine = database.open_engine(address)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM usage").scalar() == 2
    assert {each for _, each in weather(engine)} == {"fair"}
    engine.dispose()


def test_a_newer_database_is_refused(
    next_embedway: Callable[..., str], address: Path | str
) -> None:
    """A database that a newer Embedway made is refused by this one, and left alone."""
    assert "is made" in next_embedway("db", "init")
    with pytest.raises(DatabaseError, match="newer Embedway: its revision is 0004_next"):
        database.connect(address)
    engine = database.open_engine(address)
    assert weather(engine) == []
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0008"])
@pytest.mark.parametrize("create", [True, False])
def test_a_database_from_before_the_first_release(
    address: Path | str, revision: str, create: bool
) -> None:
    """No release can upgrade it: it is refused with what to do, and left alone."""
    engine = database.connect(address)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    with pytest.raises(DatabaseError, match="before the first release") as refused:
        database.connect(address, create=create)
    assert f"its revision is {revision}" in str(refused.value)
    assert str(refused.value).endswith("embedway db init")
    with closing(engine.raw_connection()) as session:
        cursor = session.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        assert cursor.fetchall() == [(revision,)]
    engine.dispose()
