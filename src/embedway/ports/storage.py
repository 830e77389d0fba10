"""What policies need of the database."""

from typing import Protocol

from embedway.core.keys import Key
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
