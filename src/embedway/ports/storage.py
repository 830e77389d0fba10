"""What policies need of the database."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from embedway.core.budgets import Budget
from embedway.core.keys import Held
from embedway.core.money import NanoUsd
from embedway.core.projects import EndUser, Project
from embedway.core.refusals import Refusal
from embedway.core.spaces import Proof, Reference, ReferenceKey
from embedway.core.subjects import Subject
from embedway.core.usage import UsageLine


class Directory(Protocol):
    """Who there is. Each raises `StorageUnavailable` if the database cannot be read."""

    async def by_digest(self, digest: bytes) -> Held | None:
        """The key that the secret of this digest opens, in whatever state it is."""
        ...

    async def known(self, digests: Collection[bytes]) -> Collection[bytes]:
        """Those of `digests` that are of a secret of a key, new or old."""
        ...

    async def by_id(self, key_id: str) -> Held | None:
        """The key with this id, likewise."""
        ...

    async def project(self, project_id: str) -> tuple[Project, bool] | None:
        """The project, archived or not, and whether any end user of it has a record."""
        ...

    async def end_user(self, project_id: str, id: str) -> EndUser | None:
        """The record of an end user, if there is one."""
        ...


RecordOutcome = Literal["committed", "refused", "in_doubt"]
"""The fate of the records of one request: they would survive `kill -9`; they are not in the ledger
and never will be; or they may be there, or may yet be. Follow up the last with `Ledger.replace`."""


class Ledger(Protocol):
    """The usage ledger."""

    def append(
        self, records: Sequence[UsageLine], *, holders: Collection[Subject] = ()
    ) -> asyncio.Future[RecordOutcome]:
        """Hand the records of one request to the writer; the future tells their fate.

        Cancelling the future takes nothing back: the records are written all the same.

        Args:
            records: All of them, or none, are committed, with the roll-ups that they add to.
            holders: The subjects whose budgets hold money for this request. In the same commit
                each of their holds gets less by what the records charge, which is spent from then
                on.

        Raises:
            Overloaded: Too much waits to be written.
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
            lines: As they were given to `append`.
            by: Lines of the same request, with another status.
            held: The holders that were given to `append`.
        """
        ...


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of asking to hold a part of budgets."""

    granted_nano_usd: NanoUsd
    """What this process now holds beside what is in use; 0 if not even what is needed is left."""
    spent: Mapping[Budget, NanoUsd]
    """What the ledger has, of each budget in its window."""
    held_nano_usd: NanoUsd
    """By all processes, but for what is granted: for requests under way or to come."""
    at_ms: int
    """The time whose windows these are, and those that come after."""
    expires_ms: int
    """Until when it is held, unless it is renewed."""
    lapsed: bool
    """Whether what this process held before was not held any more."""


class Holds(Protocol):
    """Parts of budgets that processes hold, so that all together never spend more than there is.

    A hold is of one process and subject. It counts as spent for every other process. The ledger
    lessens it by what is charged. Amounts are in nano-dollars, times in milliseconds since
    1970-01-01 UTC. Each raises `StorageUnavailable` if the database cannot be reached; `lease` and
    `give_back` raise `CommitInDoubt` if they may have changed something nonetheless.
    """

    async def lease(
        self,
        subject: Subject,
        budgets: Sequence[Budget],
        *,
        at_ms: int,
        needed: NanoUsd,
        wanted: NanoUsd,
        unused: NanoUsd | None,
    ) -> Lease:
        """Gives back what is not in use, and holds at least `needed` of all `budgets`, or nothing.

        Args:
            subject: Whose budgets.
            budgets: As they are now.
            at_ms: When the request had been read that it is for.
            needed: For this request.
            wanted: For requests to come; a part of it is granted, the less the less is left.
            unused: What of the hold is not in use; None for all of it, whatever it is.
        """
        ...

    async def give_back(self, unused: Mapping[Subject, NanoUsd]) -> Mapping[Subject, int]:
        """Holds so much less, and renews what is left; says until when, but for what had lapsed."""
        ...

    async def leave(self, subjects: Collection[Subject]) -> None:
        """Holds nothing of these any more."""
        ...

    async def spent(
        self, subject: Subject, budgets: Sequence[Budget], *, at_ms: int
    ) -> Mapping[Budget, NanoUsd]:
        """What the ledger has, of each budget in the window that `at_ms` is in."""
        ...

    async def alerted(self, subject: Subject, budget: Budget, *, percent: int, at_ms: int) -> bool:
        """Notes that a budget reached `percent` in the window that `at_ms` is in.

        False if that was noted before.
        """
        ...


class RefusalStore(Protocol):
    """The counts of refused requests."""

    async def add(self, counts: Mapping[Refusal, int]) -> None:
        """Add to the counts that are stored: all of these, or none.

        Raises:
            CommitInDoubt: They may be added already.
            StorageUnavailable: They are not added.
        """
        ...


class SpaceStore(Protocol):
    """The references of vector spaces, and what probes told."""

    async def load(
        self, *, known: Collection[ReferenceKey] = ()
    ) -> tuple[Sequence[Reference], Sequence[Proof]]:
        """All references but those that are `known`, which never change, and all proofs.

        Raises:
            StorageUnavailable: The database cannot be read; likewise below, or written.
        """
        ...

    async def keep_reference(self, reference: Reference) -> Reference:
        """The reference of that space that is kept: an earlier one of the same texts, or this."""
        ...

    async def keep_proof(self, proof: Proof, *, release: bool = False) -> Proof:
        """The proof that is kept of that deployment and input type: this one.

        But one that it drifted is kept instead, until it is to be `release`d.
        """
        ...
