"""What one process knows about a limit's use: its own counts and the last shared total."""

from collections.abc import Iterator

from embedway.core.limit import LimitPeriod
from embedway.ratelimits.shared_counts import Count
from embedway.ratelimits.window import SlidingWindow


class LocalCounter(SlidingWindow):
    """What this process counted against a limit, and the last total of all processes."""

    __slots__ = ("outage", "per", "refused", "share", "total_counts", "total_ms")

    def __init__(self, per: LimitPeriod) -> None:
        super().__init__(per)
        self.per: LimitPeriod = per
        self.total_counts = b""
        """The last shared counts, in the format of `CountReply.totals`."""
        self.total_ms = 0
        """When `total_counts` was read, in ms on the shared clock."""
        self.refused: SlidingWindow | None = None
        """The window of `total_counts`, if a request was refused because of it."""
        self.share: SlidingWindow | None = None
        """What counts against this process's share of the limit."""
        self.outage = 0
        """The number of the outage that `share` was started in."""

    def record_total(
        self, total: bytes, now_ms: int, *, refused: SlidingWindow | None = None
    ) -> None:
        """Store the shared counts, unless newer ones are known."""
        if now_ms >= self.total_ms:
            self.total_counts, self.total_ms, self.refused = total, now_ms, refused

    def own_counts(self) -> dict[int, Count]:
        """Return what this process counted, by slot."""
        return {slot: (count, self.last_used_ms[slot]) for slot, count in self.counts.items()}

    def other_counts(self) -> list[tuple[int, str, Count]]:
        """Return the known counts of all processes; see `CountRequest.other_counts`."""
        return list(_parse(self.total_counts))

    def start_share(self, replicas: int) -> SlidingWindow:
        """Start counting against this process's share of the limit.

        The share starts with what this process used, or with an equal part of what all processes
        used if that is more. The shares of all processes together then have no more room than the
        limit has left.
        """
        shared, share = window_of(self.per, self.total_counts), SlidingWindow(self.per)
        own = total = before = 0
        used: dict[int, int] = {}
        # From the newest slot back, so that the rest stays right whenever older slots expire.
        for slot in sorted(self.counts.keys() | shared.counts.keys(), reverse=True):
            own += self.counts.get(slot, 0)
            total += shared.counts.get(slot, 0)
            most = max(own, -(-total // replicas))
            used[slot], before = most - before, most
        for slot in reversed(used):
            last_used_ms = max(self.last_used_ms.get(slot, 0), shared.last_used_ms.get(slot, 0))
            share.put(slot, used[slot], last_used_ms)
        self.share = share
        return share

    def restart(self, now_ms: int) -> None:
        """Count everything as used now, because it was counted on another clock."""
        total = self.total
        self.counts, self.last_used_ms, self.total, self.newest_slot = {}, {}, 0, 0
        self.share = None
        self.add(now_ms, total)


def window_of(per: LimitPeriod, total: bytes) -> SlidingWindow:
    """Return the window of one of `CountReply.totals`."""
    window = SlidingWindow(per)
    for slot, _, (count, last_ms) in sorted(_parse(total)):
        window.put(slot, count, last_ms)
    return window


def _parse(total: bytes) -> Iterator[tuple[int, str, Count]]:
    for each in total.decode().split(",") if total else ():
        field, _, count = each.partition("=")
        slot, _, process = field.partition(":")
        amount, _, last_ms = count.partition("@")
        yield int(slot), process, (int(amount), int(last_ms))
