"""`embedway config init` writes a file that has every setting and changes nothing."""

import re
import tomllib
from pathlib import Path

from conftest import embedway
from pydantic import SecretStr

from embedway.config.issuers import IssuerSettings
from embedway.config.models import PolicySettings
from embedway.config.sections import ModelSettings, ProviderSettings
from embedway.config.settings import SECTIONS, Settings
from embedway.config.template import EXAMPLES, EXPLAINED, write_template
from embedway.config.webhooks import WebhookSettings

ROOT = Path(__file__).parent.parent.parent


def test_nothing_is_in_force() -> None:
    """As it is written, the file sets nothing."""
    assert tomllib.loads(write_template()) == {}


def test_every_setting_is_there() -> None:
    """With every line in force, the file is valid, and has all defaults and all examples."""
    text = re.sub(r"^# ", "", write_template(), flags=re.MULTILINE)
    values = tomllib.loads(text)
    settings = Settings.model_validate(values, context={})
    defaults = Settings()
    for name in Settings.model_fields.keys() - SECTIONS.keys() - EXPLAINED:
        value = getattr(settings, name)
        shown = value.get_secret_value() if isinstance(value, SecretStr) else value
        assert shown == EXAMPLES[Settings].get(name, getattr(defaults, name)), name
        assert name in values
    [provider], [issuer] = values["providers"].values(), values["issuers"].values()
    [policy], [webhook] = values["models"].values(), values["webhooks"].values()
    for schema, section in (
        (ProviderSettings, provider),
        (ModelSettings, provider["models"][0]),
        (PolicySettings, policy),
        (IssuerSettings, issuer),
        (WebhookSettings, webhook),
    ):
        schema.model_validate(section)
        assert section.keys() | EXPLAINED >= schema.model_fields.keys()
    assert set(values) | EXPLAINED >= Settings.model_fields.keys()
    assert all(f"## {name}: " in write_template() for name in EXPLAINED)


def test_init(tmp_path: Path) -> None:
    """The command writes the file that the gateway reads, for its owner, and overwrites only so."""
    for variables, name in (
        ({}, "embedway.toml"),
        ({"EMBEDWAY_CONFIG": "other.toml"}, "other.toml"),
    ):
        done = embedway("config", "init", env=variables, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).read_text() == write_template()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        (tmp_path / name).write_text("port = 9000\n")
        again = embedway("config", "init", env=variables, cwd=tmp_path)
        assert again.returncode == 1
        assert "--force" in again.stderr
        assert (tmp_path / name).read_text() == "port = 9000\n"
        assert embedway("config", "init", "--force", env=variables, cwd=tmp_path).returncode == 0
        assert (tmp_path / name).read_text() == write_template()
    nowhere = {"EMBEDWAY_CONFIG": "none/embedway.toml"}
    failed = embedway("config", "init", env=nowhere, cwd=tmp_path)
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)


def test_what_needs_a_restart_is_documented() -> None:
    """The page names exactly the settings that a reload cannot change."""
    page = (ROOT / "docs/configuration.md").read_text()
    [sentence] = re.findall(r"^  Only a restart changes ([^.]*)\.", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", sentence) == list(Settings.fixed_at_start())
