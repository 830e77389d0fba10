"""Finds files with secrets that every user of this machine may read."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedway.config.settings import (
    CONFIG_VARIABLE,
    DOTENV,
    NOT_SETTINGS,
    PREFIX,
    SECRETS,
    LoadedSettings,
)
from embedway.providers.registry import load_rows


def exposed_files(loaded: LoadedSettings) -> list[Path]:
    """Return the absolute paths of the files with secrets that others may read."""
    paths = (Path(name).absolute() for name in _secret_files(loaded))
    return [path for path in paths if path.exists() and path.stat().st_mode & stat.S_IROTH]


def _secret_files(loaded: LoadedSettings) -> Iterator[str]:
    if loaded.file and (
        any(loaded.origins.get(name) == loaded.file for name in SECRETS)
        or any(map(_has_key, loaded.settings.providers.values()))
        or any(map(_has_secret, loaded.settings.webhooks.values()))
    ):
        yield loaded.file
    for section in loaded.settings.providers.values():
        folder = Path(loaded.origins["providers"]).parent
        names = [section.get("api_key_file"), *_list(section, "api_key_files")]
        yield from (
            str(folder / Path(name).expanduser()) for name in names if isinstance(name, str)
        )
    # A secret that a file of its own holds has that file's path as its source.
    yield from (loaded.origins[name] for name in SECRETS if "/" in loaded.origins.get(name, ""))
    file_names = {name for row in load_rows().values() for name in row.key_files}
    yield from (loaded.variables[name] for name in file_names & loaded.variables.keys())
    provider_keys = {
        name for row in load_rows().values() for name in (*row.key_variables, *row.key_parts)
    } - file_names
    gateway_keys = {PREFIX + name.upper() for name in SECRETS} | NOT_SETTINGS - {CONFIG_VARIABLE}
    if any(loaded.dotenv.get(name) for name in provider_keys | gateway_keys):
        yield DOTENV


def _has_key(section: dict[str, Any]) -> bool:
    """Return whether a section holds a key itself, not only the name of a variable."""
    keys = [section.get("api_key"), *_list(section, "api_keys")]
    return any(isinstance(key, str) and key and not key.startswith("$") for key in keys)


def _list(section: dict[str, Any], name: str) -> list[Any]:
    """Return the list of this name in a section that nobody has checked yet."""
    value = section.get(name)
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _has_secret(section: dict[str, Any]) -> bool:
    """Return whether a webhook's section holds its secret itself. The address of Slack is one."""
    secrets = [section.get("secret"), section.get("format") == "slack" and section.get("url")]
    return any(isinstance(each, str) and each and not each.startswith("$") for each in secrets)
