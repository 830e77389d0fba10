"""Projects, keys, end users and the audit log on the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from embedway import cli
from embedway.core.clock import now_ms
from embedway.core.errors import EmbedwayError
from embedway.core.project import Project
from embedway.organization.transaction import write_organization
from embedway.storage import database
from embedway.storage.store import open_store
from embedway.storage.tables import projects

SECRET = re.compile(r"sk-gateway-[0-9A-Za-z]{38}")

Run = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Settings with an empty database."""
    open_store(tmp_path / "data").database.dispose()
    return {"EMBEDWAY_DATA_DIR": str(tmp_path / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}


def invoked(home: dict[str, str], *arguments: str) -> Result:
    """Runs a command to its end in this process."""
    return CliRunner().invoke(cli.commands, arguments, env={**home, "COLUMNS": "300"})


@pytest.fixture
def run(home: dict[str, str]) -> Run:
    """Runs commands that succeed; gives what they print."""

    def run(*arguments: str) -> str:
        done = invoked(home, *arguments)
        assert done.exit_code == 0, done.output or done.exception
        return done.stdout

    return run


@pytest.fixture
def refused(home: dict[str, str]) -> Run:
    """Runs commands that cannot be done; gives what they say."""

    def run(*arguments: str, status: int = 1) -> str:
        done = invoked(home, *arguments)
        assert done.exit_code == status
        if isinstance(done.exception, EmbedwayError):
            return done.exception.message
        assert isinstance(done.exception, SystemExit)
        return done.stderr

    return run


def test_projects(run: Run, refused: Run) -> None:
    """A project is made, shown, changed in what is said alone, and archived."""
    made = run(
        "projects", "create", "--name", "web", "--limit", "requests=600/minute",
        "--limit", "tokens=1000000/day", "--budget", "25.5/month", "--alert", "80",
        "--user-limit", "requests=1/second", "--eu-native", "--json",
    )  # fmt: skip
    id = json.loads(made)["id"]
    shown = run("projects", "show", "web")
    for told in (id, "requests=600/minute, tokens=1000000/day", "25.5/month (0 USD spent",
                 "requests=1/second", "eu_native"):  # fmt: skip
        assert told in shown
    run("projects", "update", "web", "--name", "shop", "--limit", "none", "--no-eu-native")
    kept = json.loads(run("projects", "show", id, "--json"))
    assert (kept["name"], kept["limits"], kept["eu_native"]) == ("shop", [], False)
    assert kept["budgets"] == [{"amount_usd": 25.5, "per": "month", "alerts": [80]}]
    default, listed = json.loads(run("projects", "list", "--json"))
    assert (default["name"], listed["name"]) == ("default", "shop")
    assert (listed["limits"], listed["budgets"]) == (kept["limits"], kept["budgets"])
    assert "25.5/month" in run("projects", "list")
    assert "requests=" not in run("projects", "list")
    run("projects", "archive", "shop")
    assert "shop" not in run("projects", "list")
    assert "archived" in run("projects", "list", "--archived")
    assert "no project" in refused("projects", "show", "shop")
    assert "archived for good" in refused("projects", "update", id, "--name", "x")


def test_names_that_are_not_one(home: dict[str, str], run: Run, refused: Run) -> None:
    """A name that two projects have, as HTTP allows, is refused; one says which by its id."""
    run("projects", "create", "--name", "twin")
    engine = database.connect(Path(home["EMBEDWAY_DATA_DIR"]) / "embedway.db")
    with write_organization(engine) as organisation:
        organisation.projects.add(Project(id="proj_second", name="twin", created_ms=1))
    engine.dispose()
    assert "by its id" in refused("projects", "show", "twin")
    run("projects", "update", "proj_second", "--name", "twin", "--limit", "requests=1/day")


def test_names_are_of_one_project(run: Run, refused: Run) -> None:
    """No project is given a name that another one has that is not archived."""
    id = run("projects", "create", "--name", "web").strip()
    run("projects", "create", "--name", "shop")
    for command in (["create"], ["update", "shop"]):
        said = refused("projects", *command, "--name", "web")
        assert f"Project {id} is already called 'web'." in said
    assert len(json.loads(run("projects", "list", "--json"))) == 3
    run("projects", "update", "web", "--name", "web", "--limit", "requests=1/day")
    run("projects", "archive", "web")
    run("projects", "update", "shop", "--name", "web")


def test_what_there_is_not(refused: Run) -> None:
    """Who rules everything is told that a thing does not exist, not that it may be another's."""
    for command in (
        ["projects", "show", "web"],
        ["keys", "create", "--name", "k", "--project", "web"],
        ["users", "list", "--project", "web"],
        ["audit", "--project", "web"],
        ["usage", "--project", "web"],
    ):
        assert refused(*command) == "There is no project 'web'."
    for command in (["keys", "show", "key_x"], ["usage", "--key", "key_x"]):
        assert refused(*command) == "There is no key 'key_x'."


def test_keys(run: Run, refused: Run) -> None:
    """A key of a project is made, shown without its secret, changed, listed there, and revoked."""
    project = run("projects", "create", "--name", "web").strip()
    made = json.loads(
        run("keys", "create", "--name", "k", "--project", "web", "--scope", "embeddings",
            "--scope", "keys", "--limit", "requests=5/second", "--budget", "1/day", "--json")
    )  # fmt: skip
    run("keys", "create", "--name", "elsewhere")
    shown = run("keys", "show", made["id"])
    for told in ("embeddings, keys", "requests=5/second", "1/day (0 USD spent, 1 USD", "never"):
        assert told in shown
    assert not SECRET.search(shown + run("keys", "show", made["id"], "--json"))
    run("keys", "update", made["id"], "--scope", "usage", "--expires-days", "1", "--limit", "none")
    changed = json.loads(run("keys", "show", made["id"], "--json"))
    assert (changed["scopes"], changed["limits"]) == (["usage"], [])
    assert changed["expires_at"]
    assert changed["budgets"]
    run("keys", "update", made["id"], "--never-expires")
    assert json.loads(run("keys", "show", made["id"], "--json"))["expires_at"] is None
    (listed,) = json.loads(run("keys", "list", "--project", "web", "--json"))
    assert (listed["id"], listed["project_id"]) == (made["id"], project)
    run("keys", "create", "--name", "root", "--admin")
    rows = json.loads(run("keys", "list", "--json"))
    assert [row["project_id"] for row in rows] == [project, "proj_default", None]
    run("projects", "archive", "web")
    assert " web " in run("keys", "list").splitlines()[1]
    run("keys", "revoke", made["id"])
    assert "cannot be reactivated" in refused("keys", "update", made["id"], "--name", "x")
    assert "is already revoked" in refused("keys", "revoke", made["id"])


def test_admin_keys(run: Run, refused: Run) -> None:
    """An admin key is made with a name and nothing that it could not use."""
    made = json.loads(run("keys", "create", "--name", "root", "--admin", "--json"))
    shown = run("keys", "show", made["id"])
    assert "an admin key" in shown
    assert re.search(r"scopes +admin\n", shown)
    for more in (["--project", "default"], ["--limit", "requests=1/day"], ["--scope", "usage"]):
        assert "--admin" in refused("keys", "create", "--name", "x", "--admin", *more, status=2)
    scope = ("--scope", "admin")
    assert "--scope 'admin'" in refused("keys", "create", "--name", "x", *scope, status=2)
    said = refused("keys", "create", "--name", "x", "--expires-days", "0", status=2)
    assert "--expires-days '0'" in said


def test_users(run: Run, refused: Run) -> None:
    """An end user gets limits of its own, is blocked, and is as all others without its record."""
    of = ("--project", "default")
    run("users", "set", "a/b [c]", *of, "--limit", "tokens=5/hour", "--budget", "none")
    run("users", "block", "a/b [c]", *of)
    (listed,) = json.loads(run("users", "list", *of, "--json"))
    blocked, since = listed.pop("blocked"), listed.pop("blocked_at")
    assert listed.pop("created_at") <= since
    limits = [{"of": "tokens", "amount": 5, "per": "hour"}]
    of_default = {"project_id": "proj_default", "id": "a/b [c]"}
    assert listed == {**of_default, "limits": limits, "budgets": [], "spending": []}
    assert re.search(r"tokens=5/hour +none", run("users", "list", *of))
    assert blocked
    run("users", "unblock", "a/b [c]", *of)
    run("users", "set", "a/b [c]", *of, "--budget", "project")
    shown = json.loads(run("users", "show", "a/b [c]", *of, "--json"))
    assert (shown["blocked_at"], shown["budgets"]) == (None, None)
    assert "as the project says" in run("users", "show", "a/b [c]", *of)
    run("users", "remove", "a/b [c]", *of)
    assert "like all others" in run("users", "show", "a/b [c]", *of)
    assert "project's defaults" in refused("users", "remove", "a/b [c]", *of)
    assert "No end user" in run("users", "list", *of)


def alerts(run: Run, *of: str, field: str = "budgets") -> list[tuple[str, list[int]]]:
    """The windows and alerts of budgets that `show --json` has."""
    shown = json.loads(run(*of, "--json"))
    return [(each["per"], each["alerts"]) for each in shown[field]]


def test_alerts(run: Run, refused: Run) -> None:
    """A budget keeps its alerts when it changes; they change alone, are shown, and go if told."""
    web = ("projects", "show", "web")
    run("projects", "create", "--name", "web", "--budget", "25/month", "--budget", "2/day",
        "--alert", "80", "--user-budget", "1/day", "--user-alert", "50")  # fmt: skip
    run("projects", "update", "web", "--budget", "50/month", "--budget", "9/total")
    assert alerts(run, *web) == [("month", [80]), ("total", [])]
    run("projects", "update", "web", "--alert", "90", "--alert", "100", "--user-budget", "2/day")
    assert alerts(run, *web) == [("month", [90, 100]), ("total", [90, 100])]
    assert alerts(run, *web, field="user_budgets") == [("day", [50])]
    shown = run(*web)
    assert "50/month (0 USD spent, 50 USD left until" in shown
    assert "9/total (0 USD spent, 9 USD left, alerts at 90%, 100%)" in shown
    assert "2/day, alerts at 50%" in shown
    run("projects", "update", "web", "--alert", "none", "--user-alert", "60")
    assert alerts(run, *web) == [("month", []), ("total", [])]
    assert alerts(run, *web, field="user_budgets") == [("day", [60])]

    key = json.loads(run("keys", "create", "--name", "k", "--budget", "1/day", "--json"))["id"]
    run("keys", "update", key, "--alert", "7")
    run("keys", "update", key, "--budget", "2/day")
    assert alerts(run, "keys", "show", key) == [("day", [7])]
    ann = ("ann", "--project", "web")
    assert "--budget 25/month" in refused("users", "set", *ann, "--alert", "80")
    run("users", "set", *ann, "--budget", "1/week", "--alert", "80")
    run("users", "set", *ann, "--budget", "2/week")
    run("users", "set", *ann, "--alert", "80", "--alert", "10")
    assert alerts(run, "users", "show", *ann) == [("week", [10, 80])]
    both = ("--budget", "project", "--alert", "80")
    assert "--alert" in refused("users", "set", *ann, *both, status=2)


def test_what_is_left(run: Run) -> None:
    """What is left of each budget is in `--json`, of end users without a record too."""
    run("projects", "create", "--name", "web", "--budget", "25/total", "--user-budget", "0.5/day")
    key = json.loads(run("keys", "create", "--name", "k", "--budget", "1/total", "--json"))["id"]
    total = {"per": "total", "spent_usd": 0, "resets_at": None}
    for command, amount in ((["projects", "show", "web"], 25), (["keys", "show", key], 1)):
        [left] = json.loads(run(*command, "--json"))["spending"]
        assert left == total | {"amount_usd": amount, "left_usd": amount}
        listed = json.loads(run(command[0], "list", "--json"))
        assert [left] in [each["spending"] for each in listed]
    shown = json.loads(run("users", "show", "ann", "--project", "web", "--json"))
    [left] = shown["spending"]
    assert (shown["budgets"], left["left_usd"], left["per"]) == (None, 0.5, "day")
    said = run("users", "show", "ann", "--project", "web")
    assert "as the project says: 0.5/day (0 USD spent, 0.5 USD left until" in said


def test_audit(run: Run, refused: Run) -> None:
    """Each change is told, latest first, with who made it: never a secret."""
    secret = json.loads(run("keys", "create", "--name", "k", "--json"))
    run("projects", "create", "--name", "web")
    run("projects", "update", "web", "--name", "shop")
    run("keys", "revoke", secret["id"])
    rows = json.loads(run("audit", "--json"))
    assert [row["action"] for row in rows] == [
        "api_key.deleted", "project.updated", "project.created", "api_key.created",
    ]  # fmt: skip
    assert rows[1]["details"] == {"name": {"from": "web", "to": "shop"}}
    assert {row["actor"].partition(":")[0] for row in rows} == {"cli"}
    assert len(json.loads(run("audit", "--project", "shop", "--json"))) == 2
    assert len(json.loads(run("audit", "--action", "api_key.created", "--json"))) == 1
    assert json.loads(run("audit", "--since", "2999-01-01", "--json")) == []
    assert run("audit", "--since", "2999-01-01") == "No such changes.\n"
    assert secret["key"] not in run("audit")
    assert "api_key.created" in refused("audit", "--action", "key.created", status=2)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--limit", "600/minute", "requests=600/minute"),
        ("--limit", "requests=0/minute", "from 1 on"),
        ("--limit", "requests=5/week", "second, minute, hour, day"),
        ("--limit", "requests=5", "tokens=1000000/day"),
        ("--budget", "25", "25/month"),
        ("--budget", "25usd/month", "25/month"),
        ("--budget", "-1/day", "25/month"),
        ("--budget", "0.0000000001/day", "9 decimals"),
        ("--budget", "9999999999/day", "at most 1000000000"),
        ("--alert", "0", "from 1 to 100"),
        ("--alert", "80%", "from 1 to 100"),
        ("--alert", "101", "from 1 to 100"),
        ("--scope", "root", "embeddings, on_behalf_of"),
        ("--model", "", "''"),
    ],
)
def test_forms(home: dict[str, str], refused: Run, option: str, value: str, told: str) -> None:
    """An amount in another form is refused with the form to type, and no key is made."""
    status = 1 if option == "--model" else 2  # which models there are depends on the settings
    assert told in refused("keys", "create", "--name", "k", option, value, status=status)
    assert json.loads(invoked(home, "keys", "list", "--json").stdout) == []


def test_when_the_default_project_was_created(home: dict[str, str], run: Run) -> None:
    """It is as old as its database; where an older version did not say, nothing is claimed."""
    [made] = json.loads(run("projects", "list", "--json"))
    assert 0 <= now_ms() // 1000 - made["created_at"] < 3600
    engine = database.connect(Path(home["EMBEDWAY_DATA_DIR"]) / "embedway.db")
    with engine.begin() as connection:
        connection.execute(update(projects).values(created_ms=0))
    engine.dispose()
    [old] = json.loads(run("projects", "list", "--json"))
    assert old["created_at"] is None
    assert json.loads(run("projects", "show", "default", "--json"))["created_at"] is None
    assert re.search(r"created +-\n", run("projects", "show", "default"))
    assert "1970" not in run("projects", "list")


def test_lines_end_without_blanks(run: Run) -> None:
    """What is written to a pipe has no blanks at the ends of lines."""
    run("projects", "create", "--name", "web", "--budget", "25/month")
    key = json.loads(run("keys", "create", "--name", "k [1]", "--json"))["id"]
    run("users", "set", "ann", "--project", "web", "--limit", "none")
    for command in (
        ["projects", "list"],
        ["projects", "show", "web"],
        ["keys", "list"],
        ["keys", "show", key],
        ["users", "list", "--project", "web"],
        ["audit"],
        ["models", "list"],
        ["providers", "list", "--all"],
        ["config", "show"],
        ["db", "status"],
    ):
        lines = run(*command).splitlines()
        assert len(lines) > 1
        assert [each for each in lines if each != each.rstrip()] == [], command
    assert "k [1]" in run("keys", "list")


def test_nothing_to_change(run: Run, refused: Run) -> None:
    """A change that says nothing is refused with where to read what can be said."""
    made = json.loads(run("keys", "create", "--name", "k", "--json"))
    for command in (
        ["keys", "update", made["id"]],
        ["projects", "update", "default"],
        ["users", "set", "u", "--project", "default"],
    ):
        assert "--help" in refused(*command, status=2)
    assert "--budget" in refused("keys", "update", made["id"], "--alert", "80")


def test_rotation(run: Run, refused: Run) -> None:
    """`keys rotate` prints the new secret and until when the old one works."""
    made = json.loads(run("keys", "create", "--name", "a", "--json"))
    shown = run("keys", "rotate", made["id"], "--grace", "7d")
    assert SECRET.search(shown)
    assert "The old secret works until 2" in shown
    again = json.loads(run("keys", "rotate", made["id"], "--json"))
    assert again["id"] == made["id"]
    assert again["key"] != made["key"]
    told = json.loads(run("keys", "show", made["id"], "--json"))
    assert told["previous_expires_at"] == again["previous_expires_at"]
    assert "digest" not in str(told)
    assert "old secret expires" in run("keys", "show", made["id"])
    assert "no longer works" in run("keys", "rotate", made["id"], "--grace", "0")
    for wrong in ("", "24", "1w", "91d", "-1h", "1.5h"):
        said = refused("keys", "rotate", made["id"], f"--grace={wrong}", status=2)
        assert f"--grace {wrong!r}" in said
