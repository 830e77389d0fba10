"""Writes usage records, the records of many requests to a commit."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Literal, Protocol

from sqlalchemy import Engine, delete, insert

from embedway.concurrency.group_worker import GroupWorker
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
from embedway.storage.tables import installation

MAX_GROUP_ROWS = 1_000
MAX_WAITING_ROWS = 20_000
RETRY_S = 5.0
"""How long a database that went away is waited for."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5

CHECK_BYTES = 2**18
"""More than a usual commit writes, so that a disk with a few bytes left fails the check."""

UNRECORDED = "Usage cannot be recorded right now. Try again."

RecordOutcome = Literal["committed", "refused", "in_doubt"]
"""The fate of the records of one request: they would survive `kill -9`; they are not in the ledger
and never will be; or they may be there, or may yet be. Follow up the last with `Ledger.replace`."""


class Ledger:
    """The usage ledger on a SQL database."""

    def __init__(
        self,
        engine: Engine,
        *,
        process: str = "",
        retry_s: float = RETRY_S,
        wait_s: float = WAIT_S,
        availability: DatabaseAvailability | None = None,
    ) -> None:
        """Starts the writer.

        Args:
            engine: The database.
            process: Whose holds are made less by what is charged.
            retry_s: How long a database that went away is waited for.
            wait_s: How long beyond that a database that stands still in a commit is waited for.
            availability: The state of the database, to report commits to.
        """
        self._process = process
        self._commits = _commits(engine, process=process)
        self._retry_s = retry_s
        self._wait_s = wait_s
        self._availability = availability or DatabaseAvailability()
        self._engine = engine
        self._checks = QueryThreads(
            "ledger-check", use="commit", availability=availability, unavailable=UNRECORDED
        )
        self._away: float | None = None
        """Since when the database is, in seconds; None while it is not."""
        self._pending: deque[tuple[float, asyncio.Future[RecordOutcome]]] = deque()
        """The records not yet committed, each with the time at which that takes too long."""
        self._timer: asyncio.TimerHandle | None = None
        """Ends the wait for the oldest of these; one for all."""
        # Records that wait while one commit runs make the next group: the busier, the larger.
        self._writer = GroupWorker[LedgerEntry, RecordOutcome](
            self._work,
            name="ledger",
            group_weight=MAX_GROUP_ROWS,
            max_waiting_weight=MAX_WAITING_ROWS,
            weigh=lambda charge: len(charge.lines),
        )

    def append(
        self, records: Sequence[UsageRecord], *, holders: Collection[Subject] = ()
    ) -> asyncio.Future[RecordOutcome]:
        """Hand the records of one request to the writer; the future tells their fate.

        Cancelling the future takes nothing back: the records are written all the same.

        Args:
            records: All of them, or none, are committed, with the roll-ups that they add to.
            holders: The subjects whose budgets hold money for this request. In the same commit
                each of their holds gets less by what the records charge, which is spent from then
                on.

        Raises:
            ServiceOverloaded: Too much waits to be written.
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
        lines: Sequence[UsageRecord],
        *,
        by: Sequence[UsageRecord],
        held: Collection[Subject] = (),
    ) -> None:
        """Put lines that charge nothing in the place of ones whose commit is in doubt.

        Returns once that is committed, however long the database is away: from then on it is
        certain that `lines` are not in the ledger and never will be.

        Args:
            lines: As they were given to `append`.
            by: Lines of the same request, with another status.
            held: The holders that were given to `append`.
        """
        charge = LedgerEntry(by, held, replaces=lines)
        while True:
            with suppress(ServiceOverloaded):
                if await self._writer.put(charge) == "committed":
                    return
            await asyncio.sleep(self._retry_s)

    def _end_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell those that waited too long that their commit is in doubt."""
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
    def failing(self) -> bool:
        """Whether the last commit failed."""
        return self._availability.commits_fail

    async def try_commit(self) -> None:
        """Commit something that leaves no trace, to find out whether the database is back.

        Raises:
            StorageUnavailable: It is not.
        """
        await self._checks.run(self._commit_trial)
        self._availability.record_success("commit")

    @property
    def alive(self) -> bool:
        """Whether lines get committed."""
        return self._writer.is_alive

    @property
    def waiting(self) -> int:
        """Lines not yet taken by the writer."""
        return self._writer.waiting_weight

    def close(self) -> None:
        """Commits what waits and stops the writer."""
        self._writer.close()
        self._commits.close()
        self._checks.close()

    def _commit_trial(self) -> None:
        # Two commits: SQLite does not write what one transaction both adds and deletes.
        row = {"name": f"check of {self._process}", "value": "." * CHECK_BYTES}
        remove = delete(installation).where(installation.c.name == row["name"])
        with self._engine.begin() as connection:
            connection.execute(remove)
            connection.execute(insert(installation).values(row))
        with self._engine.begin() as connection:
            connection.execute(remove)

    def _work(
        self, charges: list[LedgerEntry]
    ) -> Iterator[tuple[Sequence[int], Sequence[RecordOutcome]]]:
        new = [at for at, charge in enumerate(charges) if not charge.replaces]
        if new:
            yield new, [_outcome(each) for each in self._committed([charges[at] for at in new])]
        failure: CommitError | None = None
        for at, charge in enumerate(charges):
            if charge.replaces:
                # While the database is away, the first to find out spares the others the wait.
                if not isinstance(failure, ConnectionLost):
                    failure = self._replaced(charge)
                yield [at], [_outcome(failure)]

    def _committed(self, charges: list[LedgerEntry]) -> list[CommitError | None]:
        """Commits `charges`; says of each why it is not."""
        group = group_entries(charges)

        def commit(*, in_doubt: bool) -> None:
            if in_doubt and self._commits.status(group.lines[0].id) is not None:
                return
            try:
                self._commits.commit(group)
            except CommitRejected:
                # A first try that was still under way is why the second is refused.
                if not in_doubt or self._commits.status(group.lines[0].id) is None:
                    raise

        failure = self._attempt(commit)
        if isinstance(failure, CommitRejected) and len(charges) > 1:
            # Only those are to fail that are at fault.
            half = len(charges) // 2
            return self._committed(charges[:half]) + self._committed(charges[half:])
        return [failure] * len(charges)

    def _replaced(self, charge: LedgerEntry) -> CommitError | None:
        """Puts lines in the place of others, whether or not those are committed."""
        new = charge.lines[0]

        def replace(*, in_doubt: bool) -> None:
            del in_doubt  # this finds out for itself what is committed
            match self._commits.status(new.id):
                case None:
                    # If the other lines are still on their way, they are now refused.
                    self._commits.commit(group_entries([LedgerEntry(charge.lines)]))
                case new.status:
                    pass
                case _:
                    self._commits.commit(correction(charge))

        failure = self._attempt(replace)
        # Refused where the other lines arrived in between; now they are there.
        return self._attempt(replace) if isinstance(failure, CommitRejected) else failure

    def _attempt(self, write: "Write") -> CommitError | None:
        """Writes once, however often the database goes away meanwhile; says why it did not."""
        in_doubt, away, pause_s = False, self._away, 0.0
        while True:
            try:
                write(in_doubt=in_doubt)
            except ConnectionLost as error:
                now_s = time.monotonic()
                # Who comes while it is away does not wait for it anew, one after another; but who
                # may have been committed gets the whole time to find out.
                if away is None or (error.in_doubt and not in_doubt):
                    away = now_s
                self._away = away
                in_doubt = in_doubt or error.in_doubt
                if now_s - away >= self._retry_s:
                    self._availability.record_failure("commit", str(error))
                    error.in_doubt = in_doubt
                    return error
                time.sleep(pause_s)
                pause_s = min(2 * pause_s + FIRST_PAUSE_S, LONGEST_PAUSE_S)
            except CommitError as error:
                self._away = None
                if not isinstance(error, CommitRejected):
                    self._availability.record_failure("commit", str(error))
                    error.in_doubt = in_doubt
                return error
            else:
                self._away = None
                self._availability.record_success("commit")
                return None


def _outcome(failure: CommitError | None) -> RecordOutcome:
    if failure is None:
        return "committed"
    return "in_doubt" if failure.in_doubt else "refused"


class Write(Protocol):
    """Something to write to the database; `in_doubt` if an earlier try may be committed."""

    def __call__(self, *, in_doubt: bool) -> None:
        """Raise `CommitError` if it is not written."""
        ...


def _commits(engine: Engine, *, process: str) -> LedgerWriter:
    if engine.dialect.name == "sqlite":
        return SqliteLedgerWriter(engine, process=process)
    # Its driver is slow to import.
    from embedway.ledger.postgres_writer import PostgresLedgerWriter  # noqa: PLC0415

    return PostgresLedgerWriter(engine, process=process)
