"""Reads the keys of providers from files, and notices when these change."""

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
        self._seen: dict[Path, tuple[int, ...]] = {}
        """The version of each file whose key was read."""
        self._unreadable: set[Path] = set()

    def read_changed(self, providers: Sequence[ProviderConfig]) -> list[ProviderConfig]:
        """Return those of `providers` whose files have other keys now, with these keys.

        A file that is gone, empty or unreadable keeps its last key, and is logged once. This reads
        files, so run it in a thread.
        """
        read: dict[Path, str] = {}  # once, since providers may share a file
        for each in providers:
            for path in each.key_files:
                if path not in read and (key := self._read_changed(path, each.name)):
                    read[path] = key
        changed: list[ProviderConfig] = []
        for each in providers:
            first = len(each.keys) - len(each.key_files)
            kept = zip(each.key_files, each.keys[first:], strict=True)
            keys = [*each.keys[:first], *(read.get(path, key) for path, key in kept)]
            if keys != list(each.keys):
                changed.append(msgspec.structs.replace(each, keys=keys))
        return changed

    def _read_changed(self, path: Path, provider: str) -> str | None:
        """Return the key in a file, unless the file is as it was when it was read last."""
        before, now = self._seen.pop(path, None), _version(path)
        if now is not None and before == now:
            self._seen[path] = now
            return None
        try:
            key = read_key_file(path)
        except ConfigError as error:
            if path not in self._unreadable:
                self._unreadable.add(path)
                _log.warning("key not read", provider=provider, reason=str(error))
            return None
        if now is not None:
            self._seen[path] = now
        self._unreadable.discard(path)
        return key


def _version(path: Path) -> tuple[int, ...] | None:
    """Return what differs once the file is written or replaced; None if it cannot be found."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
