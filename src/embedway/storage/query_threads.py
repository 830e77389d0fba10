"""Runs queries in threads, and waits for each no longer than a client may be kept waiting.

The database's own timeouts end slow queries. The limit here is for a database that hangs, as while
its machine is being moved.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.storage.availability import DatabaseAvailability, Use

WAIT_S = 15.0
"""The longest to wait: more than for a connection, a lock and a statement one after another."""
THREADS = 2

Done = TypeVar("Done")


class QueryThreads:
    """Runs queries for one kind of record, and reports to the database's `DatabaseAvailability`."""

    def __init__(
        self, name: str, *, use: Use, availability: DatabaseAvailability | None, unavailable: str
    ) -> None:
        """Start no thread yet.

        Args:
            name: The prefix of the threads' names.
            use: The use to report failures of. A success is reported for `read` only: a small
                commit does not show that the database has recovered, so the ledger reports that.
            availability: The state of the database; a new one if None.
            unavailable: The message for clients while the database fails.
        """
        self._use: Use = use
        self._availability = availability or DatabaseAvailability()
        self._unavailable = unavailable
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)

    async def run(self, query: Callable[[], Done]) -> Done:
        """Run `query` and return its result.

        Raises:
            StorageUnavailable: The database failed, or did not answer in `WAIT_S`.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                done = await asyncio.get_running_loop().run_in_executor(self._threads, query)
        except (SQLAlchemyError, TimeoutError) as error:
            self._availability.record_failure(self._use, type(error).__name__)
            raise StorageUnavailable(self._unavailable) from error
        if self._use == "read":
            self._availability.record_success("read")
        return done

    async def read(self, engine: Engine, find: Callable[[Connection], Done]) -> Done:
        """Return what `find` finds on a connection of its own; `run` says what this raises."""

        def read() -> Done:
            with engine.connect() as connection:
                return find(connection)

        return await self.run(read)

    async def write(self, transaction: Callable[[Callable[[], None]], Done]) -> Done:
        """Run `transaction` and return its result once it is committed.

        Args:
            transaction: Gets a function that it must call right before it commits. The function
                raises `TimeoutError` if the wait for the transaction has ended.

        Raises:
            CommitInDoubt: The transaction may be committed, now or later.
            StorageUnavailable: The transaction is not committed and never will be.
        """
        committing = given_up = False

        def about_to_commit() -> None:
            nonlocal committing
            # Each side sets its flag before it reads the other, so the later one sees both.
            committing = True
            if given_up:
                raise TimeoutError

        try:
            return await self.run(lambda: transaction(about_to_commit))
        except StorageUnavailable as error:
            given_up = True
            cause = error.__cause__
            rolled_back = isinstance(cause, DBAPIError) and not cause.connection_invalidated
            if committing and not rolled_back:
                raise CommitInDoubt(self._unavailable) from cause
            raise

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._threads.shutdown()
