"""Writes usage records to the database, those of many requests in one commit."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Literal, Protocol

from sqlalchemy import Connection, Engine, delete, insert, select

from embedway.concurrency.group_worker import EqualShares, GroupWorker
from embedway.concurrency.threads import THREADS, Threads
from embedway.core.errors import ServiceOverloaded
from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger.commits import (
    CommitError,
    CommitRejected,
    ConnectionLost,
    LedgerEntry,
    LedgerWriter,
    correction,
    group_entries,
)
from embedway.ledger.sqlite_writer import SqliteLedgerWriter
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.query_threads import WAIT_S, QueryThreads
from embedway.storage.tables import installation, usage

MAX_GROUP_ROWS = 1_000
MAX_WAITING_ROWS = 20_000
RETRY_S = 5.0
"""How long to keep trying to reach a lost database."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5

CHECK_BYTES = 2**18
"""The size of a trial commit: more than the usual one, so that an almost full disk fails it."""

UNRECORDED = "Usage cannot be recorded right now. Try again."

RecordOutcome = Literal["committed", "refused", "in_doubt"]
"""What became of a request's records.

`committed` records survive `kill -9`. `refused` ones are not in the ledger and never will be. Those
`in_doubt` may be in the ledger now or later; replace them with `Ledger.replace`.
"""


class Ledger:
    """The usage ledger in the database."""

    def __init__(
        self,
        engine: Engine,
        *,
        process: str = "",
        retry_s: float = RETRY_S,
        wait_s: float = WAIT_S,
        availability: DatabaseAvailability | None = None,
        writer: LedgerWriter | None = None,
        is_shared: bool = False,
        threads: Threads = THREADS,
    ) -> None:
        """Start the writer's thread.

        Args:
            engine: The database.
            process: The process whose budget holds pay for the requests.
            retry_s: How long to keep trying to reach a lost database.
            wait_s: How much longer to wait for a commit that hangs.
            availability: Receives the success or failure of each commit.
            writer: Writes to the database; by default, the one for its kind.
            is_shared: Whether other processes of this machine commit to the database too.
            threads: Starts the thread, and keeps its time.
        """
        self._process = process
        self._database_writer = writer or _open_writer(engine, process=process, is_shared=is_shared)
        self._threads = threads
        self._retry_s = retry_s
        self._wait_s = wait_s
        self._availability = availability or DatabaseAvailability()
        self._engine = engine
        self._checks = QueryThreads(
            "ledger-check", use="commit", availability=availability, unavailable=UNRECORDED
        )
        self._lost_since_s: float | None = None
        """The monotonic time at which the database was lost, in seconds; None while it is there."""
        self._pending: deque[tuple[float, asyncio.Future[RecordOutcome]]] = deque()
        """The entries not yet committed, each with the loop time at which it is in doubt."""
        self._timer: asyncio.TimerHandle | None = None
        """The timer for the oldest of these."""
        # Entries that wait while one commit runs form the next group, so groups grow with load.
        self._writer = GroupWorker[LedgerEntry, RecordOutcome](
            self._work,
            name="ledger",
            queue=EqualShares(MAX_GROUP_ROWS),
            max_waiting_weight=MAX_WAITING_ROWS,
            weigh=lambda entry: len(entry.records),
            threads=threads,
        )

    def append(
        self, records: Sequence[UsageRecord], *, holders: Collection[Subject] = ()
    ) -> asyncio.Future[RecordOutcome]:
        """Queue the records of one request; the future resolves to their outcome.

        Cancelling the future does not stop the commit.

        Args:
            records: The records. They and their sums in the roll-ups are committed together.
            holders: The subjects whose budgets hold money for this request. The same commit takes
                what the records charge from each of these holds.

        Raises:
            ServiceOverloaded: Too many records are waiting.
        """
        future = self._writer.put(LedgerEntry(records, holders))
        pending = self._pending
        while pending and pending[0][1].done():
            pending.popleft()
        loop = future.get_loop()
        late_s = loop.time() + self._retry_s + self._wait_s
        if not pending:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(late_s, self._end_wait, loop)
        pending.append((late_s, future))
        return future

    async def replace(
        self,
        records: Sequence[UsageRecord],
        *,
        by: Sequence[UsageRecord],
        holders: Collection[Subject] = (),
    ) -> None:
        """Replace records whose commit is in doubt by ones that charge nothing.

        Wait until that is committed, however long the database is lost. From then on `records` are
        certain never to be in the ledger.

        Args:
            records: The records that `append` got.
            by: Records of the same request, with another status.
            holders: The holders that `append` got.
        """
        entry = LedgerEntry(by, holders, replaces=records)
        while True:
            with suppress(ServiceOverloaded):
                if await self._writer.put(entry) == "committed":
                    return
            await asyncio.sleep(self._retry_s)

    def _end_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Resolve the futures that waited too long as in doubt."""
        self._timer = None
        pending, now_s = self._pending, loop.time()
        while pending and (pending[0][1].done() or pending[0][0] <= now_s):
            _, future = pending.popleft()
            if not future.done():
                self._availability.record_failure("commit", "a commit takes too long")
                future.set_result("in_doubt")
        if pending:
            self._timer = loop.call_at(pending[0][0], self._end_wait, loop)

    @property
    def is_failing(self) -> bool:
        """Whether the last commit failed."""
        return self._availability.commits_fail

    async def find(self, id: str) -> Sequence[tuple[int, int]]:
        """Return the number and the status of each committed record of a request.

        Raises:
            StorageUnavailable: The database cannot be read.
        """
        query = select(usage.c.line, usage.c.status).where(usage.c.id == id)

        def find(connection: Connection) -> Sequence[tuple[int, int]]:
            return [(each.line, each.status) for each in connection.execute(query)]

        return await self._checks.read(self._engine, find)

    async def try_commit(self) -> None:
        """Commit something that leaves no trace, to find out whether the database works again.

        Raises:
            StorageUnavailable: It does not.
        """
        await self._checks.run(self._commit_trial)
        self._availability.record_success("commit")

    @property
    def is_alive(self) -> bool:
        """Whether the writer's thread runs."""
        return self._writer.is_alive

    @property
    def waiting_records(self) -> int:
        """The number of records that the writer has not yet taken."""
        return self._writer.waiting_weight

    def close(self) -> None:
        """Commit the waiting records and end the threads."""
        self._writer.close()
        self._database_writer.close()
        self._checks.close()

    def _commit_trial(self) -> None:
        # Two commits, because SQLite writes nothing if one transaction both adds and deletes.
        row = {"name": f"check of {self._process}", "value": "." * CHECK_BYTES}
        remove = delete(installation).where(installation.c.name == row["name"])
        with self._engine.begin() as connection:
            connection.execute(remove)
            connection.execute(insert(installation).values(row))
        with self._engine.begin() as connection:
            connection.execute(remove)

    def _work(
        self, entries: list[LedgerEntry]
    ) -> Iterator[tuple[Sequence[int], Sequence[RecordOutcome]]]:
        new = [at for at, entry in enumerate(entries) if not entry.replaces]
        if new:
            yield new, [_outcome(each) for each in self._commit([entries[at] for at in new])]
        failure: CommitError | None = None
        for at, entry in enumerate(entries):
            if entry.replaces:
                # Once the connection is lost, the other replacements fail without another wait.
                if not isinstance(failure, ConnectionLost):
                    failure = self._replace(entry)
                yield [at], [_outcome(failure)]

    def _commit(self, entries: list[LedgerEntry]) -> list[CommitError | None]:
        """Commit `entries`, and return for each why it failed, or None."""
        group = group_entries(entries)

        def commit(*, in_doubt: bool) -> None:
            if in_doubt and self._database_writer.status(group.records[0].id) is not None:
                return
            try:
                self._database_writer.commit(group)
            except CommitRejected:
                # The first attempt may have been committed in the meantime.
                if not in_doubt or self._database_writer.status(group.records[0].id) is None:
                    raise

        failure = self._attempt(commit)
        if isinstance(failure, CommitRejected) and len(entries) > 1:
            # Halve the group until only the entries at fault fail.
            half = len(entries) // 2
            return self._commit(entries[:half]) + self._commit(entries[half:])
        return [failure] * len(entries)

    def _replace(self, entry: LedgerEntry) -> CommitError | None:
        """Replace records, whether or not they are committed."""
        new = entry.records[0]

        def replace(*, in_doubt: bool) -> None:
            del in_doubt  # the status below says what is committed
            match self._database_writer.status(new.id):
                case None:
                    # If the old records arrive later, their commit is rejected.
                    self._database_writer.commit(group_entries([LedgerEntry(entry.records)]))
                case new.status:
                    pass
                case _:
                    self._database_writer.commit(correction(entry))

        failure = self._attempt(replace)
        # A rejection means that the old records have just arrived, so replace these.
        return self._attempt(replace) if isinstance(failure, CommitRejected) else failure

    def _attempt(self, write: "Write") -> CommitError | None:
        """Write once, retrying while the database is lost; return why it failed, or None."""
        in_doubt, lost_since_s, pause_s = False, self._lost_since_s, 0.0
        while True:
            try:
                write(in_doubt=in_doubt)
            except ConnectionLost as error:
                now_s = self._threads.now_s()
                # All writes share one wait for a lost database. Only a write that may be committed
                # starts a wait of its own, to find out.
                if lost_since_s is None or (error.in_doubt and not in_doubt):
                    lost_since_s = now_s
                self._lost_since_s = lost_since_s
                in_doubt = in_doubt or error.in_doubt
                if now_s - lost_since_s >= self._retry_s:
                    self._availability.record_failure("commit", str(error))
                    error.in_doubt = in_doubt
                    return error
                self._threads.sleep(pause_s)
                pause_s = min(2 * pause_s + FIRST_PAUSE_S, LONGEST_PAUSE_S)
            except CommitError as error:
                self._lost_since_s = None
                if not isinstance(error, CommitRejected):
                    self._availability.record_failure("commit", str(error))
                    error.in_doubt = in_doubt
                return error
            else:
                self._lost_since_s = None
                self._availability.record_success("commit")
                return None


def _outcome(failure: CommitError | None) -> RecordOutcome:
    if failure is None:
        return "committed"
    return "in_doubt" if failure.in_doubt else "refused"


class Write(Protocol):
    """Writes something to the database."""

    def __call__(self, *, in_doubt: bool) -> None:
        """Write it, or raise `CommitError`; `in_doubt` if an earlier attempt may be committed."""
        ...


def _open_writer(engine: Engine, *, process: str, is_shared: bool) -> LedgerWriter:
    if engine.dialect.name == "sqlite":
        return SqliteLedgerWriter(engine, process=process, is_shared=is_shared)
    # The Postgres driver is slow to import.
    from embedway.ledger.postgres_writer import PostgresLedgerWriter  # noqa: PLC0415

    return PostgresLedgerWriter(engine, process=process)
