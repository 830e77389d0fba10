"""A backup made while a gateway writes can be restored: keys work, and nothing is billed twice."""

import json
import secrets
import shutil
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Self

import pytest
from conftest import Gateway, Minilm, embedway
from make_release import configure
from raw_http import until
from servers import binary
from sqlalchemy import Engine, func, select

from embedway.organization import key_secret
from embedway.storage import database
from embedway.storage.tables import keys, usage
from embedway.testing import Upstream, space


class Client:
    """Sends one request after another until it is stopped, and keeps the ids of the answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.answered: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._stopping.is_set():
            reply = self._gateway.embed(model="one:m", input="a")
            assert reply.status_code == 200, reply.text
            self.answered.append(reply.json()["id"])


def back_up(gateway: Gateway, address: Path | str, copy: Path) -> None:
    """Back up as docs/operations.md says."""
    if isinstance(address, Path):
        done = gateway.cli("db", "backup", str(copy))
        assert done.returncode == 0, done.stderr
        return
    subprocess.run(
        [binary("pg_dump"), "--format=custom", f"--file={copy}", address],
        check=True, capture_output=True,
    )  # fmt: skip


def restore(copy: Path, folder: Path, url: str | None) -> None:
    """Restore as docs/operations.md says, into a new folder or an empty Postgres."""
    (folder / "data").mkdir(parents=True)
    if url is None:
        shutil.copy(copy, folder / "data" / "embedway.db")
        return
    subprocess.run(
        [binary("pg_restore"), "--no-owner", "--dbname", url, copy], check=True, capture_output=True
    )


def check_sums(restored: Gateway, made: dict[str, str], engine: Engine) -> list[str]:
    """Check that key, usage and budget of a restored database agree; return the answers' ids."""
    of_the_key = usage.c.key_id == made["id"]
    with engine.connect() as connection:
        ids = list(connection.scalars(select(usage.c.id).where(of_the_key)))
        cost = connection.scalar(select(func.sum(usage.c.cost_nano_usd)).where(of_the_key))
        digest = connection.scalar(select(keys.c.digest).where(keys.c.id == made["id"]))
    engine.dispose()
    pepper = bytes.fromhex(restored.env["EMBEDWAY_PEPPER"])
    assert digest == key_secret.digest(made["key"], pepper=pepper)
    assert len(ids) == len(set(ids))
    (reported,) = [each for each in restored.usage(by="key") if each["key"] == made["id"]]
    assert reported["requests"] == len(ids)
    shown = json.loads(restored.cli("keys", "show", made["id"], "--json").stdout)
    assert round(shown["spending"][0]["spent_usd"] * 10**9) == cost
    return ids


def test_backups_while_a_gateway_writes(
    minilm: Minilm, any_address: Path | str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A restored copy has each answer before it once, and its sums and budgets agree."""
    on_postgres = isinstance(any_address, str)
    pepper, copy, first, second = (
        secrets.token_hex(32),
        tmp_path / "copy",
        *map(tmp_path.joinpath, "ab"),
    )
    first.mkdir()
    url = {"database_url": any_address} if on_postgres else {}
    gateway = Gateway(first, pepper=pepper, **url)
    address = any_address if on_postgres else first / "data" / "embedway.db"
    made = gateway.new_key("shop", "--budget", "1/total")
    gateway.key = made["key"]
    with Upstream(vectors=space("m")) as upstream:
        try:
            configure(gateway, upstream)
            gateway.start()
            with Client(gateway) as client:
                until(lambda: len(client.answered) >= 10)
                before = list(client.answered)
                back_up(gateway, address, copy)
                until(lambda: len(client.answered) >= len(before) + 5)
        finally:
            gateway.kill()

        new_url = request.getfixturevalue("shared_postgres").url if on_postgres else None
        restore(copy, second, new_url)
        restored = Gateway(second, pepper=pepper, **({"database_url": new_url} if new_url else {}))
        restored.key = made["key"]
        if not on_postgres:  # one start is enough: the digest below shows that the key is the same
            try:
                configure(restored, upstream)
                restored.start()
                assert restored.embed(model="one:m", input="a").status_code == 200
            finally:
                restored.kill()
    ids = check_sums(restored, made, database.connect(new_url or second / "data" / "embedway.db"))
    assert set(before) <= set(ids)
    assert len(set(ids) - set(client.answered)) <= 2  # in flight at the end, and the new one
    checked = restored.cli("ledger", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    other = restored.env | {"EMBEDWAY_PEPPER": "5a" * 32}
    refused = embedway("keys", "list", env=other, cwd=second)
    assert refused.returncode == 1
    assert "EMBEDWAY_PEPPER is not the one" in refused.stderr


def test_copies_are_whole_and_replace_nothing(tmp_path: Path) -> None:
    """`db backup` makes one file that only its owner can read, and leaves existing ones alone."""
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    missing = embedway("db", "backup", "copy.db", env=env, cwd=tmp_path)
    assert (missing.returncode, "There is no database" in missing.stderr) == (1, True)
    assert embedway("db", "init", env=env, cwd=tmp_path).returncode == 0
    done = embedway("db", "backup", "copy.db", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy.db", "data"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with closing(connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT name FROM projects").fetchall() == [("default",)]
    again = embedway("db", "backup", "copy.db", env=env, cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    nowhere = embedway("db", "backup", "no/copy.db", env=env, cwd=tmp_path)
    assert (nowhere.returncode, "There is no folder no." in nowhere.stderr) == (1, True)
    env["EMBEDWAY_DATABASE_URL"] = "postgresql://embedway@127.0.0.1:1/embedway"
    postgres = embedway("db", "backup", "b.db", env=env, cwd=tmp_path)
    assert (postgres.returncode, "pg_dump --format=custom" in postgres.stderr) == (1, True)
