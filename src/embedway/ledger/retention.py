"""Deletes old lines of the ledger, never what they are summed into.

A running gateway goes on meanwhile: each transaction is short, and between two there is room for
others. Knows nothing of who may do it.
"""

import time
from collections.abc import Iterator

from sqlalchemy import Engine, delete, func, insert, select, tuple_, update

from embedway.ledger.reports import LINES_FROM
from embedway.ledger.rollups import DAY_MS
from embedway.storage import database
from embedway.storage.tables import installation, usage

LINES_AT_ONCE = 2_000
LOCK = "ledger lines"
MOST_REST_S = 1.0


def count_older(engine: Engine, before_ms: int) -> int:
    """How many lines there are of before that time."""
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        query = select(func.count()).select_from(usage).where(usage.c.at_ms < before_ms)
        return connection.scalar(query) or 0


def prune(engine: Engine, before_ms: int) -> Iterator[int]:
    """Deletes the lines of before that time; tells each time how many more are gone.

    Args:
        engine: The database.
        before_ms: When a UTC day begins, so that every sum has all of its lines or none.

    Raises:
        ValueError: It is not when a day begins.
        SQLAlchemyError: The database failed; what is told is gone, and the rest can be tried again.
    """
    if before_ms % DAY_MS:
        raise ValueError(f"{before_ms} is not when a UTC day begins")
    # First: while lines are missing nobody must take them to be complete.
    _note(engine, before_ms)
    oldest = (
        select(usage.c.id, usage.c.line)
        .where(usage.c.at_ms < before_ms)
        .order_by(usage.c.at_ms)
        .limit(LINES_AT_ONCE)
    )
    some = delete(usage).where(tuple_(usage.c.id, usage.c.line).in_(oldest))
    while True:
        began_s = time.monotonic()
        with engine.begin() as connection:
            deleted = connection.execute(some).rowcount
        yield deleted
        if deleted < LINES_AT_ONCE:
            return
        # As long as it took: a database with one writer at a time lets nobody wait in line.
        time.sleep(min(MOST_REST_S, time.monotonic() - began_s))


def _note(engine: Engine, before_ms: int) -> None:
    with database.locked_transaction(engine, lock=LOCK) as connection:
        before = connection.scalar(
            select(installation.c.value).where(installation.c.name == LINES_FROM)
        )
        if before is None:
            connection.execute(insert(installation).values(name=LINES_FROM, value=str(before_ms)))
        elif int(before) < before_ms:
            named = installation.c.name == LINES_FROM
            connection.execute(update(installation).where(named).values(value=str(before_ms)))
