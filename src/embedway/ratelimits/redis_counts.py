"""What all processes counted together, in Redis.

Owns the connections, the keys and the one script. What is done without Redis is not known here.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from embedway.core.limit import SLOT_MS, SLOTS
from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.shared_counts import CountReply, CountRequest, SharedCountsUnavailable

TIMEOUT_S = 0.1
"""A Redis that takes longer counts as away."""
LATE_S = 0.02
"""More of it, for what arrived while this process was busy with something else."""
ALIVE_MS = 10_000
"""For which a process counts as one of the replicas after it was last heard of."""
MAX_CONNECTIONS = 16

PREFIX = "embedway:{limits}:"
"""Of all keys. The braces keep them in one slot of a cluster, as one script needs it."""
CLOCK, PROCESSES = f"{PREFIX}clock", f"{PREFIX}processes"

_SCRIPT = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")


class RedisCounts:
    """The count of `embedway.ratelimits.shared_counts.SharedCounts`, in Redis."""

    def __init__(self, url: str) -> None:
        """Takes where Redis is: `redis://`, `rediss://` or `unix://`. Connects when it is asked.

        Raises:
            ValueError: The URL is none of these.
        """
        self._process = secrets.token_hex(6)
        self._redis = Redis.from_pool(
            ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                url,
                max_connections=MAX_CONNECTIONS,
                # All that is waited for is waited for here, once.
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
            )
        )
        self._script = self._redis.register_script(_SCRIPT)
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._failures = 0

    async def count(self, asks: Sequence[CountRequest], *, epoch: str, now_ms: int) -> CountReply:
        """See `embedway.ratelimits.shared_counts.SharedCounts.count`."""
        keys = [CLOCK, PROCESSES]
        arguments: list[str | int] = [
            *(self._process, epoch, secrets.token_hex(8)),
            *(now_ms, ALIVE_MS, SLOTS),
        ]
        for ask in asks:
            limit = ask.meter.limit
            keys.append(_key(ask.meter))
            arguments += (SLOT_MS[limit.per], limit.amount, ask.amount)
            arguments += (len(ask.own) + len(ask.others), len(ask.changes))
            for slot, count in ask.own.items():
                arguments += (slot, self._process, *count)
            for slot, process, count in ask.others:
                arguments += (slot, process, *count)
            for slot, amount in ask.changes.items():
                arguments += (slot, amount)
        now_ms, known, replicas, counted, *totals = await self._in_turn(keys, arguments)
        return CountReply(
            now_ms=now_ms,
            epoch=known.decode(),
            replicas=replicas,
            counted=bool(counted),
            totals=totals,
        )

    async def _in_turn(self, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """What the script answers. How long others are before it does not count as Redis's time."""
        failures = self._failures
        async with self._turns:
            if failures != self._failures:
                raise SharedCountsUnavailable("it did not answer those who were before")
            try:
                return cast("list[Any]", await _in_time(self._script(keys, arguments)))
            except SharedCountsUnavailable:
                self._failures += 1
                raise

    async def aclose(self) -> None:
        """See `embedway.ratelimits.shared_counts.SharedCounts.aclose`."""
        with suppress(SharedCountsUnavailable):
            await _in_time(cast("Awaitable[Any]", self._redis.zrem(PROCESSES, self._process)))
        await self._redis.aclose(close_connection_pool=True)


def _key(meter: LimitKey) -> str:
    # A digest, for an end user's id is whatever its client wrote, as long as it liked.
    name = str(meter.subject).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, digest_size=16).hexdigest()
    return f"{PREFIX}{meter.limit.of}:{meter.limit.per}:{digest}"


async def _in_time(call: Awaitable[Any]) -> Any:
    """What `call` returns.

    Raises:
        SharedCountsUnavailable: It failed, or took too long.
    """
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait((task,), timeout=TIMEOUT_S)
        if not done:
            done, _ = await asyncio.wait((task,), timeout=LATE_S)
        if not done:
            raise SharedCountsUnavailable(f"no answer within {TIMEOUT_S:g} s")
        return task.result()
    except (RedisError, OSError) as error:
        # Its text may hold the address, but not the password.
        raise SharedCountsUnavailable(f"{type(error).__name__}: {error}") from error
    finally:
        task.cancel()
