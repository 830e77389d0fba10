"""Finds settings files that hold a secret and that every user of this machine may read."""

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


def exposed(loaded: LoadedSettings) -> list[Path]:
    """The files with secrets that others may read, as absolute paths."""
    paths = (Path(name).absolute() for name in _with_secrets(loaded))
    return [path for path in paths if path.exists() and path.stat().st_mode & stat.S_IROTH]


def _with_secrets(loaded: LoadedSettings) -> Iterator[str]:
    if loaded.file and (
        any(loaded.origins.get(name) == loaded.file for name in SECRETS)
        or any(map(_has_key, loaded.settings.providers.values()))
    ):
        yield loaded.file
    of_files = {name for row in load_rows().values() for name in row.key_files}
    yield from (loaded.variables[name] for name in of_files & loaded.variables.keys())
    of_providers = {
        name for row in load_rows().values() for name in (*row.key_variables, *row.key_parts)
    } - of_files
    of_ours = {PREFIX + name.upper() for name in SECRETS} | NOT_SETTINGS - {CONFIG_VARIABLE}
    if any(loaded.dotenv.get(name) for name in of_providers | of_ours):
        yield DOTENV


def _has_key(section: dict[str, Any]) -> bool:
    """Whether a section holds a key itself, not the name of a variable that does."""
    keys = [section.get("api_key"), *(section.get("api_keys") or ())]
    return any(isinstance(key, str) and key and not key.startswith("$") for key in keys)
