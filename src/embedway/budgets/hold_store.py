"""Stores what processes hold of budgets, so that all together never spend more than there is.

A hold belongs to one process and subject, and counts as spent for every other process. The ledger
lessens it by what is charged. A hold that its process did not renew in time counts until somebody
deletes it, which happens only under the lock of its subject. So a process that finds its own row
has held it all along, whatever the clocks say. Amounts are nano-USD, times are ms since the epoch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from embedway.budgets.closed_days import ClosedDayTotals
from embedway.budgets.status import BudgetStatus, ClosedDays, read_status
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import locked_transaction
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import budget_alerts, holds

HOLD_MS = 60_000
"""For how long a hold counts that is not renewed."""
SHARE = 20
"""One part in so many of what is left is granted at most beyond what is needed."""
FORGOTTEN_MS = 3_600_000
"""After which a hold that nobody came across is deleted."""

UNREADABLE = "Budgets cannot be checked right now. Try again."


class HoldLease(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of asking to hold a part of budgets."""

    granted_nano_usd: NanoUsd
    """What this process now holds beside what is in use; 0 if not even what is needed is left."""
    spent: Mapping[Budget, NanoUsd]
    """What the ledger has for each budget in its window."""
    held_nano_usd: NanoUsd
    """What all processes hold for requests under way or to come, without what is granted."""
    at_ms: int
    """The time whose windows these are, and those that come after."""
    expires_ms: int
    """When the hold expires unless renewed."""
    lapsed: bool
    """Whether the database had released what this process held before."""


class HoldStore:
    """The holds of one process.

    Methods raise `StorageUnavailable` if the database cannot be reached; `lease` and `give_back`
    raise `CommitInDoubt` if they may have changed something nonetheless.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        process: str,
        now_ms: Callable[[], int],
        availability: DatabaseAvailability | None = None,
    ) -> None:
        """Takes the name of this process, which no other has or had, and the time."""
        self._engine = engine
        self._process = process
        self._now_ms = now_ms
        self._past = ClosedDayTotals(engine)
        self._threads = QueryThreads(
            "holds", use="commit", availability=availability, unavailable=UNREADABLE
        )

    async def lease(
        self,
        subject: Subject,
        budgets: Sequence[Budget],
        *,
        at_ms: int,
        needed: NanoUsd,
        wanted: NanoUsd,
        unused: NanoUsd | None,
    ) -> HoldLease:
        """Give back what is not in use, and hold at least `needed` of all `budgets`, or nothing.

        Args:
            subject: Whose budgets.
            budgets: As they are now.
            at_ms: When the request that needs it had been read.
            needed: The cost of this request.
            wanted: The cost of requests to come. A part of it is granted, less as less is left.
            unused: What of the hold is not in use; None for all of it, whatever it is.
        """

        def lease(about_to_commit: Callable[[], None]) -> HoldLease:
            at = min(at_ms, self._now_ms())
            past = self._past.of(subject, budgets, at_ms=at, now_ms=self._now_ms())
            with locked_transaction(self._engine, lock=f"budgets of {subject}") as connection:
                now_ms = self._now_ms()
                found = self._standing(connection, subject, past, at_ms=at, now_ms=now_ms)
                before, anew = found.own or 0, found.own is None
                kept = 0 if unused is None or anew else before - unused
                left = found.left(max(0, kept))
                granted = 0
                if needed <= left:
                    granted = needed + max(0, min(wanted, (left - needed) // SHARE))
                change = kept + granted - before
                self._hold(connection, subject, change, anew=anew, now_ms=now_ms)
                about_to_commit()
                return HoldLease(
                    granted_nano_usd=granted,
                    spent=found.spent,
                    held_nano_usd=found.others + kept,
                    at_ms=at,
                    expires_ms=now_ms + HOLD_MS,
                    lapsed=anew,
                )

        return await self._threads.write(lease)

    async def renew(self, unused: Mapping[Subject, NanoUsd]) -> Mapping[Subject, int]:
        """Hold so much less and renew the rest; return when each expires that had not lapsed."""
        changes = {str(subject): amount for subject, amount in unused.items()}

        def give_back(about_to_commit: Callable[[], None]) -> Mapping[Subject, int]:
            with self._engine.begin() as connection:
                expires_ms = self._now_ms() + HOLD_MS
                connection.execute(
                    update(holds)
                    .where(holds.c.process == self._process, holds.c.subject == bindparam("whose"))
                    .values(
                        amount_nano_usd=holds.c.amount_nano_usd - bindparam("less"),
                        expires_ms=expires_ms,
                    ),
                    # In order, as the ledger does, so that neither waits for the other for good.
                    [{"whose": name, "less": less} for name, less in sorted(changes.items())],
                )
                own = select(holds.c.subject).where(holds.c.process == self._process)
                held = set(connection.scalars(own))
                about_to_commit()
            return {subject: expires_ms for subject in unused if str(subject) in held}

        return await self._threads.write(give_back)

    async def release(self, subjects: Collection[Subject]) -> None:
        """Hold nothing of these any more."""

        def leave() -> None:
            with self._engine.begin() as connection:
                connection.execute(
                    delete(holds).where(
                        holds.c.process == self._process, holds.c.subject == bindparam("whose")
                    ),
                    [{"whose": name} for name in sorted(map(str, subjects))],
                )
            with self._engine.begin() as connection:
                forgotten = self._now_ms() - FORGOTTEN_MS
                connection.execute(delete(holds).where(holds.c.expires_ms < forgotten))

        await self._threads.run(leave)

    async def read_spending(
        self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
    ) -> Mapping[Budget, NanoUsd]:
        """Return what the ledger has for each budget in the window that `at_ms` is in."""

        def spent() -> Mapping[Budget, NanoUsd]:
            past = self._past.of(subject, budgets, at_ms=at_ms, now_ms=self._now_ms())
            with self._engine.connect() as connection:
                found = read_status(connection, subject, past, process=self._process, at_ms=at_ms)
            return found.spent

        return await self._threads.run(spent)

    async def record_alert(
        self, subject: Subject, budget: Budget, *, percent: int, at_ms: int
    ) -> bool:
        """Note that a budget reached `percent` in the window of `at_ms`; False if noted before."""
        row = {
            "subject": str(subject),
            "per": budget.per,
            "window_ms": budget_window(budget.per, at_ms)[0],
            "amount_nano_usd": budget.amount_nano_usd,
            "percent": percent,
            "at_ms": self._now_ms(),
        }

        def note() -> bool:
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(budget_alerts).values(row))
            except IntegrityError:
                return False
            return True

        return await self._threads.run(note)

    def close(self) -> None:
        """Ends its threads, once what they do is done."""
        self._threads.close()

    def _standing(
        self,
        connection: Connection,
        subject: Subject,
        past: ClosedDays,
        *,
        at_ms: int,
        now_ms: int,
    ) -> BudgetStatus:
        """How they stand, after what expired was deleted."""
        found = read_status(connection, subject, past, process=self._process, at_ms=at_ms)
        if found.expires_ms is None or found.expires_ms > now_ms:
            return found
        connection.execute(
            delete(holds).where(
                holds.c.subject == str(subject),
                holds.c.process != self._process,
                holds.c.expires_ms <= now_ms,
            )
        )
        # Anew, for one of them may have been renewed just before.
        return read_status(connection, subject, past, process=self._process, at_ms=at_ms)

    def _hold(
        self,
        connection: Connection,
        subject: Subject,
        change: NanoUsd,
        *,
        anew: bool,
        now_ms: int,
    ) -> None:
        expires_ms = now_ms + HOLD_MS
        if not anew:
            # A change, for the ledger may change it too.
            connection.execute(
                update(holds)
                .where(holds.c.subject == str(subject), holds.c.process == self._process)
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
