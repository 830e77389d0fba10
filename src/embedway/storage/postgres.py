"""What is Postgres's own: its address, how a session is set up, and what its failures mean.

Knows nothing of the tables, and never tells a password.
"""

import hashlib
import logging
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

FORMS = ("postgresql://", "postgres://", "postgresql+psycopg://")
WAIT_S = 5
"""For a connection, a lock, or a statement to end."""
MAX_CONNECTIONS = 16
"""Of one process, half of them kept open."""

_WAIT_MS = WAIT_S * 1000
# Nobody waits for ever for a process that stands still within a transaction.
_IDLE_IN_TRANSACTION_MS = 2 * _WAIT_MS
_SESSION = {
    "connect_timeout": WAIT_S,
    "application_name": "embedway",
    # A server that vanished without a word is given up after as long.
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
"""What to do if all these words are in what Postgres says."""


def address(text: str) -> URL:
    """Where a Postgres is, from its URL.

    Raises:
        ValueError: It is none. The text is not in the message, for a password may be in it.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if not text.startswith(FORMS) or url is None or not url.database:
        raise ValueError(
            "it must be an address such as postgresql://user:password@host:5432/database, and "
            "what is special in a password is written with %: @ is %40, / is %2F"
        )
    return url.set(drivername="postgresql+psycopg")


def describe(url: URL) -> str:
    """The address as people may see it: no password, nor what its options hold."""
    return url.set(password=None, query={}, drivername="postgresql").render_as_string()


def open_engine(url: URL) -> Engine:
    """Connections to the database at `url`, made when they are needed."""
    usual = {name: value for name, value in _SESSION.items() if name not in url.query}
    # The driver warns of each pipeline that a lost connection ends; the log has that once.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    engine = create_engine(
        url,
        connect_args=usual,
        hide_parameters=True,  # they are users' data
        pool_size=MAX_CONNECTIONS // 2,
        max_overflow=MAX_CONNECTIONS - MAX_CONNECTIONS // 2,
        pool_timeout=WAIT_S,
        pool_pre_ping=True,  # connections of before a restart of Postgres are replaced unseen
    )
    event.listen(engine, "connect", _prepare)
    return engine


def take_lock(connection: Connection, name: str) -> None:
    """Waits until no other transaction has the lock of this name; it is given back at the end."""
    number = hashlib.blake2b(f"embedway:{name}".encode(), digest_size=8).digest()
    connection.exec_driver_sql(
        "SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(number, signed=True),)
    )


def lift_time_limits(connection: Connection) -> None:
    """Lets this transaction take as long as it takes."""
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def explain(error: SQLAlchemyError | OSError, cause: BaseException) -> str:
    """What went wrong, and what to do."""
    said = " ".join(str(cause).split()).rstrip(".?")
    for words, cure in _CURES:
        if all(word in said for word in words):
            return f"{said}. {cure}"
    if isinstance(error, OperationalError | OSError):
        return (
            f"{said}. Check that Postgres runs, can be reached from here and is what "
            "EMBEDWAY_DATABASE_URL names."
        )
    return f"{said}. Its tables are not as Embedway made them: restore it from a copy."


def _prepare(session: Any, _: ConnectionPoolEntry) -> None:
    # Untyped: the driver is imported by those alone who have a Postgres.
    session.autocommit = True
    for statement in _SETUP:
        session.execute(statement)
    session.autocommit = False
