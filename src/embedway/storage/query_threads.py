"""Queries in threads of their own, awaited for no longer than a client may be kept waiting.

The database's own timeouts end what is slow. The bound here is for a database that stands still
altogether, as a machine does that is being moved.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.storage.availability import DatabaseAvailability, Use

WAIT_S = 15.0
"""Longer than a free connection, a lock and a statement may take one after the other."""
THREADS = 2

Done = TypeVar("Done")


class QueryThreads:
    """Runs queries for one kind of record, and reports to the database's `DatabaseAvailability`."""

    def __init__(
        self, name: str, *, use: Use, availability: DatabaseAvailability | None, unavailable: str
    ) -> None:
        """Opens no thread yet.

        Args:
            name: The prefix of the threads' names.
            use: The use of the database to report. Of the uses named `commit`, only the ledger's
                shows that the database is back, for the others may be too small to tell.
            availability: The state of the database; one of its own if None.
            unavailable: The message for clients while the database fails.
        """
        self._use: Use = use
        self._availability = availability or DatabaseAvailability()
        self._unavailable = unavailable
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)

    async def run(self, query: Callable[[], Done]) -> Done:
        """Return what `query` returns.

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

    async def write(self, transaction: Callable[[Callable[[], None]], Done]) -> Done:
        """Return what `transaction` returns once it has committed.

        Args:
            transaction: Gets a function to call last before it commits. The function raises
                `TimeoutError` if nobody waits for the transaction any more.

        Raises:
            CommitInDoubt: It may have committed, or may yet commit.
            StorageUnavailable: It has not committed, and never will.
        """
        committing = given_up = False

        def about_to_commit() -> None:
            nonlocal committing
            # Set before the other is read, as below: whoever comes second sees both.
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
        """End the threads, once what they do is done."""
        self._threads.shutdown()
