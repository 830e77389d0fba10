"""The Compose file: no Compose runs here, so what it says is checked against what it names."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import embedway
from machinery import DEPLOY, run

from embedway.config.settings import Settings

FILE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the file's content."""
    return yaml.safe_load(FILE.read_text())


def test_valid() -> None:
    """The file follows the Compose specification."""
    check = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema"]
    run(*check, "vendor.compose-spec", FILE)


def test_names_exist(compose: dict[str, Any], tmp_path: Path) -> None:
    """Every file that it names is in the repository, or made by the commands of the README."""
    made = make_secrets(tmp_path)
    files = [each["file"] for kind in ("configs", "secrets") for each in compose[kind].values()]
    assert len(files) == 5
    for each in files:
        assert (DEPLOY / each).exists() or (made / each).exists(), each
    for service in compose["services"].values():
        for kind in ("configs", "secrets", "networks"):
            names = [
                each["source"] if isinstance(each, dict) else each for each in service.get(kind, ())
            ]
            assert set(names) <= compose[kind].keys()
        assert service.get("depends_on", {}).keys() <= compose["services"].keys()


def make_secrets(folder: Path) -> Path:
    """Run the README's commands that make the secrets, and return the folder that they are in."""
    page = (DEPLOY / "README.md").read_text()
    [block] = [
        each for each in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "gateway.env" in each
    ]
    lines = [line for line in block.splitlines() if not line.startswith(("cd ", "docker "))]
    subprocess.run(["sh", "-euc", "\n".join(lines)], cwd=folder, check=True)
    return folder


def test_settings(compose: dict[str, Any], tmp_path: Path) -> None:
    """The gateway understands its variables and the secrets, which agree with each other."""
    made = make_secrets(tmp_path)
    service = compose["services"]["gateway-1"]
    assert service == compose["services"]["gateway-2"]
    (made / ".env").write_text((made / "secrets/gateway.env").read_text())
    env = service["environment"] | {"EMBEDWAY_CONFIG": str(made / "embedway.toml")}
    shown = embedway("config", "show", "--json", env=env, cwd=made)
    assert shown.returncode == 0, shown.stderr
    assert {name[9:].lower() for name in env} - {"config"} <= Settings.model_fields.keys()
    secrets = (made / "secrets/gateway.env").read_text()
    password = (made / "secrets/postgres_password").read_text().strip()
    assert f"postgresql://embedway:{password}@postgres/embedway" in secrets
    [redis] = re.findall(
        r"^requirepass (\S+)$", (made / "secrets/redis.conf").read_text(), re.MULTILINE
    )
    assert f"redis://:{redis}@redis:6379/0" in secrets
    assert len(password) >= 32
    assert password != redis


def test_time_to_stop(compose: dict[str, Any]) -> None:
    """A gateway may take as long to stop as docs/operations.md says."""
    defaults = Settings()
    longest = defaults.drain_s + defaults.body_timeout_s + defaults.request_timeout_s + 25
    assert int(compose["x-gateway"]["stop_grace_period"].removesuffix("s")) > longest


def test_gateways_are_confined(compose: dict[str, Any]) -> None:
    """The gateways have a read-only root and no capabilities; the databases have no way out."""
    gateway = compose["x-gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert compose["networks"]["back"] == {"internal": True}
    for name in ("postgres", "redis"):
        assert compose["services"][name]["networks"] == ["back"]
        assert "ports" not in compose["services"][name]
