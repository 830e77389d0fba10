"""Keeps the count that replicas share in Redis.

Owns the connections, the keys and the script. `SharedRateLimiter` decides what happens without
Redis.
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
from embedway.ratelimits.limiter import LimitKey
from embedway.ratelimits.shared_counts import CountReply, CountRequest, SharedCountsUnavailable

TIMEOUT_S = 0.1
"""Give up on a Redis that takes longer than this."""
LATE_S = 0.02
"""Extra time for a reply that arrived while this process was busy with something else."""
ALIVE_MS = 10_000
"""A process counts as a replica for this long after its last report."""
MAX_CONNECTIONS = 16

PREFIX = "embedway:{limits}:"
"""Prefix of all keys. The braces keep them in one hash slot of a cluster, as a script requires."""
CLOCK, PROCESSES = f"{PREFIX}clock", f"{PREFIX}processes"

_SCRIPT = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")


class RedisCounts:
    """A `SharedCounts` in Redis."""

    def __init__(self, url: str) -> None:
        """Connect on first use to a `redis://`, `rediss://` or `unix://` URL.

        Raises:
            ValueError: The URL has another scheme.
        """
        self._process = secrets.token_hex(6)
        self._redis = Redis.from_pool(
            ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                url,
                max_connections=MAX_CONNECTIONS,
                # `_in_time` bounds the whole exchange.
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
            )
        )
        self._script = self._redis.register_script(_SCRIPT)
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._failures = 0

    async def count(
        self, requests: Sequence[CountRequest], *, epoch: str, now_ms: int
    ) -> CountReply:
        """Report and count; `SharedCounts.count` explains the arguments."""
        keys = [CLOCK, PROCESSES]
        arguments: list[str | int] = [
            *(self._process, epoch, secrets.token_hex(8)),
            *(now_ms, ALIVE_MS, SLOTS),
        ]
        for request in requests:
            limit, own, others = request.limit_key.limit, request.own_counts, request.other_counts
            keys.append(_key(request.limit_key))
            arguments += (SLOT_MS[limit.per], limit.amount, request.amount)
            arguments += (len(own) + len(others), len(request.corrections))
            for slot, count in own.items():
                arguments += (slot, self._process, *count)
            for slot, process, count in others:
                arguments += (slot, process, *count)
            for slot, amount in request.corrections.items():
                arguments += (slot, amount)
        now_ms, current_epoch, replicas, is_counted, *totals = await self._run(keys, arguments)
        return CountReply(
            now_ms=now_ms,
            epoch=current_epoch.decode(),
            replicas=replicas,
            is_counted=bool(is_counted),
            totals=totals,
        )

    async def _run(self, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """Run the script. Waiting for a free connection does not count towards the timeout."""
        failures = self._failures
        async with self._connections:
            if failures != self._failures:
                raise SharedCountsUnavailable("an earlier call was not answered")
            try:
                return cast("list[Any]", await _in_time(self._script(keys, arguments)))
            except SharedCountsUnavailable:
                self._failures += 1
                raise

    async def aclose(self) -> None:
        """Sign off this process and close the connections."""
        with suppress(SharedCountsUnavailable):
            await _in_time(cast("Awaitable[Any]", self._redis.zrem(PROCESSES, self._process)))
        await self._redis.aclose(close_connection_pool=True)


def _key(limit_key: LimitKey) -> str:
    # A digest, because a client may choose any id for its end users, however long.
    name = str(limit_key.subject).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, digest_size=16).hexdigest()
    return f"{PREFIX}{limit_key.limit.of}:{limit_key.limit.per}:{digest}"


async def _in_time(call: Awaitable[Any]) -> Any:
    """Return the result of `call`.

    Raises:
        SharedCountsUnavailable: It failed or took too long.
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
        # The message may hold the address but not the password.
        raise SharedCountsUnavailable(f"{type(error).__name__}: {error}") from error
    finally:
        task.cancel()
