"""The usage ledger at rest: one writer that commits waiting lines in groups."""

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import Engine

from embedway.core.errors import StorageUnavailable
from embedway.core.grouping import GroupWorker
from embedway.core.subjects import Subject
from embedway.core.usage import UsageLine
from embedway.storage.commits import Charge, CommitError, Commits, Group, Lost, Refused, grouped
from embedway.storage.sqlite_commits import SqliteCommits
from embedway.storage.threads import WAIT_S

MAX_GROUP_ROWS = 1_000
MAX_WAITING_ROWS = 20_000
RETRY_S = 5.0
"""How long a database that went away is waited for."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5


class SqlLedger:
    """The usage ledger on a SQL database."""

    def __init__(self, engine: Engine, *, process: str = "", retry_s: float = RETRY_S) -> None:
        """Starts the writer.

        Args:
            engine: The database.
            process: Whose holds are made less by what is charged.
            retry_s: How long a database that went away is waited for.
        """
        self._commits = _commits(engine, process=process)
        self._retry_s = retry_s
        self._away: float | None = None
        """Since when the database is, in seconds; None while it is not."""
        # Lines that wait while one commit runs make the next group: the busier, the larger.
        self._writer = GroupWorker[Charge, CommitError | None](
            self._work,
            name="ledger",
            group_weight=MAX_GROUP_ROWS,
            max_waiting_weight=MAX_WAITING_ROWS,
            weigh=lambda charge: len(charge.lines),
        )

    async def record(self, lines: Sequence[UsageLine], *, held: Collection[Subject] = ()) -> None:
        """See `embedway.ports.storage.Ledger.record`."""
        if not lines:
            return
        try:
            async with asyncio.timeout(self._retry_s + WAIT_S):
                [failure] = await self._writer.submit((Charge(lines, held),))
        except TimeoutError as error:
            failure = error
        if failure is not None:
            # Each of the group gets an error of its own, with its own time to come back.
            raise StorageUnavailable("Usage cannot be recorded right now. Try again.") from failure

    @property
    def alive(self) -> bool:
        """Whether lines get committed."""
        return self._writer.alive

    @property
    def waiting(self) -> int:
        """Lines not yet taken by the writer."""
        return self._writer.waiting_weight

    def close(self) -> None:
        """Commits what waits and stops the writer."""
        self._writer.close()
        self._commits.close()

    def _work(
        self, charges: list[Charge]
    ) -> Iterator[tuple[Sequence[int], Sequence[CommitError | None]]]:
        yield range(len(charges)), self._committed(charges)

    def _committed(self, charges: list[Charge]) -> list[CommitError | None]:
        """Commits `charges`; says of each why it is not."""
        try:
            self._commit(grouped(charges))
        except Refused as error:
            if len(charges) == 1:
                return [error]
            # Only those are to fail that are at fault.
            half = len(charges) // 2
            return self._committed(charges[:half]) + self._committed(charges[half:])
        except CommitError as error:
            return [error] * len(charges)
        return [None] * len(charges)

    def _commit(self, group: Group) -> None:
        """Commits `group` once, however often the database goes away meanwhile."""
        in_doubt, away, pause_s = False, self._away, 0.0
        while True:
            try:
                if not (in_doubt and self._commits.has(group)):
                    self._commits.commit(group)
            except Lost as error:
                now_s = time.monotonic()
                # Who comes while it is away does not wait for it anew, one after another; but who
                # may have been committed gets the whole time to find out.
                if away is None or (error.in_doubt and not in_doubt):
                    away = now_s
                self._away = away
                in_doubt = in_doubt or error.in_doubt
                if now_s - away >= self._retry_s:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s + FIRST_PAUSE_S, LONGEST_PAUSE_S)
            except CommitError as error:
                self._away = None
                # A first try that was still under way is why the second is refused.
                if isinstance(error, Refused) and in_doubt and self._commits.has(group):
                    return
                raise
            else:
                self._away = None
                return


def _commits(engine: Engine, *, process: str) -> Commits:
    if engine.dialect.name == "sqlite":
        return SqliteCommits(engine, process=process)
    # Its driver is slow to import.
    from embedway.storage.postgres_commits import PostgresCommits  # noqa: PLC0415

    return PostgresCommits(engine, process=process)
