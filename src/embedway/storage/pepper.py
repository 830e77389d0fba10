"""The secret that keys are hashed with: from the settings, or a file in the data folder.

It is never in the database. A fingerprint of it is, so that a gateway with another one says so when
it starts, instead of refusing every key.
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


def load_pepper(engine: Engine, file: Path, *, given: str | None) -> bytes:
    """The pepper that the keys in the database are hashed with; one is made for an empty database.

    Args:
        engine: The database.
        file: Where the pepper is if none is `given`.
        given: By the settings, in hex.

    Raises:
        OSError: The file cannot be read or made, or is damaged.
        DatabaseError: It is missing, or not that of the database.
    """
    if given is None and not file.exists():
        with database.locked_transaction(engine, lock=_LOCK) as connection:
            # Looked for again: another process may have made it meanwhile.
            kept = _kept(connection)
            if kept and not file.exists():
                raise DatabaseError(_missing(file, database.describe(engine)))
            _create(file)
            if not kept:
                _keep(connection, _read(file))
    pepper = _read(file) if given is None else bytes.fromhex(given)
    with engine.connect() as connection:
        kept = _kept(connection)
    if kept is None:
        with database.locked_transaction(engine, lock=_LOCK) as connection:
            kept = _kept(connection) or _keep(connection, pepper)
    if not hmac.compare_digest(kept, _fingerprint(pepper)):
        source = "EMBEDWAY_PEPPER" if given else str(file)
        raise DatabaseError(_differs(source, database.describe(engine)))
    return pepper


def forget_fingerprint(engine: Engine, file: Path, *, given: str | None, now_ms: int) -> None:
    """Revokes every key and moves the pepper away: who opens the database next has another.

    Raises:
        OSError: The file cannot be moved.
        DatabaseError: The settings still give the old one.
    """
    with database.locked_transaction(engine, lock=_LOCK) as connection:
        if given is not None and _kept(connection) == _fingerprint(bytes.fromhex(given)):
            raise DatabaseError(
                "EMBEDWAY_PEPPER still is the one that is to be forgotten. Set another one, such "
                "as `openssl rand -hex 32` prints, and try again."
            )
        # Kept: it may be that of another database too.
        with contextlib.suppress(FileNotFoundError):
            file.rename(file.with_name(f"{file.name}.old"))
        connection.execute(delete(installation).where(installation.c.name == _NAME))
        connection.execute(
            update(keys).where(keys.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        )


def _missing(file: Path, shown: str) -> str:
    return (
        f"The pepper that the keys in {shown} were made with is not here: there is no {file}. Copy "
        "that file from the data folder of the gateway that made them, or from a backup, or set "
        "EMBEDWAY_PEPPER to its 64 hex digits. If it is lost for good, `embedway db repepper` "
        "begins with a new one; no key made until then works any more."
    )


def _differs(source: str, shown: str) -> str:
    return (
        f"The pepper of {source} is not the one that the keys in {shown} were made with, so none "
        "of them would work here. Copy the file `pepper` from the data folder of the gateway that "
        "made them, or set EMBEDWAY_PEPPER to its 64 hex digits. All gateways of one database "
        "share one."
    )


def _kept(connection: Connection) -> str | None:
    return connection.scalar(select(installation.c.value).where(installation.c.name == _NAME))


def _keep(connection: Connection, pepper: bytes) -> str:
    fingerprint = _fingerprint(pepper)
    connection.execute(insert(installation).values(name=_NAME, value=fingerprint))
    return fingerprint


def _fingerprint(pepper: bytes) -> str:
    # Keyed: it tells nothing of the pepper. The words keep it apart from the digest of any key.
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
        # Unlike a rename, a link never replaces what another process has made meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        Path(fresh).unlink()
