"""Writes usage records and waits for their commit, as the pipeline does."""

from collections.abc import Collection, Sequence

from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.subject import Subject
from embedway.core.usage import UsageRecord
from embedway.ledger.ledger import Ledger


async def write(
    ledger: Ledger, records: Sequence[UsageRecord], *, held: Collection[Subject] = ()
) -> None:
    """Wait until the records are committed; otherwise raise what a client would receive."""
    outcome = await ledger.append(records, holders=held)
    if outcome != "committed":
        raise (CommitInDoubt if outcome == "in_doubt" else StorageUnavailable)(outcome)
