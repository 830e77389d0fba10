"""The secret that keys are hashed with, kept beside the database but not in it."""

import os
import secrets
from pathlib import Path

PEPPER_BYTES = 32


def read_or_create(path: Path) -> bytes:
    """The pepper at `path`, made on first use; readable by its owner only.

    Raises:
        OSError: It cannot be read or made.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(PEPPER_BYTES))
        try:
            os.link(fresh, path)  # unlike a rename, never replaces what another process made
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()
