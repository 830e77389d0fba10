"""Connects to Postgres: parses its URL, sets up sessions, and explains its errors.

No message contains a password.
"""

import hashlib
import logging
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

FORMS = ("postgresql://", "postgres://", "postgresql+psycopg://")
WAIT_S = 5
"""The longest to wait for a connection, for a lock, or for a statement to end."""
MAX_CONNECTIONS = 16
"""The most connections of one process. Half of them stay open."""

_WAIT_MS = WAIT_S * 1000
# Ends a transaction whose process hangs, so that others do not wait for it forever.
_IDLE_IN_TRANSACTION_MS = 2 * _WAIT_MS
_SESSION = {
    "connect_timeout": WAIT_S,
    "application_name": "embedway",
    # Gives up a server that vanished silently after the same time.
    "keepalives_idle": WAIT_S,
    "keepalives_interval": 1,
    "keepalives_count": WAIT_S,
    "tcp_user_timeout": _WAIT_MS,
}
_SETUP = (
    f"SET statement_timeout = {_WAIT_MS}",
    f"SET lock_timeout = {_WAIT_MS}",
    f"SET idle_in_transaction_session_timeout = {_IDLE_IN_TRANSACTION_MS}",
    "SET TimeZone = 'UTC'",
)
_CONNECTIONS = (
    f"Raise max_connections of Postgres: each gateway uses up to {MAX_CONNECTIONS}. Or run fewer."
)
_PASSWORD = "Correct the user or the password in EMBEDWAY_DATABASE_URL."
_ACCESS = "Let the user of EMBEDWAY_DATABASE_URL connect, and create and change tables there."
_CURES = (
    (("password authentication failed",), _PASSWORD),
    (("no password supplied",), _PASSWORD),
    (
        ("database", "does not exist"),
        "Make it, with `createdb`, or correct the name in EMBEDWAY_DATABASE_URL.",
    ),
    (
        ("role", "does not exist"),
        "Make it, with `createuser`, or correct the user in EMBEDWAY_DATABASE_URL.",
    ),
    (("permission denied",), _ACCESS),
    (("no pg_hba.conf entry",), _ACCESS),
    (("invalid connection option",), "Take it out of EMBEDWAY_DATABASE_URL."),
    (("canceling statement",), "Another program holds a lock there, or it is too busy. Try again."),
    (("too many",), _CONNECTIONS),
    (("remaining connection slots",), _CONNECTIONS),
)
"""The advice to add if a message of Postgres contains all these words."""


def parse_url(text: str) -> URL:
    """Parse the URL of a Postgres database.

    Raises:
        ValueError: The URL is invalid. The message does not quote it, because it may contain a
            password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if not text.startswith(FORMS) or url is None or not url.database:
        raise ValueError(
            "it must be a URL such as postgresql://user:password@host:5432/database, with special "
            "characters in the password percent-encoded: @ is %40, / is %2F"
        )
    return url.set(drivername="postgresql+psycopg")


def describe(url: URL) -> str:
    """Return the URL without password and options."""
    return url.set(password=None, query={}, drivername="postgresql").render_as_string()


def open_engine(url: URL) -> Engine:
    """Make an engine that connects to `url` when it is used."""
    defaults = {name: value for name, value in _SESSION.items() if name not in url.query}
    # The driver warns about each pipeline that a lost connection ends. `DatabaseAvailability` logs
    # the outage once.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    engine = create_engine(
        url,
        connect_args=defaults,
        hide_parameters=True,  # they are user data
        pool_size=MAX_CONNECTIONS // 2,
        max_overflow=MAX_CONNECTIONS - MAX_CONNECTIONS // 2,
        pool_timeout=WAIT_S,
        pool_pre_ping=True,  # replaces connections that a restart of Postgres broke
    )
    event.listen(engine, "connect", _prepare)
    return engine


def take_lock(connection: Connection, name: str) -> None:
    """Take the lock with this name, once no other transaction has it, until this one ends."""
    number = hashlib.blake2b(f"embedway:{name}".encode(), digest_size=8).digest()
    connection.exec_driver_sql(
        "SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(number, signed=True),)
    )


def lift_time_limits(connection: Connection) -> None:
    """Let this transaction take any time."""
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def explain(error: SQLAlchemyError | OSError, cause: BaseException) -> str:
    """Return what went wrong, and what to do."""
    message = " ".join(str(cause).split()).rstrip(".?")
    for words, cure in _CURES:
        if all(word in message for word in words):
            return f"{message}. {cure}"
    if isinstance(error, OperationalError | OSError):
        return (
            f"{message}. Check that Postgres runs, can be reached from here, and is the one "
            "that EMBEDWAY_DATABASE_URL names."
        )
    return f"{message}. Its tables are not as Embedway made them: restore it from a copy."


def _prepare(session: Any, _: ConnectionPoolEntry) -> None:
    # Untyped, because the driver is imported only if Postgres is used.
    session.autocommit = True
    for statement in _SETUP:
        session.execute(statement)
    session.autocommit = False
