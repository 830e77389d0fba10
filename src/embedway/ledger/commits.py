"""Defines what one commit of the ledger contains and how it can fail.

A commit has the records of many requests, what they add to the roll-ups, and what they take from
budget holds. `sqlite_writer` and `postgres_writer` write it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger import rollups
from embedway.ledger.rollups import Rollup, RollupKey, RollupSums
from embedway.storage.tables import SUMS


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    """What one request leaves in the ledger."""

    records: Sequence[UsageRecord]
    holders: Collection[Subject] = ()
    """The subjects whose budgets hold money for this request."""
    replaces: Sequence[UsageRecord] = ()
    """Records of the same request whose commit is in doubt, and that `records` replace."""


class CommitGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction writes."""

    records: Sequence[UsageRecord]
    rollup_rows: Sequence[Sequence[tuple[RollupKey, RollupSums]]]
    """The rows to add to each of `ROLLUPS`."""
    hold_decreases: Sequence[tuple[str, int]]
    """Subjects with the nano-USD to take from their holds, sorted by subject."""
    replaced_id: str | None = None
    """The id of a request whose committed records are deleted first."""


class CommitError(Exception):
    """A group was not committed, or may not have been.

    Args:
        message: What the database said, without user data.
        in_doubt: Whether the group may have been committed all the same.
    """

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


class ConnectionLost(CommitError):
    """The database cannot be reached, or asked to try the transaction again."""


class CommitRejected(CommitError):
    """The database does not accept a value in the group."""


class LedgerWriter(Protocol):
    """Writes groups to one kind of database, from one thread."""

    def commit(self, group: CommitGroup) -> None:
        """Commit all of `group` or nothing.

        Raises:
            CommitError: Nothing is committed, unless the error says that this is in doubt.
        """
        ...

    def status(self, id: str) -> int | None:
        """Return the HTTP status of the committed request with this id, or None.

        Raises:
            CommitError: The database cannot say.
        """
        ...

    def close(self) -> None:
        """Return the connection."""
        ...


def group_entries(entries: Sequence[LedgerEntry]) -> CommitGroup:
    """Return a commit of these entries."""
    records = [record for each in entries for record in each.records]
    decreases = Counter[str]()
    for each in entries:
        if each.holders and (cost := rollups.total_cost(each.records)):
            for subject in each.holders:
                decreases[str(subject)] += cost
    return CommitGroup(
        records=records,
        rollup_rows=rollups.rollup_rows(records),
        hold_decreases=sorted(decreases.items()),
    )


def correction(entry: LedgerEntry) -> CommitGroup:
    """Return a commit that replaces records that are already committed."""
    before = group_entries([LedgerEntry(entry.replaces, entry.holders)])
    return CommitGroup(
        records=entry.records,
        rollup_rows=rollups.rollup_rows(entry.records, deleted_records=entry.replaces),
        hold_decreases=[(subject, -amount) for subject, amount in before.hold_decreases],
        replaced_id=entry.records[0].id,
    )


def column_names(columns: Sequence[str]) -> str:
    """Return the columns as a quoted SQL list."""
    return ", ".join(f'"{each}"' for each in columns)


def upsert_sql(rollup: Rollup, rows: str) -> str:
    """Return the SQL statement that adds `rows` to a roll-up."""
    table = rollup.table.name
    sums = ", ".join(f'"{each}" = {table}."{each}" + excluded."{each}"' for each in SUMS)
    return (
        f"INSERT INTO {table} ({column_names([*rollup.key_columns, *SUMS])}) {rows} "
        f"ON CONFLICT ({column_names(rollup.key_columns)}) DO UPDATE SET {sums}"
    )


# Each takes the driver's parameter mark.
DECREMENT_HOLD = (
    "UPDATE holds SET amount_nano_usd = amount_nano_usd - {0} WHERE subject = {0} AND process = {0}"
)
DELETE_RECORDS = 'DELETE FROM "usage" WHERE id = {0}'
SELECT_STATUS = 'SELECT status FROM "usage" WHERE id = {0} AND line = 0'
