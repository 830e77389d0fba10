"""Exit status 2 is for a command line that is not understood, 1 for what could not be done."""

import inspect
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.main import get_command

from embedway import cli
from embedway.storage.store import open_store

Command = tuple[str, typer.core.TyperCommand]
Run = Callable[[str], tuple[int, str]]


def commands(group: typer.core.TyperGroup, prefix: str = "") -> Iterator[Command]:
    """Every command, with how it is typed."""
    for name, each in group.commands.items():
        if isinstance(each, typer.core.TyperGroup):
            yield from commands(each, f"{prefix}{name} ")
        else:
            yield prefix + name, each


COMMANDS = list(commands(get_command(cli.commands)))
WRONG_USE = [
    "audit --action key.created",
    "db copy",
    "embed",
    "embed a --file texts.txt",
    "embed a --output vectors.txt",
    "embed a --output none/vectors.npy",
    "embed --file none.txt",
    "keys create --name ' '",
    "keys create --name k --scope root",
    "keys create --name k --limit 600/minute",
    "keys create --name k --budget 25",
    "keys create --name k --budget 5/day --alert x",
    "usage --refused --lines --output lines.csv",
    "keys create --name k --admin --project web",
    "ledger prune",
    "ledger prune --keep-days 1 --before 2026-01-01",
    "ledger prune --before 2999-01-01",
    "projects create --name ' '",
    "projects create --name p --user-limit x",
    "projects update web --limit 5",
    "projects update web --user-budget 25",
    "keys update key_1 --alert abc",
    "users set u --project web --budget 25",
    "route --file none.txt",
    "route --url host",
    "models show auto --url host",
    "usage --by week",
    "usage --by day,hour",
    "usage --time-zone Mars/Base",
    "usage --lines",
    "usage --json --output bill.csv",
    "usage --output bill.txt",
    "usage --metadata x",
    "usage --since 2026-02-01 --until 2026-01-01",
]
REFUSED = [
    "catalog check none.toml",
    "embed a --model gpt",
    "keys create --name k --model gpt",
    "keys create --name k --provider nobody",
    "keys list",
    "models pull gpt",
    "models show gpt",
    "providers test nobody",
    "providers verify nobody",
    "route",
    "spaces status",
    "usage",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line where there is no database: its exit status and what it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("a\n")
    monkeypatch.setenv("EMBEDWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EMBEDWAY_LOCAL_SERVERS", "false")
    monkeypatch.setattr("sys.stdin", Terminal())

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["embedway", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            cli.app()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


class Terminal:
    """A standard input at which somebody sits and types nothing."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command(run: Run, name: str, command: typer.core.TyperCommand) -> None:
    """An option that there is not, a missing argument and a value of another kind end with 2."""
    status, said = run(f"{name} --no-such-option")
    assert (status, "--no-such-option" in said) == (2, True)
    if any(each.required for each in command.params):
        assert run(name)[0] == 2
    hints = get_type_hints(
        inspect.unwrap(command.callback, stop=lambda each: hasattr(each, "__signature__"))
    )
    for option in command.params:
        if not takes_any_text(hints[option.name]):
            required = [each for each in command.params if each.required and each is not option]
            others = [f"{each.opts[0]} x" if each.opts[0][:1] == "-" else "x" for each in required]
            status, said = run(" ".join([name, *others, option.opts[0], "wrong"]))
            assert (status, option.opts[0] in said) == (2, True), said


def takes_any_text(hint: object) -> bool:
    """Whether an option of this type takes any text, or none at all, as a flag does."""
    kinds = {hint, *get_args(hint), *(kind for each in get_args(hint) for kind in get_args(each))}
    literal = Literal in {get_origin(each) for each in kinds}
    return not literal and not kinds & {int, float, datetime}


@pytest.mark.parametrize("line", WRONG_USE)
def test_wrong_use(run: Run, line: str) -> None:
    """What is wrong by itself ends with 2, before anything is opened, in a line or a box."""
    status, said = run(line)
    assert status == 2, said
    assert said.strip()
    assert "no database" not in said


@pytest.mark.parametrize("line", REFUSED)
def test_what_could_not_be_done(run: Run, line: str) -> None:
    """What is understood but depends on what is configured or kept here ends with 1."""
    status, said = run(line)
    assert status == 1, said
    assert said.startswith(("error: ", "No gateway was asked "))


def test_what_no_record_may_be(run: Run, tmp_path: Path) -> None:
    """Values that contradict each other end with 2 too; a name that nothing has, with 1."""
    open_store(tmp_path / "data").database.dispose()
    limits = "--limit requests=5/minute --limit requests=6/minute"
    assert run(f"keys create --name k {limits}")[0] == 2
    assert run("projects update default")[0] == 2
    assert run("users set u --project default")[0] == 2
    assert run("keys revoke key_1")[0] == 1
    assert run("projects show web")[0] == 1
    assert run("users set u --project web --limit none")[0] == 1
