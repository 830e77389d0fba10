"""What `doctor`, `catalog check` and the banner say of prices, keys, drift and open files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Gateway, embedway
from typer.testing import CliRunner

from embedway import cli
from embedway.config import settings as config
from embedway.config.exposed import exposed_files
from embedway.testing import Upstream

SETTINGS = """
local_servers = false

[providers.one]
kind = "openai"
api_keys = ["k1", "k2"]
base_url = "{url}/openai/v1"
catalog = false
[[providers.one.models]]
id = "priced"
dimensions = 64
price_per_mtok_usd = "0.1"
price_date = 2026-08-01
max_item_tokens = 512

[providers.two]
kind = "openai"
api_key = "$TWO"
base_url = "{url}/openai/v1"
catalog = false
[[providers.two.models]]
id = "unpriced"
dimensions = 64
max_item_tokens = 512
"""


@pytest.fixture
def folder(tmp_path: Path, upstream: Upstream) -> Path:
    """A folder with two providers, one with two keys, the other with a model without a price."""
    upstream.reset()
    (tmp_path / "embedway.toml").write_text(SETTINGS.format(url=upstream.url))
    (tmp_path / "embedway.toml").chmod(0o600)
    return tmp_path


def doctor(folder: Path, *arguments: str) -> tuple[int, dict[str, dict], str]:
    """The exit status, the findings by check, and what was said beside them."""
    env = {"EMBEDWAY_DATA_DIR": str(folder / "data"), "TWO": "k"}
    done = embedway("doctor", "--json", *arguments, env=env, cwd=folder)
    assert "Traceback" not in done.stderr
    return done.returncode, {row["check"]: row for row in json.loads(done.stdout)}, done.stderr


def test_names_that_clients_ask_for(minilm: object, new_gateway: Callable[..., Gateway]) -> None:
    """The doctor proposes aliases for clients' default models, and its lines work as pasted."""
    gateway = new_gateway()
    file = gateway.folder / "embedway.toml"
    file.write_text('[aliases]\nsearch = "auto"\n')

    def found() -> str:
        rows = json.loads(gateway.cli("doctor", "--json").stdout)
        [row] = [each for each in rows if each["check"] == "names"]
        assert row["level"] == "ok"
        return row["detail"]

    told = found()
    assert "embedway:all-minilm-l6-v2" in told
    assert str(file.name) in told
    names = ("text-embedding-ada-002", "text-embedding-3-small")
    lines = [f'{name} = "auto"' for name in names]
    assert [line for line in told.splitlines() if line in lines] == lines
    assert "[aliases]\n" not in told  # a second one would break the file
    file.write_text(file.read_text() + lines[0] + "\n")
    assert lines[0] not in found()
    file.write_text(file.read_text() + lines[1] + "\n")
    assert "404" not in found()
    gateway.start()
    for name in names:
        answer = gateway.embed(model=name, input="a").raise_for_status()
        assert answer.headers["x-embedway-model"] == "all-minilm-l6-v2"
    file.unlink()
    assert "\n[aliases]\n" in found()
    gateway.env["OPENAI_API_KEY"] = "k"
    assert "404" not in found()


def test_trying_keys(folder: Path, upstream: Upstream, minilm: object) -> None:
    """Each key is tried with one text, at a cost that is named; all is well if all answer."""
    status, found, said = doctor(folder, "--providers")
    assert status == 0, found
    assert [name for name in found if name.startswith("provider ")] == [
        "provider one key 1 of 2", "provider one key 2 of 2", "provider two",
    ]  # fmt: skip
    assert "priced: 64 dimensions" in found["provider one key 1 of 2"]["detail"]
    assert "USD" in found["provider one key 1 of 2"]["detail"]
    assert "3 keys of one, two" in said
    assert "0.000001 + 0.000001 + unknown" in said
    assert sorted(call.headers["authorization"] for call in upstream.calls) == [
        "Bearer k", "Bearer k1", "Bearer k2",
    ]  # fmt: skip
    assert all(len(call.body["input"]) == 1 for call in upstream.calls)


def test_a_key_that_is_refused(folder: Path, upstream: Upstream, minilm: object) -> None:
    """A key that is refused makes the doctor fail; unless it is told to, it tries none."""
    upstream.always("401")
    status, found, _ = doctor(folder)
    assert (status, upstream.calls) == (0, [])
    assert "embedway doctor --providers" in found["providers"]["detail"]
    status, found, _ = doctor(folder, "--providers")
    assert status == 1
    refused = found["provider two"]
    assert (refused["ok"], refused["level"]) == (False, "fail")
    assert "it refuses the key (HTTP 401)" in refused["detail"]


def test_nothing_to_try(folder: Path, minilm: object) -> None:
    """A provider without a known model is not tried, and the command that can is given."""
    own = '[providers.rack]\nkind = "vllm"\nbase_url = "http://127.0.0.1:1/v1"\n'
    (folder / "embedway.toml").write_text(f"local_servers = false\n{own}")
    status, found, _ = doctor(folder, "--providers")
    assert status == 1
    cure = "embedway providers test rack --model MODEL"
    assert found["provider rack"]["detail"].endswith(cure)


def test_what_works_but_should_be_known(folder: Path, minilm: object) -> None:
    """Missing prices and secrets that everybody can read are warned of, with a whole command."""
    (folder / "embedway.toml").chmod(0o644)
    (folder / ".env").write_text("OPENAI_API_KEY=sk-x\n")
    (folder / ".env").chmod(0o644)
    status, found, _ = doctor(folder)
    assert status == 0, found
    warned = [name for name, row in found.items() if row["level"] == "warn"]
    assert warned == ["data", "models", "files"]  # there is no database yet
    assert "No price is known of two: unpriced." in found["models"]["detail"]
    files = f"{folder / 'embedway.toml'} {folder / '.env'}"
    assert found["files"]["detail"].endswith(f"chmod 600 {files}")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("embedway.toml", "[providers.openai]\napi_key = 'sk-x'", True),
        ("embedway.toml", "[providers.openai]\napi_key = '$KEY'", False),
        ("embedway.toml", "[providers.openai]\napi_keys = 5\napi_key_files = 5", False),
        ("embedway.toml", "database_url = 'postgresql://u:p@h/d'", True),
        ("embedway.toml", "port = 1", False),
        (".env", "EMBEDWAY_API_KEY=sk-gateway-x", True),
        (".env", f"EMBEDWAY_PEPPER={'ab' * 32}", True),
        (".env", "EMBEDWAY_PORT=1\nEDITOR=vi", False),
    ],
)
def test_files_with_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: bool
) -> None:
    """A file counts if it holds a secret itself and others may read it."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.write_text(text)
    file.chmod(0o604)
    assert exposed_files(config.load_settings()) == ([file] if told else [])
    file.chmod(0o640)
    assert exposed_files(config.load_settings()) == []


def test_prices_in_the_catalog_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, minilm: object
) -> None:
    """`catalog check` lists enabled models without a price, and none that nobody can ask for."""
    monkeypatch.chdir(folder)
    checked = CliRunner().invoke(cli.commands, ["catalog", "check", "--json"], env={"TWO": "k"})
    assert checked.exit_code == 0
    found = [
        row["where"] for row in json.loads(checked.stdout) if "its price is unknown" in row["what"]
    ]
    assert found == ["two:unpriced"]


def test_the_banner(folder: Path, new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """`serve` says which database it uses, and gives the doctor's warnings."""
    gateway = new_gateway()
    file = gateway.folder / "embedway.toml"
    file.write_text((folder / "embedway.toml").read_text())
    file.chmod(0o644)
    gateway.env["TWO"] = "k"
    gateway.start()
    said = gateway.log.read_text()
    assert f"database   {gateway.folder / 'data' / 'embedway.db'}" in said
    assert "warning: No price is known of two: unpriced." in said
    assert f"chmod 600 {file}" in said


def test_a_key_that_a_running_gateway_finds_refused(
    folder: Path, new_gateway: Callable[..., Gateway], upstream: Upstream
) -> None:
    """The doctor tells of keys that providers have refused the gateway here, and asks nobody."""
    gateway = new_gateway()
    (gateway.folder / "embedway.toml").write_text((folder / "embedway.toml").read_text())
    gateway.env["TWO"] = "k"
    gateway.start()
    upstream.always("401")
    assert gateway.embed(input="a", model="two:unpriced").status_code == 502
    asked = len(upstream.calls)
    found = {row["check"]: row for row in json.loads(gateway.cli("doctor", "--json").stdout)}
    assert found["providers"]["level"] == "warn"
    assert found["providers"]["detail"] == (
        f"Since the gateway on {gateway.url} started, two refused a key in 1 call. Find out which: "
        "embedway doctor --providers"
    )
    assert len(upstream.calls) == asked
