"""What policies need of the database."""

from collections.abc import Collection, Sequence
from typing import Protocol

from embedway.core.projects import EndUser
from embedway.core.subjects import Subject
from embedway.core.usage import UsageLine


class Directory(Protocol):
    """The records of end users."""

    async def end_user(self, project_id: str, id: str) -> EndUser | None:
        """Return the record of an end user, if there is one."""
        ...


class Ledger(Protocol):
    """The usage ledger."""

    async def record(self, lines: Sequence[UsageLine], *, held: Collection[Subject] = ()) -> None:
        """Returns once the lines of one request are committed and would survive `kill -9`.

        Args:
            lines: All of them, or none, are committed, with the roll-ups that they add to.
            held: Whose holds were for this request; in the same commit each is less by what the
                lines charge, which is spent from then on.

        Raises:
            CommitInDoubt: They may be committed, or may yet be. Follow up with `replace`.
            StorageUnavailable: They are not committed, and will not be.
        """
        ...

    async def replace(
        self,
        lines: Sequence[UsageLine],
        *,
        by: Sequence[UsageLine],
        held: Collection[Subject] = (),
    ) -> None:
        """Put lines that charge nothing in the place of ones whose commit is in doubt.

        Returns once that is committed, however long the database is away: from then on it is
        certain that `lines` are not in the ledger and never will be.

        Args:
            lines: As they were given to `record`.
            by: Lines of the same request, with another status.
            held: As it was given to `record`.
        """
        ...
