"""What policies need of the database."""

from collections.abc import Collection, Sequence
from typing import Protocol

from embedway.core.keys import Key
from embedway.core.spaces import Proof, Reference, ReferenceKey
from embedway.core.usage import UsageRow


class Keys(Protocol):
    """The key store."""

    async def find(self, digest: bytes) -> Key | None:
        """The key with this digest, in whatever state it is.

        Raises:
            StorageUnavailable: The database cannot be read.
        """
        ...


class Ledger(Protocol):
    """The usage ledger."""

    async def record(self, row: UsageRow) -> None:
        """Returns once `row` is committed and would survive `kill -9`.

        Raises:
            StorageUnavailable: It could not be committed.
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
