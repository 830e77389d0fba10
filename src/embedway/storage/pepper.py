"""Loads the pepper, the secret that keys are hashed with, from the settings or the data folder.

The database has only a fingerprint of it, so that a gateway with the wrong pepper fails to start
instead of refusing every key.
"""

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, insert, select, update

from embedway.storage import database
from embedway.storage.database import DatabaseError
from embedway.storage.tables import installation, keys

PEPPER_BYTES = 32

_NAME = "pepper"
_LOCK = "installation"


def load_pepper(engine: Engine, file: Path, *, configured: str | None) -> bytes:
    """Return the pepper of the keys in the database. Make one for a database without keys.

    The pepper is read from `file`, unless the settings give one, in hex, as `configured`.

    Raises:
        OSError: The file cannot be read or made, or is damaged.
        DatabaseError: The pepper is missing, or belongs to another database.
    """
    if configured is None and not file.exists():
        with database.locked_transaction(engine, lock=_LOCK) as connection:
            # Look again, because another process may have just made it.
            fingerprint = _read_fingerprint(connection)
            if fingerprint and not file.exists():
                raise DatabaseError(_missing(file, database.describe(engine)))
            _create(file)
            if not fingerprint:
                _store_fingerprint(connection, _read(file))
    pepper = _read(file) if configured is None else bytes.fromhex(configured)
    with engine.connect() as connection:
        fingerprint = _read_fingerprint(connection)
    if fingerprint is None:
        with database.locked_transaction(engine, lock=_LOCK) as connection:
            fingerprint = _read_fingerprint(connection) or _store_fingerprint(connection, pepper)
    if not hmac.compare_digest(fingerprint, _fingerprint(pepper)):
        source = "EMBEDWAY_PEPPER" if configured else str(file)
        raise DatabaseError(_differs(source, database.describe(engine)))
    return pepper


def discard_pepper(engine: Engine, file: Path, *, configured: str | None, now_ms: int) -> None:
    """Revoke every key and move the pepper away. The next `load_pepper` makes a new one.

    Raises:
        OSError: The file cannot be moved.
        DatabaseError: The settings still have the old pepper.
    """
    with database.locked_transaction(engine, lock=_LOCK) as connection:
        if configured is not None and _read_fingerprint(connection) == _fingerprint(
            bytes.fromhex(configured)
        ):
            raise DatabaseError(
                "EMBEDWAY_PEPPER still is the old pepper. Set a new one, such as "
                "`openssl rand -hex 32` prints, and try again."
            )
        # Renamed, not deleted, because another database may use it too.
        with contextlib.suppress(FileNotFoundError):
            file.rename(file.with_name(f"{file.name}.old"))
        connection.execute(delete(installation).where(installation.c.name == _NAME))
        connection.execute(
            update(keys).where(keys.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        )


def _missing(file: Path, shown: str) -> str:
    return (
        f"The pepper of the keys in {shown} is missing: there is no {file}. Copy that file from "
        "the data folder of the gateway that made the keys, or from a backup, or set "
        "EMBEDWAY_PEPPER to its 64 hex digits. If it is lost for good, `embedway db repepper` "
        "makes a new one, and all keys made until then stop working."
    )


def _differs(source: str, shown: str) -> str:
    return (
        f"The pepper in {source} is not the one that the keys in {shown} were made with, so none "
        "of them would work. Copy the file `pepper` from the data folder of the gateway that made "
        "them, or set EMBEDWAY_PEPPER to its 64 hex digits. All gateways of one database share one "
        "pepper."
    )


def _read_fingerprint(connection: Connection) -> str | None:
    return connection.scalar(select(installation.c.value).where(installation.c.name == _NAME))


def _store_fingerprint(connection: Connection, pepper: bytes) -> str:
    fingerprint = _fingerprint(pepper)
    connection.execute(insert(installation).values(name=_NAME, value=fingerprint))
    return fingerprint


def _fingerprint(pepper: bytes) -> str:
    # A keyed hash reveals nothing of the pepper. The text makes it differ from the digest of a key.
    return hashlib.blake2b(b"embedway: pepper", key=pepper, digest_size=16).hexdigest()


def _read(path: Path) -> bytes:
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise OSError(
            errno.EINVAL,
            f"{path} is damaged; restore it from a copy, or set EMBEDWAY_PEPPER",
        )
    return pepper


def _create(path: Path) -> None:
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix="pepper.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(handle)
        # Unlike a rename, a link never replaces a file that another process has just made.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        Path(fresh).unlink()
