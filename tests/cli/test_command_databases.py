"""Which commands make a database, and what the others say where there is none."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import EMBEDWAY, Gateway, clean_environment, embedway
from typer.testing import CliRunner, Result

from embedway import cli
from embedway.storage.database import DatabaseError

READING = [
    "keys list", "keys create --name k", "projects list", "users list --project default", "audit",
    "usage", "usage --lines --output lines.csv", "ledger check", "ledger prune --keep-days 1 --yes",
    "spaces status", "route", "models show auto", "db status", "db upgrade", "db repepper --yes",
    "db copy --to postgresql://nobody@127.0.0.1:1/none",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder that does not exist yet, for commands in this process."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def invoked(folder: Path, command: str, **env: str) -> Result:
    """Runs a command to its end in this process."""
    env = {"EMBEDWAY_DATA_DIR": str(folder), "EMBEDWAY_LOCAL_SERVERS": "false", **env}
    return CliRunner().invoke(cli.commands, command.split(), env=env)


def refusal(folder: Path, command: str, **env: str) -> str:
    """What a command says that finds no database it can use."""
    done = invoked(folder, command, **env)
    assert isinstance(done.exception, DatabaseError), (command, done.output, done.exception)
    return str(done.exception)


@pytest.mark.parametrize("command", READING)
def test_only_serve_and_init_make_one(folder: Path, minilm: object, command: str) -> None:
    """A command that finds no database says where it looked and what makes one."""
    said = refusal(folder, command)
    assert f"There is no database at {folder / 'embedway.db'}." in said
    assert said.endswith("embedway db init")
    assert not folder.exists()


@pytest.mark.parametrize("command", [*READING, "db init"])
def test_an_empty_file(folder: Path, minilm: object, command: str) -> None:
    """A file of 0 bytes is taken for what it is: a database that was lost."""
    folder.mkdir()
    (folder / "embedway.db").touch()
    said = refusal(folder, command)
    assert "embedway.db is empty (0 bytes)" in said
    assert said.endswith(f"rm {folder / 'embedway.db'} && embedway db init")
    assert [each.name for each in folder.iterdir()] == ["embedway.db"]
    assert (folder / "embedway.db").stat().st_size == 0


def test_serve_refuses_an_empty_file(new_gateway: Callable[..., Gateway]) -> None:
    """Nor does `serve` begin anew in it, unasked."""
    gateway = new_gateway()
    file = gateway.folder / "data" / "embedway.db"
    for each in file.parent.glob("embedway.db*"):
        each.unlink()
    file.touch()
    done = gateway.cli("serve")
    assert done.returncode == 1
    assert f"{file} is empty (0 bytes)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_init(folder: Path) -> None:
    """`db init` makes a database that keys can be made in; a second time it changes nothing."""
    assert "is made. Next: embedway keys create" in invoked(folder, "db init").stdout
    files = {each.name: each.read_bytes() for each in folder.iterdir()}
    assert set(files) == {"embedway.db", "pepper"}
    assert "is there already" in invoked(folder, "db init").stdout
    assert files == {each.name: each.read_bytes() for each in folder.iterdir()}
    made = invoked(folder, "keys create --name k --json")
    assert set(json.loads(made.stdout)) == {"id", "key"}


def test_commands_say_which(folder: Path) -> None:
    """A command names its database on standard error, once, and leaves its output to programs."""
    invoked(folder, "db init")
    done = invoked(folder, "usage --project default --json")
    assert done.stdout == "[]\n"
    assert done.stderr == f"database: {folder / 'embedway.db'}\n"


def test_another_folder(tmp_path: Path, gateway: Gateway) -> None:
    """A command that is started in another folder makes no key that the gateway would refuse."""
    done = embedway(
        "keys", "create", "--name", "k", env={"XDG_DATA_HOME": str(tmp_path)}, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"There is no database at {tmp_path / 'embedway' / 'embedway.db'}." in done.stderr
    assert gateway.cli("keys", "create", "--name", "k").returncode == 0


def test_an_empty_postgres(tmp_path: Path, postgres_url: str) -> None:
    """In an empty Postgres, too, no other command makes tables; `db init` does."""
    env = {
        "EMBEDWAY_DATA_DIR": str(tmp_path / "data"),
        "EMBEDWAY_DATABASE_URL": postgres_url,
        "EMBEDWAY_PEPPER": "ab" * 32,
    }
    for command in (["keys", "list"], ["db", "upgrade"]):
        done = embedway(*command, env=env)
        assert done.returncode == 1
        assert "There are no tables of Embedway in postgresql://" in done.stderr
        assert done.stderr.endswith("embedway db init\n")
    assert "embedway db init" in embedway("db", "status", env=env).stdout
    assert "is made" in embedway("db", "init", env=env).stdout
    done = embedway("keys", "list", env=env)
    assert done.returncode == 0
    assert "database: postgresql://embedway@127.0.0.1" in done.stderr
    assert not (tmp_path / "data").exists()


def test_nobody_finds_it_half_made(folder: Path) -> None:
    """While several processes make it at once, nobody finds an empty file, and they share one."""
    env = clean_environment() | {"EMBEDWAY_DATA_DIR": str(folder)}
    making = [
        subprocess.Popen([EMBEDWAY, "db", "init"], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    path, found = folder / "embedway.db", set[tuple[int, bool]]()
    while any(each.poll() is None for each in making):
        if path.exists():
            found.add((path.stat().st_ino, path.stat().st_size > 0))
    assert [each.communicate()[0].startswith(str(path)) for each in making] == [True] * 3
    assert found == {(path.stat().st_ino, True)}
    assert invoked(folder, "keys list").exit_code == 0
    assert [each for each in folder.iterdir() if each.is_dir()] == []
