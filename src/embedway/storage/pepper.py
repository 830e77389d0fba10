"""The secret that keys are hashed with, kept beside the database but not in it."""

import contextlib
import errno
import os
import secrets
import tempfile
from pathlib import Path

PEPPER_BYTES = 32


def read_or_create(path: Path) -> bytes:
    """The pepper at `path`, made on first use; readable by its owner only.

    Raises:
        OSError: It cannot be read or made, or is damaged.
    """
    if not path.exists():
        _create(path)
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise OSError(
            errno.EINVAL, f"{path} is damaged; restore it, or delete it and make new keys"
        )
    return pepper


def _create(path: Path) -> None:
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix="pepper.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(handle)
        # Unlike a rename, a link never replaces what another process has made meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        Path(fresh).unlink()
