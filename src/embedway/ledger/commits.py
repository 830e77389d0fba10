"""One commit of the ledger: lines of many requests, what they are summed into, what was held.

Owns what a commit is made of and the names of its failures. `sqlite_commits` and
`postgres_commits` know how it is written; neither knows who waits for it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger import rollups
from embedway.ledger.rollups import Key, Rollup, RollupSums
from embedway.storage.tables import SUMS


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    """What one request leaves in the ledger."""

    lines: Sequence[UsageRecord]
    held: Collection[Subject] = ()
    replaces: Sequence[UsageRecord] = ()
    """Lines of the same request whose commit is in doubt, and that `lines` take the place of."""


class CommitGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed at once."""

    lines: Sequence[UsageRecord]
    sums: Sequence[Sequence[tuple[Key, RollupSums]]]
    """For each of `ROLLUPS`."""
    held: Sequence[tuple[str, int]]
    """Subjects, and by how much their holds get less; in order."""
    removed: str | None = None
    """The id of a request whose lines are deleted first."""


class CommitError(Exception):
    """A group is not committed, unless that is in doubt.

    Args:
        message: What the database said, with nothing that is users' data.
        in_doubt: Whether the group may be committed all the same.
    """

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


class ConnectionLost(CommitError):
    """The database is away, or told this transaction to try again."""


class CommitRejected(CommitError):
    """The database does not take what is in it."""


class LedgerWriter(Protocol):
    """How one kind of database is written to; for one thread."""

    def commit(self, group: CommitGroup) -> None:
        """Commits all of `group` or nothing.

        Raises:
            CommitError: Nothing of it is committed, unless that is in doubt.
        """
        ...

    def status(self, id: str) -> int | None:
        """The status of the committed request with this id; None if there is none.

        Raises:
            CommitError: It cannot be told.
        """
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...


def group_entries(charges: Sequence[LedgerEntry]) -> CommitGroup:
    """The charges as one commit."""
    lines = [line for each in charges for line in each.lines]
    held = Counter[str]()
    for each in charges:
        if each.held and (cost := rollups.total_cost(each.lines)):
            for subject in each.held:
                held[str(subject)] += cost
    return CommitGroup(lines=lines, sums=rollups.rollup_rows(lines), held=sorted(held.items()))


def correction(charge: LedgerEntry) -> CommitGroup:
    """The commit that puts a charge's lines in the place of the committed ones it replaces."""
    before = group_entries([LedgerEntry(charge.replaces, charge.held)])
    return CommitGroup(
        lines=charge.lines,
        sums=rollups.rollup_rows(charge.lines, removed=charge.replaces),
        held=[(subject, -amount) for subject, amount in before.held],
        removed=charge.lines[0].id,
    )


def column_names(columns: Sequence[str]) -> str:
    """Columns, as SQL has them."""
    return ", ".join(f'"{each}"' for each in columns)


def upsert_sql(rollup: Rollup, rows: str) -> str:
    """The statement that adds `rows` to a roll-up."""
    table = rollup.table.name
    sums = ", ".join(f'"{each}" = {table}."{each}" + excluded."{each}"' for each in SUMS)
    return (
        f"INSERT INTO {table} ({column_names([*rollup.by, *SUMS])}) {rows} "
        f"ON CONFLICT ({column_names(rollup.by)}) DO UPDATE SET {sums}"
    )


DECREMENT_HOLD = (
    "UPDATE holds SET amount_nano_usd = amount_nano_usd - {0} WHERE subject = {0} AND process = {0}"
)
"""With the driver's mark for a parameter: by how much, of whom, of which process."""

DELETE = 'DELETE FROM "usage" WHERE id = {0}'
STATUS = 'SELECT status FROM "usage" WHERE id = {0} AND line = 0'
