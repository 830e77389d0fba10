"""What one of several processes knows of a meter: what it counted itself, and what it heard."""

from collections.abc import Iterator

from embedway.core.limit import LimitPeriod
from embedway.ratelimits.shared_counts import Count
from embedway.ratelimits.window import SlidingWindow


class LocalCounter(SlidingWindow):
    """What this process counted of a meter, and what it last heard that all have counted."""

    __slots__ = ("absence", "heard", "heard_ms", "per", "refused", "share")

    def __init__(self, per: LimitPeriod) -> None:
        super().__init__(per)
        self.per: LimitPeriod = per
        self.heard = b""
        self.heard_ms = 0
        self.refused: SlidingWindow | None = None
        """What it heard, if that was the reason of a refusal."""
        self.share: SlidingWindow | None = None
        """What counts against the share of this process."""
        self.absence = 0
        """Of the shared count, the how many-th that was for."""

    def record_total(
        self, total: bytes, now_ms: int, *, refused: SlidingWindow | None = None
    ) -> None:
        """Notes what all processes counted, unless it heard of something later."""
        if now_ms >= self.heard_ms:
            self.heard, self.heard_ms, self.refused = total, now_ms, refused

    def own(self) -> dict[int, Count]:
        """What this process counted, by slot."""
        return {slot: (count, self.lasts[slot]) for slot, count in self.counts.items()}

    def other_counts(self) -> list[tuple[int, str, Count]]:
        """What each process counted, as far as this one heard; see `CountRequest`."""
        return list(_parsed(self.heard))

    def start_share(self, replicas: int) -> SlidingWindow:
        """Begins to count against the share of this process in a limit.

        What counts from the start is what this process used, but no less than its share of what all
        used: so that all shares together have no more room than is left.
        """
        heard, share = window_of(self.per, self.heard), SlidingWindow(self.per)
        own = total = before = 0
        used: dict[int, int] = {}
        # From the last slot on back: after any of them has left, the rest is right as well.
        for slot in sorted(self.counts.keys() | heard.counts.keys(), reverse=True):
            own += self.counts.get(slot, 0)
            total += heard.counts.get(slot, 0)
            most = max(own, -(-total // replicas))
            used[slot], before = most - before, most
        for slot in reversed(used):
            share.put(slot, used[slot], max(self.lasts.get(slot, 0), heard.lasts.get(slot, 0)))
        self.share = share
        return share

    def restart(self, now_ms: int) -> None:
        """Counts all as of now: it was counted on another clock."""
        total = self.total
        self.counts, self.lasts, self.total, self.newest = {}, {}, 0, 0
        self.share = None
        self.add(now_ms, total)


def window_of(per: LimitPeriod, total: bytes) -> SlidingWindow:
    """What all processes counted, of how `embedway.ratelimits.shared_counts.CountReply` has it."""
    window = SlidingWindow(per)
    for slot, _, (count, last_ms) in sorted(_parsed(total)):
        window.put(slot, count, last_ms)
    return window


def _parsed(total: bytes) -> Iterator[tuple[int, str, Count]]:
    for each in total.decode().split(",") if total else ():
        field, _, count = each.partition("=")
        slot, _, process = field.partition(":")
        amount, _, last_ms = count.partition("@")
        yield int(slot), process, (int(amount), int(last_ms))
