"""Deletes old usage records. Their sums in the roll-ups stay.

A gateway may run meanwhile: each transaction is short, and a pause after it lets others write.
"""

import time
from collections.abc import Iterator

from sqlalchemy import Engine, delete, func, insert, select, tuple_

from embedway.ledger.buckets import DAY_MS
from embedway.ledger.reports import RECORDS_FROM, kept_from_ms
from embedway.storage import database
from embedway.storage.tables import installation, usage

RECORDS_PER_DELETE = 2_000
LOCK = "ledger lines"
MAX_PAUSE_S = 1.0


def count_older(engine: Engine, before_ms: int) -> int:
    """Return the number of usage records from before `before_ms`."""
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        query = select(func.count()).select_from(usage).where(usage.c.at_ms < before_ms)
        return connection.scalar(query) or 0


def prune(engine: Engine, before_ms: int) -> Iterator[int]:
    """Delete the usage records from before `before_ms`; yield the number deleted by each commit.

    `before_ms` is the start of a UTC day, so that every sum keeps all of its records or none.

    Raises:
        ValueError: `before_ms` is not the start of a day.
        SQLAlchemyError: The database failed. What was yielded is deleted; call again for the rest.
    """
    if before_ms % DAY_MS:
        raise ValueError(f"before_ms {before_ms} is not the start of a UTC day")
    # Recorded first, because from now on the older records are incomplete.
    _record_start(engine, before_ms)
    oldest = (
        select(usage.c.id, usage.c.line)
        .where(usage.c.at_ms < before_ms)
        .order_by(usage.c.at_ms)
        .limit(RECORDS_PER_DELETE)
    )
    delete_some = delete(usage).where(tuple_(usage.c.id, usage.c.line).in_(oldest))
    while True:
        began_s = time.monotonic()
        with engine.begin() as connection:
            deleted = connection.execute(delete_some).rowcount
        yield deleted
        if deleted < RECORDS_PER_DELETE:
            return
        # As long as it took, because SQLite has no queue of writers.
        time.sleep(min(MAX_PAUSE_S, time.monotonic() - began_s))


def _record_start(engine: Engine, before_ms: int) -> None:
    with database.locked_transaction(engine, lock=LOCK) as connection:
        if kept_from_ms(connection) < before_ms:
            named = installation.c.name == RECORDS_FROM
            connection.execute(delete(installation).where(named))
            connection.execute(insert(installation).values(name=RECORDS_FROM, value=str(before_ms)))
