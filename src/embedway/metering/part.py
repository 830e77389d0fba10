"""What one of several processes knows of a meter: what it counted itself, and what it heard."""

from collections.abc import Mapping

from embedway.core.limits import SLOT_MS, Meter
from embedway.metering.slots import Window


class Part(Window):
    """What this process counted of a meter, and what it last heard that all have counted."""

    __slots__ = ("absence", "heard", "heard_ms", "refused", "share")

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""
        self.heard_ms = 0
        self.refused: Window | None = None
        """What it heard, if that was the reason of a refusal."""
        self.share: Window | None = None
        """What counts against the share of this process."""
        self.absence = 0
        """Of the shared count, the how many-th that was for."""

    def hear(self, total: bytes, now_ms: int, *, refused: Window | None = None) -> None:
        """Notes what all processes counted, unless it heard of something later."""
        if now_ms >= self.heard_ms:
            self.heard, self.heard_ms, self.refused = total, now_ms, refused

    def others(self) -> list[tuple[int, str, int]]:
        """What it heard that each process counted, as `embedway.ports.limiter.Ask` has it."""
        heard = self.heard.decode().split(",") if self.heard else ()
        parts = (each.replace(":", "=").split("=") for each in heard)
        return [(int(slot), process, int(count)) for slot, process, count in parts]

    def begin_share(self, replicas: int) -> Window:
        """Begins to count against the share of this process in a limit.

        What counts from the start is what this process used, but no less than its share of what all
        used: so that all shares together have no more room than is left.
        """
        heard = parsed(self.heard)
        counts: dict[int, int] = {}
        own = total = before = 0
        # From the last slot on back: after any of them has left, the rest is right as well.
        for slot in sorted(self.counts.keys() | heard.keys(), reverse=True):
            own += self.counts.get(slot, 0)
            total += heard.get(slot, 0)
            used = max(own, -(-total // replicas))
            counts[slot], before = used - before, used
        self.share = Window(counts)
        return self.share

    def restart(self, meter: Meter, now_ms: int) -> None:
        """Counts all as of now: it was counted on another clock."""
        total, self.counts, self.total, self.newest = self.total, {}, 0, 0
        self.share = None
        self.add(now_ms // SLOT_MS[meter.limit.per], total)


def parsed(total: bytes) -> Mapping[int, int]:
    """What was counted, by slot, of how `embedway.ports.limiter.Told` has it."""
    counts: dict[int, int] = {}
    if total:
        for each in total.split(b","):
            field, _, count = each.partition(b"=")
            slot = int(field[: field.index(b":")])
            counts[slot] = counts.get(slot, 0) + int(count)
    return counts
