"""Holds what everything simulated shares: the clock, the chances, the trace, and what is broken."""

import random
from random import Random

from chaos.simulation.process import PROCESS, Process, running_loop

DAY_MS = 86_400_000
EPOCH_MS = 1_795_910_400_000
"""Midnight, UTC, on the day on which simulations begin."""


class Partition:
    """Which processes cannot reach a server, and whether nobody can."""

    def __init__(self) -> None:
        self.is_away = False
        self.cut_off: set[str] = set()
        """The names of machines that cannot reach it."""

    def blocks(self, process: Process | None) -> bool:
        """Return whether this process cannot reach the server now."""
        return self.is_away or (process is not None and process.name.split("#")[0] in self.cut_off)


class World:
    """One seed's world. Every chance in it comes from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = running_loop()
        self._start_s = self.loop.time()
        self.trace: list[tuple[float, str]] = []
        self.start_ms = EPOCH_MS + self.chance("day").randrange(DAY_MS)
        """The wall clock's time at the start, in ms since the epoch."""
        self.faults_seen: set[str] = set()
        """The kinds of faults that happened, which explain what clients see."""
        self.faults = 0

    def chance(self, name: str) -> Random:
        """Return the random numbers of one part, which no other part can disturb."""
        return Random(f"{self.seed} {name}")

    @property
    def now_s(self) -> float:
        """The seconds since the start."""
        return self.loop.time() - self._start_s

    def now_ms(self) -> int:
        """Return what a right wall clock shows, in ms since the epoch."""
        return self.start_ms + int(self.now_s * 1000)

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        process = PROCESS.get()
        where = f"{process.name}: " if process is not None else ""
        self.trace.append((self.now_s, where + text))

    def fault(self, kind: str, text: str = "") -> None:
        """Record that a fault happened."""
        self.faults_seen.add(kind)
        if text:
            self.faults += 1
            self.note(f"FAULT {text}")

    def lines(self) -> list[str]:
        """Return the trace, a line for each event."""
        return [f"{at_s:9.4f}  {text}" for at_s, text in self.trace]


def seed_everything(seed: int) -> None:
    """Seed the global generator, which draws the gateway's jitter."""
    random.seed(f"{seed} gateway")
