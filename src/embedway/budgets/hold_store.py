"""Stores the budget holds of all processes, which together never exceed a budget.

A hold belongs to one process and one subject, and counts as spent for every other process. The
ledger reduces it by what is charged. A hold that its process did not renew in time counts until
another process deletes it, which needs the subject's lock. A process that still finds its own row
has therefore held it all along, whatever the clocks say.
Amounts are nano-USD, times are ms since the epoch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from embedway.budgets.status import BudgetStatus, ClosedDays, ClosedDayTotals, read_status
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import locked_transaction
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import budget_alerts, holds

HOLD_MS = 60_000
"""How long a hold counts unless renewed."""
GRANT_DIVISOR = 20
"""A lease grants at most one part in this many of what is left, beyond its minimum."""
DELETE_AFTER_MS = 3_600_000
"""How long after it expired a hold is deleted, if no lease has deleted it before."""

UNREADABLE = "Budgets cannot be checked right now. Try again."


class HoldLease(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a request to the database for more budget."""

    granted_nano_usd: NanoUsd
    """The amount added to this process's hold; 0 if less than the minimum was left."""
    spending: Mapping[Budget, NanoUsd]
    """What the ledger has for each budget in its window."""
    reserved_nano_usd: NanoUsd
    """The amount that all processes hold for present and future requests, without the grant."""
    at_ms: int
    """The time that decides the windows of `spending`."""
    expires_ms: int
    """When the hold expires unless renewed."""
    has_lapsed: bool
    """Whether the database had released this process's previous hold."""


class HoldStore:
    """The budget holds of one process, in the database.

    Methods raise `StorageUnavailable` if the database cannot be reached; `lease` and `renew` raise
    `CommitInDoubt` if they may have changed something nonetheless.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        process: str,
        now_ms: Callable[[], int],
        availability: DatabaseAvailability | None = None,
    ) -> None:
        """Open no connection yet. No other process may have, or ever have had, the same name."""
        self._engine = engine
        self._process = process
        self._is_own = holds.c.process == process
        self._now_ms = now_ms
        self._closed_days = ClosedDayTotals(engine)
        self._threads = QueryThreads(
            "holds", use="commit", availability=availability, unavailable=UNREADABLE
        )

    async def lease(
        self,
        subject: Subject,
        budgets: Sequence[Budget],
        *,
        at_ms: int,
        minimum: NanoUsd,
        extra: NanoUsd,
        unused: NanoUsd | None,
    ) -> HoldLease:
        """Return what is unused, and hold at least `minimum` more of all `budgets`, or nothing.

        Args:
            subject: The subject of the budgets.
            budgets: All its budgets, as they are now.
            at_ms: When the request that needs the minimum was read.
            minimum: The cost of this request.
            extra: The expected cost of further requests, granted only while plenty is left.
            unused: The part of the present hold that is not in use; None for all of it.
        """

        def lease(about_to_commit: Callable[[], None]) -> HoldLease:
            at = min(at_ms, self._now_ms())
            closed = self._closed_days.read(subject, budgets, at_ms=at, now_ms=self._now_ms())
            with locked_transaction(self._engine, lock=f"budgets of {subject}") as connection:
                now_ms = self._now_ms()
                status = self._read_status(connection, subject, closed, at_ms=at, now_ms=now_ms)
                before, is_new = status.own_hold or 0, status.own_hold is None
                kept = 0 if unused is None or is_new else before - unused
                left = status.remaining(max(0, kept))
                granted = 0
                if minimum <= left:
                    granted = minimum + max(0, min(extra, (left - minimum) // GRANT_DIVISOR))
                change = kept + granted - before
                self._write_hold(connection, subject, change, is_new=is_new, now_ms=now_ms)
                about_to_commit()
                return HoldLease(
                    granted_nano_usd=granted,
                    spending=status.spending,
                    reserved_nano_usd=status.other_holds + kept,
                    at_ms=at,
                    expires_ms=now_ms + HOLD_MS,
                    has_lapsed=is_new,
                )

        return await self._threads.write(lease)

    async def renew(self, unused: Mapping[Subject, NanoUsd]) -> Mapping[Subject, int]:
        """Reduce holds by what is unused and renew the rest.

        Returns:
            When each hold expires. Holds that the database has released are missing.
        """
        changes = {str(subject): amount for subject, amount in unused.items()}

        def renew(about_to_commit: Callable[[], None]) -> Mapping[Subject, int]:
            with self._engine.begin() as connection:
                expires_ms = self._now_ms() + HOLD_MS
                connection.execute(
                    update(holds)
                    .where(self._is_own, holds.c.subject == bindparam("of_subject"))
                    .values(
                        amount_nano_usd=holds.c.amount_nano_usd - bindparam("decrease"),
                        expires_ms=expires_ms,
                    ),
                    # Sorted, as in the ledger, to avoid a deadlock with it.
                    [
                        {"of_subject": subject, "decrease": amount}
                        for subject, amount in sorted(changes.items())
                    ],
                )
                renewed = set(connection.scalars(select(holds.c.subject).where(self._is_own)))
                about_to_commit()
            return {subject: expires_ms for subject in unused if str(subject) in renewed}

        return await self._threads.write(renew)

    async def release(self, subjects: Collection[Subject]) -> None:
        """Delete the holds of these subjects, and holds that other processes left long ago."""

        def release() -> None:
            with self._engine.begin() as connection:
                connection.execute(
                    delete(holds).where(self._is_own, holds.c.subject == bindparam("of_subject")),
                    [{"of_subject": subject} for subject in sorted(map(str, subjects))],
                )
            with self._engine.begin() as connection:
                oldest_ms = self._now_ms() - DELETE_AFTER_MS
                connection.execute(delete(holds).where(holds.c.expires_ms < oldest_ms))

        await self._threads.run(release)

    async def read_spending(
        self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
    ) -> Mapping[Budget, NanoUsd]:
        """Return what the ledger has for each budget in the window that contains `at_ms`."""

        def read() -> Mapping[Budget, NanoUsd]:
            closed = self._closed_days.read(subject, budgets, at_ms=at_ms, now_ms=self._now_ms())
            with self._engine.connect() as connection:
                return read_status(
                    connection, subject, closed, process=self._process, at_ms=at_ms
                ).spending

        return await self._threads.run(read)

    async def record_alert(
        self,
        subject: Subject,
        budget: Budget,
        *,
        percent: int,
        at_ms: int,
        also: Callable[[Connection], None] = lambda _connection: None,
    ) -> bool:
        """Record that a budget reached `percent` in the window that contains `at_ms`.

        `also` writes more in the same transaction, if that was not recorded before.

        Returns:
            False if that was recorded before.
        """
        row = {
            "subject": str(subject),
            "per": budget.per,
            "window_ms": budget_window(budget.per, at_ms)[0],
            "amount_nano_usd": budget.amount_nano_usd,
            "percent": percent,
            "at_ms": self._now_ms(),
        }

        def record() -> bool:
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(budget_alerts).values(row))
                    also(connection)
            except IntegrityError:
                return False
            return True

        return await self._threads.run(record)

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._threads.close()

    def _read_status(
        self,
        connection: Connection,
        subject: Subject,
        closed: ClosedDays,
        *,
        at_ms: int,
        now_ms: int,
    ) -> BudgetStatus:
        """Return the status of the budgets, after deleting expired holds of other processes."""
        status = read_status(connection, subject, closed, process=self._process, at_ms=at_ms)
        if status.next_expiry_ms is None or status.next_expiry_ms > now_ms:
            return status
        connection.execute(
            delete(holds).where(
                holds.c.subject == str(subject), ~self._is_own, holds.c.expires_ms <= now_ms
            )
        )
        # Read again, because another process may have just renewed one of them.
        return read_status(connection, subject, closed, process=self._process, at_ms=at_ms)

    def _write_hold(
        self,
        connection: Connection,
        subject: Subject,
        change: NanoUsd,
        *,
        is_new: bool,
        now_ms: int,
    ) -> None:
        expires_ms = now_ms + HOLD_MS
        if not is_new:
            # A difference, not a value, because the ledger changes it too.
            connection.execute(
                update(holds)
                .where(holds.c.subject == str(subject), self._is_own)
                .values(amount_nano_usd=holds.c.amount_nano_usd + change, expires_ms=expires_ms)
            )
        elif change:
            connection.execute(
                insert(holds).values(
                    subject=str(subject),
                    process=self._process,
                    amount_nano_usd=change,
                    expires_ms=expires_ms,
                )
            )
