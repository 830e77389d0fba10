"""Settings: where they come from, which source wins, and what is said about wrong ones."""

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import EMBEDWAY, Gateway, clean_environment, embedway, free_port

from embedway.config.settings import ConfigError, Settings, load_settings
from embedway.storage import postgres

KUBERNETES = "tcp://10.0.0.1:8080"
# A possible value of each setting that is not its default, but for sections.
OTHER = {
    "host": "127.0.0.2",
    "port": 9000,
    "workers": 3,
    "data_dir": "/somewhere/data",
    "cache_dir": "/somewhere/cache",
    "precision": "f32",
    "threads": 3,
    "eu_native": True,
    "durability": "power",
    "max_in_flight": 7,
    "max_in_flight_bytes": 70_000_000,
    "max_body_bytes": 1000,
    "max_items": 4096,
    "file_store": "s3://bucket/files",
    "max_project_file_bytes": 5000,
    "header_timeout_s": 1.5,
    "body_timeout_s": 2.5,
    "request_timeout_s": 3.5,
    "drain_s": 0.5,
    "local_servers": False,
    "providers_from_environment": False,
    "auto": "all-minilm-l6-v2",
    "canaries": False,
    "canary_interval_s": 60.5,
    "otlp_endpoint": "http://collector.internal:4318",
    "log_format": "pretty",
    "log_level": "error",
    "token_audiences": "search,chat",
    "cors_origins": "https://app.example.com, http://localhost:3000",
    "database_url": "postgresql://me:s3cret@localhost/embedway",
    "redis_url": "rediss://:s3cret@localhost:6380/1",
    "pepper": "5ec7" * 16,
}

SECTIONS = {"providers", "aliases", "models", "issuers", "webhooks"}
SECRETS = {"database_url", "redis_url", "pepper"}


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return embedway(*arguments, env=variables, cwd=folder)


def shown(folder: Path, **variables: str) -> dict[str, dict]:
    done = run(folder, "config", "show", "--json", **variables)
    assert done.returncode == 0, done.stderr
    return {row["setting"]: row for row in json.loads(done.stdout)}


def refused(folder: Path, **variables: str) -> str:
    done = run(folder, "config", "show", **variables)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def toml(value: object) -> str:
    return json.dumps(value)  # the same, for what settings can be


def test_every_setting_is_tried() -> None:
    """The table above names every setting, with another value than its default."""
    assert OTHER.keys() | SECTIONS == Settings.model_fields.keys()
    defaults = Settings()
    assert all(str(getattr(defaults, name)) != str(value) for name, value in OTHER.items())


def test_defaults(tmp_path: Path) -> None:
    """Without any source, every value is the default and says so."""
    rows = shown(tmp_path)
    assert set(rows) == {*OTHER, *SECTIONS}
    given = {"cache_dir"} if "EMBEDWAY_CACHE_DIR" in clean_environment() else set()
    assert all(row["from"] == "default" for name, row in rows.items() if name not in given)
    assert (rows["host"]["value"], rows["port"]["value"]) == ("127.0.0.1", 8080)
    assert rows["threads"]["value"] is None
    assert all(row["meaning"] for row in rows.values())


@pytest.mark.parametrize("source", ["environment", ".env", "embedway.toml"])
def test_every_setting_by_every_way(tmp_path: Path, source: str) -> None:
    """A variable, a line in .env and a line in embedway.toml each set every setting."""
    variables = {f"EMBEDWAY_{name.upper()}": str(value) for name, value in OTHER.items()}
    match source:
        case ".env":
            lines = [f"{name}={value}\n" for name, value in variables.items()]
            (tmp_path / ".env").write_text("".join(lines))
        case "embedway.toml":
            lines = [f"{name} = {toml(value)}\n" for name, value in OTHER.items()]
            (tmp_path / "embedway.toml").write_text("".join(lines))
    environment = variables if source == "environment" else {}
    # The weights' folder of this test run would win over both files.
    rows = shown(tmp_path, **({"EMBEDWAY_CACHE_DIR": ""} | environment))
    assert {rows.pop(name)["from"] for name in SECTIONS} == {"default"}
    as_shown = dict.fromkeys(SECRETS, "**********") | {"token_audiences": "search, chat"}
    assert {name: row["value"] for name, row in rows.items()} == OTHER | as_shown
    assert {row["from"] for row in rows.values()} == {source}


def test_precedence(tmp_path: Path) -> None:
    """The environment beats .env, which beats embedway.toml, which beats the default."""
    (tmp_path / "embedway.toml").write_text('port = 1001\nthreads = 1\nlog_level = "error"\n')
    (tmp_path / ".env").write_text("EMBEDWAY_PORT=1002\nexport EMBEDWAY_THREADS='2' # two\n")
    rows = shown(tmp_path, EMBEDWAY_PORT="1003")
    assert (rows["port"]["value"], rows["port"]["from"]) == (1003, "environment")
    assert (rows["threads"]["value"], rows["threads"]["from"]) == (2, ".env")
    assert (rows["log_level"]["value"], rows["log_level"]["from"]) == ("error", "embedway.toml")
    assert rows["host"]["from"] == "default"


def test_the_command_line_beats_the_environment(tmp_path: Path) -> None:
    """An option of `serve` wins over the variable of the same setting, even over a wrong one."""
    wrong = run(tmp_path, "serve", EMBEDWAY_PORT="many").stderr
    assert "environment: EMBEDWAY_PORT = 'many'" in wrong
    wrong = run(tmp_path, "serve", "--port", "0", EMBEDWAY_PORT="many").stderr
    assert "--port '0' is not possible" in wrong
    assert "many" not in wrong


def test_empty_is_not_set(tmp_path: Path) -> None:
    """An empty value leaves the setting to the next source."""
    (tmp_path / "embedway.toml").write_text("port = 1001\n")
    (tmp_path / ".env").write_text("EMBEDWAY_PORT=\nEMBEDWAY_DATA_DIR=\n")
    rows = shown(tmp_path, EMBEDWAY_PORT="", EMBEDWAY_HOST="")
    assert (rows["port"]["value"], rows["port"]["from"]) == (1001, "embedway.toml")
    assert rows["host"]["from"] == rows["data_dir"]["from"] == "default"


def test_another_file(tmp_path: Path) -> None:
    """EMBEDWAY_CONFIG, in the environment or in .env, names the file that is read instead."""
    (tmp_path / "embedway.toml").write_text("port = 1001\n")
    (tmp_path / "other.toml").write_text("port = 1002\n")
    named = shown(tmp_path, EMBEDWAY_CONFIG="other.toml")["port"]
    assert (named["value"], named["from"]) == (1002, str(tmp_path / "other.toml"))
    (tmp_path / ".env").write_text("EMBEDWAY_CONFIG=other.toml\n")
    assert shown(tmp_path)["port"]["value"] == 1002
    assert (
        shown(tmp_path, HOME=str(tmp_path), EMBEDWAY_CONFIG="~/embedway.toml")["port"]["value"]
        == 1001
    )


def test_paths(tmp_path: Path) -> None:
    """`~` is the home folder, and a relative folder is one of the working folder."""
    rows = shown(tmp_path, HOME="/home/me", EMBEDWAY_DATA_DIR="~/data", EMBEDWAY_CACHE_DIR="cache")
    assert rows["data_dir"]["value"] == "/home/me/data"
    assert rows["cache_dir"]["value"] == str(tmp_path / "cache")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_no_home_folder() -> None:
    """A user without a home folder, such as a container's, is told which folders to name."""
    env = clean_environment()
    env.pop("HOME", None)
    # It may read what root may, because this folder may be closed to other users.
    someone = "setpriv --reuid=54321 --regid=54321 --clear-groups"
    reader = "--inh-caps=+dac_override --ambient-caps=+dac_override"
    command = [*someone.split(), *reader.split(), EMBEDWAY, "config", "show"]
    run = partial(subprocess.run, command, cwd="/", capture_output=True, text=True)
    refused = run(env=env)
    assert refused.returncode == 1
    assert "no home folder. Set EMBEDWAY_DATA_DIR and EMBEDWAY_CACHE_DIR" in refused.stderr
    assert "Traceback" not in refused.stderr
    named = env | {"EMBEDWAY_DATA_DIR": "/nowhere", "EMBEDWAY_CACHE_DIR": "/nowhere"}
    assert run(env=named).returncode == 0


def test_bytes_that_editors_put_first(tmp_path: Path) -> None:
    """A byte order mark, as editors on Windows write it, is no part of either file."""
    (tmp_path / "embedway.toml").write_bytes(b"\xef\xbb\xbfport = 1001\n")
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfEMBEDWAY_THREADS=2\r\n")
    rows = shown(tmp_path)
    assert (rows["port"]["value"], rows["threads"]["value"]) == (1001, 2)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("embedway.toml", "prot = 1", "embedway.toml: there is no setting prot. Did you mean port"),
        ("embedway.toml", "[serve]\nport = 1", "there is no setting serve. There are: host, port,"),
        (".env", "EMBEDWAY_PROT=1", "no setting EMBEDWAY_PROT. Did you mean EMBEDWAY_PORT?"),
        ("embedway.toml", "port =\n", "embedway.toml cannot be read: Invalid value (at line 1"),
        ("embedway.toml", b"host = '\xff'", "embedway.toml cannot be read: 'utf-8' codec"),
        (".env", b"A=\xff", ".env cannot be read: 'utf-8' codec"),
        ("embedway.toml", "port = [1]", "embedway.toml: port = [1]: input should be a valid int"),
        ("embedway.toml", "port = 70000", "less than or equal to 65535. Correct it, or"),
        ("embedway.toml", "canary_interval_s = 0.5", "greater than or equal to 1. Correct it, or"),
        ("embedway.toml", "canary_interval_s = 604801", "less than or equal to 604800. Correct"),
        ("embedway.toml", "[aliases]\na = 3", "embedway.toml: aliases.a is not valid. Set"),
        ("embedway.toml", "aliases = 'a'", "embedway.toml: aliases is not valid. Set"),
        ("embedway.toml", "[models]\na = 3", 'with a section [models."ID"] for each'),
        (
            ".env",
            "EMBEDWAY_ALIASES=a",
            ".env: aliases is not valid. Set aliases only in embedway.toml, with a line",
        ),
        (".env", "EMBEDWAY_DRAIN_S=-1", ".env: EMBEDWAY_DRAIN_S = '-1': input should be greater"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, file: str, content: str | bytes, told: str) -> None:
    """A wrong file is an error that names the file, what is wrong in it, and the cure."""
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    assert told in refused(tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("none.toml", "No such file"), (".", "Is a dir")])
def test_a_file_that_is_none(tmp_path: Path, name: str, reason: str) -> None:
    """A file that EMBEDWAY_CONFIG names must be there."""
    told = refused(tmp_path, EMBEDWAY_CONFIG=name)
    assert str(tmp_path / name) in told
    assert f"{reason}" in told
    assert "EMBEDWAY_CONFIG names it" in told


def test_a_folder_called_dotenv(tmp_path: Path) -> None:
    """A folder called .env, as some call their virtual environment, does no harm."""
    (tmp_path / ".env").mkdir()
    assert shown(tmp_path)


def test_all_wrong_values_at_once(tmp_path: Path) -> None:
    """Every wrong value is told with its source, reason and default, each in a line."""
    (tmp_path / "embedway.toml").write_text('precision = "f16"\n')
    lines = refused(tmp_path, EMBEDWAY_THREADS="many").splitlines()
    assert len(lines) == 2
    assert (
        "embedway.toml: precision = 'f16': input should be 'auto', 'bf16', 'f32' or 'int8'"
        in lines[0]
    )
    assert "environment: EMBEDWAY_THREADS = 'many'" in lines[1]
    assert "remove it for the default, none" in lines[1]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("database_url", "mysql://me:s3cret@h/d", "such as postgresql://user:password@host:5432/"),
        ("database_url", "postgresql://me:s3cret@h", "such as postgresql://"),
        ("database_url", "postgresql://me:s3cret@h:port/d", "such as postgresql://"),
        ("database_url", "postgresql+asyncpg://me:s3cret@h/d", "such as postgresql://"),
        ("redis_url", "http://:s3cret@h", "such as redis://:password@host:6379/0"),
        ("redis_url", "redis://:s3/cret@h", "such as redis://"),
        ("pepper", "s3cret", "it must be 64 hex digits"),
        ("pepper", "5ec7" * 16 + "0", "it must be 64 hex digits"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "embedway.toml"])
def test_wrong_secrets(tmp_path: Path, name: str, value: str, told: str, source: str) -> None:
    """A secret that cannot be is told by its name with what it must be, and never shown."""
    if source == "embedway.toml":
        (tmp_path / "embedway.toml").write_text(f"{name} = {toml(value)}")
    given = {f"EMBEDWAY_{name.upper()}": value} if source == "environment" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for variable, each in given.items():
            patch.setenv(variable, each)
        with pytest.raises(ConfigError) as error:
            load_settings()
    said = str(error.value)
    assert told in said
    assert name in said.lower()
    assert not any(part in said for part in ("s3", "cret", "5ec7", "port/d"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_form_of_a_database_url(scheme: str) -> None:
    """Each form that people write for Postgres is taken, and shown by nothing that prints it."""
    settings = Settings(database_url=f"{scheme}://me:s3%40cret@h/d", pepper="5ec7" * 16)
    for shown in (str(settings), repr(settings), settings.model_dump_json()):
        assert "40cret" not in shown
        assert "5ec7" not in shown
    url = postgres.parse_url(settings.database_url.get_secret_value())
    assert (url.password, url.drivername) == ("s3@cret", "postgresql+psycopg")
    assert postgres.describe(url) == "postgresql://me:***@h/d"


def test_the_port_that_kubernetes_sets(tmp_path: Path) -> None:
    """The EMBEDWAY_PORT of a Kubernetes service is recognised, and the cure told."""
    told = refused(tmp_path, EMBEDWAY_PORT=KUBERNETES)
    assert KUBERNETES in told
    assert "set by Kubernetes" in told
    assert "enableServiceLinks: false" in told


def test_unknown_variables_are_only_told(new_gateway: Callable[..., Gateway]) -> None:
    """`serve` warns of unknown variables of the environment; other commands ignore them."""
    gateway = new_gateway(service_host="10.0.0.1")
    assert gateway.cli("config", "show").stderr == ""
    gateway.start()
    warning = json.loads(gateway.log.read_text().splitlines()[0])
    assert (warning["level"], warning["names"]) == ("warning", ["EMBEDWAY_SERVICE_HOST"])


def test_a_table_for_people(tmp_path: Path) -> None:
    """Without --json the same is a table, a line for each setting."""
    lines = run(tmp_path, "config", "show", EMBEDWAY_PORT=str(free_port())).stdout.splitlines()
    assert lines[0].split() == ["setting", "value", "from", "meaning"]
    assert len(lines) == 1 + len(OTHER) + len(SECTIONS)
