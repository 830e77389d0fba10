"""A simulated Redis that runs the gateway's own script, and the gateway's client of it."""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime
from redis.exceptions import ConnectionError as RedisConnectionError

from chaos.simulation.process import PROCESS
from chaos.simulation.upstream import REQUEST
from chaos.simulation.world import Partition, World
from embedway.ratelimits import redis_counts
from embedway.ratelimits.redis_counts import RedisCounts
from embedway.ratelimits.shared_counts import CountReply, CountRequest

_Call = Callable[..., Any]


class SimulatedRedis:
    """The server: the few commands that the script uses, and what is wrong with it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.network = Partition()
        self.is_slow = False
        self.set_back_ms = 0
        """How far its wall clock was set back, in ms."""
        self.lost_data_ms = 0
        """When it last lost its data, in ms since the epoch."""
        self.told: dict[str, int] = {}
        """How many gateways it told each process of last."""
        self.counted: set[Any] = set()
        """The requests that it counted and whose gateway knows that."""
        self._chance = world.chance("redis")
        self._hashes: dict[bytes, dict[bytes, bytes]] = {}
        self._scores: dict[bytes, dict[bytes, float]] = {}

    def heal(self) -> None:
        """End all faults."""
        self.network.is_away = self.is_slow = False
        self.network.cut_off.clear()

    def lose_data(self) -> None:
        """Start anew, as a Redis does that keeps nothing on disk."""
        self.lost_data_ms = self.world.now_ms()
        self._hashes.clear()
        self._scores.clear()

    def sign_off(self, process: bytes) -> None:
        """Forget a process that has stopped."""
        self._scores.get(redis_counts.PROCESSES.encode(), {}).pop(process, None)

    async def run(self, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """Run the script for a client, over a network.

        Raises:
            RedisConnectionError: The server cannot be reached.
        """
        chance = self._chance
        if self.network.blocks(PROCESS.get()):
            self.world.fault("redis")
            if chance.random() < 0.3:
                await asyncio.sleep(60)  # packets are dropped
            raise RedisConnectionError("refused")
        await asyncio.sleep(chance.uniform(0.0001, 0.001))
        if self.is_slow:
            self.world.fault("redis")
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        reply = self._run(keys, arguments)
        if self.network.blocks(PROCESS.get()):
            raise RedisConnectionError("the reply was lost")
        self.told[str(arguments[0])] = reply[2]
        return reply

    def _run(self, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        lua, script = _script()
        encoded = (str(each).encode() for each in arguments)
        reply = script(
            lua.table_from(key.encode() for key in keys), lua.table_from(encoded), self._call
        )
        return [math.trunc(each) if isinstance(each, float) else each for each in reply.values()]

    def _call(self, command: bytes, *arguments: Any) -> Any:  # noqa: C901  # a table of commands
        lua, _ = _script()
        key = arguments[0] if arguments else b""
        fields = self._hashes.get(key, {})
        match command:
            case b"TIME":
                now_ms = self.world.now_ms() - self.set_back_ms
                seconds, rest = divmod(now_ms, 1000)
                return lua.table(b"%d" % seconds, b"%d" % (rest * 1000))
            case b"HMGET":
                return lua.table(*(fields.get(each, False) for each in arguments[1:]))
            case b"HGET":
                return fields.get(arguments[1], False)
            case b"HGETALL":
                return lua.table(*(part for item in fields.items() for part in item))
            case b"HSET":
                values = iter(arguments[1:])
                stored = self._hashes.setdefault(key, {})
                stored.update(
                    (field, _text(value)) for field, value in zip(values, values, strict=True)
                )
            case b"HDEL":
                fields.pop(arguments[1], None)
            case b"ZADD":
                self._scores.setdefault(key, {})[arguments[2]] = float(arguments[1])
            case b"ZREMRANGEBYSCORE":
                last, scores = float(arguments[2]), self._scores[key]
                for each in [each for each, score in scores.items() if score <= last]:
                    del scores[each]
            case b"ZCARD":
                return len(self._scores[key])
            case b"PEXPIRE":
                pass  # a simulation is over before any key expires, and the script checks it too
            case _:
                raise NotImplementedError(command)
        return 1


class SimulatedCounts(RedisCounts):
    """The gateway's client of Redis, connected to the simulated one."""

    def __init__(self, redis: SimulatedRedis, process: str) -> None:
        super().__init__("redis://simulated")
        self._process = process
        self._server = redis
        self._script = redis.run

    async def count(
        self, requests: Sequence[CountRequest], *, epoch: str, now_ms: int
    ) -> CountReply:
        """Report and count, and note which request was counted."""
        reply = await super().count(requests, epoch=epoch, now_ms=now_ms)
        if reply.is_counted and any(each.amount for each in requests):
            self._server.counted.add(REQUEST.get())
        return reply

    async def aclose(self) -> None:
        """Sign off this process."""
        if not self._server.network.blocks(PROCESS.get()):
            self._server.sign_off(self._process.encode())


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value


@cache
def _script() -> tuple[Any, Any]:
    """Return Lua and the gateway's script, as a function of its keys, its arguments and Redis."""
    lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
    source = Path(redis_counts.__file__).with_suffix(".lua").read_bytes()
    function = b"return function(KEYS, ARGV, call) local redis = {call = call}\n%s\nend" % source
    return lua, lua.execute(function)
