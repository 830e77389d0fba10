"""Limits that processes count in shared memory: exact together, also when one is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from embedway.core.limit import Limit
from embedway.core.subject import Subject
from embedway.ratelimits.limiter import LimitKey
from embedway.ratelimits.shared_windows import SharedWindows, create_memory

AMOUNT = 3000
TAKE = f"""
import asyncio, sys
from embedway.core.errors import RateLimitExceeded
from embedway.core.limit import Limit
from embedway.core.subject import Subject
from embedway.ratelimits.limiter import LimitKey
from embedway.ratelimits.workers import WorkersRateLimiter

limiter = WorkersRateLimiter(int(sys.argv[1]))
kinds = ("key", "project", "end user")
keys = [
    LimitKey(
        subject=Subject(kind=kind, id=kind, project_id="p"),
        limit=Limit(of="tokens", amount={AMOUNT} * (1 + kinds.index(kind)), per="day"),
    )
    for kind in kinds
]
user = 0
while True:
    user += 1
    other = LimitKey(
        subject=Subject(kind="end user", id=sys.argv[2] + str(user % 50), project_id="q"),
        limit=Limit(of="requests", amount=10**6, per="second"),
    )
    try:
        reserved = asyncio.run(limiter.reserve([*keys, other], tokens=3))
    except RateLimitExceeded:
        print("refused", flush=True)
        break
    # It answers before it gives back, so what is printed may be less than what is counted.
    print(3, flush=True)
    limiter.settle(reserved, tokens=2)
    print(-1, flush=True)
"""


def take(memory: int, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(memory), name],
        pass_fds=[memory],
        stdout=subprocess.PIPE,
        text=True,
    )


def counted(memory: int, kinds: Sequence[str] = ("key", "project", "end user")) -> list[int]:
    """Return what is counted for each kind of subject."""
    windows = SharedWindows(memory, now_ms=lambda: time.monotonic_ns() // 1_000_000)
    totals = []
    with windows.locked():
        for kind in kinds:
            subject = Subject(kind=kind, id=kind, project_id="p")
            key = LimitKey(subject=subject, limit=Limit(of="tokens", amount=1, per="day"))
            window = windows.get(key)
            totals.append(window.total if window else 0)
    return totals


def test_exact_together():
    """Processes that take as fast as they can take exactly the limit, all in all."""
    memory = create_memory()
    processes = [take(memory, name) for name in "abc"]
    printed = [each.communicate(timeout=120)[0].split() for each in processes]
    os.close(memory)
    amounts = [list(map(int, lines[:-1])) for lines in printed]
    assert [lines[-1] for lines in printed] == ["refused"] * 3
    assert AMOUNT - 3 < sum(map(sum, amounts)) <= AMOUNT
    assert all(amounts)


def test_killed():
    """However often processes are killed, a count is whole, and never less than what was taken."""
    memory = create_memory()
    taken, kills = 0, 0
    draw = random.Random(1)
    running = [take(memory, name) for name in "ab"]
    while not all(counted(memory)):
        time.sleep(0.01)
    while min(counted(memory)) < AMOUNT - 3 and kills < 12:
        time.sleep(draw.random() * 0.02)
        victim = running.pop(0)
        victim.send_signal(signal.SIGKILL)
        printed = victim.communicate(timeout=60)[0].split()
        taken += sum(int(each) for each in printed if each != "refused")
        kills += 1
        totals = counted(memory)
        # One request counts against all of its limits or against none.
        assert len(set(totals)) == 1, totals
        running.append(take(memory, f"{kills}"))
    printed = [each.communicate(timeout=120)[0].split() for each in running]
    taken += sum(int(each) for lines in printed for each in lines if each != "refused")
    # A killed process may have taken 3 and not printed it, and may have given 1 back so.
    [total] = set(counted(memory))
    os.close(memory)
    assert kills > 3
    assert total <= AMOUNT
    assert taken - 3 * kills <= total <= taken + 3 * kills


@pytest.mark.parametrize("until", range(0, 40, 3))
def test_half_written(until: int):
    """What a killed process was writing is written to its end, or was not begun."""
    memory = create_memory()
    windows = SharedWindows(memory, now_ms=lambda: 10**9)
    key = LimitKey(
        subject=Subject(kind="key", id="k", project_id="p"),
        limit=Limit(of="requests", amount=5, per="minute"),
    )

    class Killed(Exception):
        pass

    class Dying:
        """Memory of a process that is killed after so many writes."""

        def __init__(self) -> None:
            self.left = until

        def __getitem__(self, at):
            return numbers[at]

        def __setitem__(self, at, value):
            if not self.left:
                raise Killed
            self.left -= 1
            numbers[at] = value

    numbers = windows._numbers
    windows._numbers = Dying()
    written = 0
    try:
        while written < 30:
            with windows.locked() as now_ms:
                record = windows.find(key) or windows.create(key, now_ms)
                window = windows.load(record, key)
                window.add(now_ms, 1)
                windows.save([(record, key, window)], now_ms)
                written += 1
    except Killed:
        pass
    windows._numbers = numbers
    with windows.locked():
        window = windows.get(key)
    os.close(memory)
    total = window.total if window else 0
    assert written <= total <= written + 1
