"""Reads the keys of providers from files, and notices when these change."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from embedway.config.schema import ConfigError, read_text_file
from embedway.providers.provider_config import ProviderConfig

_log = structlog.get_logger("embedway.keys")


def check_key(key: str, what: str) -> str:
    """Return `key` if a header can hold it.

    Raises:
        ConfigError: It cannot. The message names `what` it is, and does not show it.
    """
    if not key or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(f"{what} is empty or has characters that no key has. Copy it again.")
    return key


def read_key_file(path: Path) -> str:
    """Return the key in a file, without the space around it.

    Raises:
        ConfigError: The file cannot be read, or holds no key.
    """
    return check_key(read_text_file(path), f"the key in {path}")


class KeyFileWatch:
    """Notices when files of keys change, also where a link to them does."""

    def __init__(self) -> None:
        self._seen: dict[Path, os.stat_result | None] = {}
        self._unreadable: set[Path] = set()

    def read_changed(self, providers: Sequence[ProviderConfig]) -> list[ProviderConfig]:
        """Return those of `providers` whose files have other keys now, with these keys.

        A file that is gone, empty or unreadable keeps its last key, and is logged once. This reads
        files, so run it in a thread.
        """
        return [
            msgspec.structs.replace(each, keys=keys)
            for each in providers
            if each.key_files and (keys := self._keys(each)) != list(each.keys)
        ]

    def _keys(self, config: ProviderConfig) -> list[str]:
        first = len(config.keys) - len(config.key_files)
        keys = list(config.keys)
        for index, path in enumerate(config.key_files, first):
            if not self._has_changed(path):
                continue
            try:
                keys[index] = read_key_file(path)
                self._unreadable.discard(path)
            except ConfigError as error:
                if path not in self._unreadable:
                    self._unreadable.add(path)
                    _log.warning("key not read", provider=config.name, reason=str(error))
        return keys

    def _has_changed(self, path: Path) -> bool:
        """Return whether the file may differ from the one seen before."""
        before, now = self._seen.get(path), _status(path)
        self._seen[path] = now
        if before is None or now is None:
            return True
        return not os.path.samestat(before, now) or _version(before) != _version(now)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size
