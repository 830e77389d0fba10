"""Starts what a scenario needs, and ends it with the scenario."""

import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from benchmarks.gateway import GatewayProcess
from benchmarks.load import free_port, wait_until_listening
from benchmarks.passthrough import running
from sqlalchemy import select
from tests.servers import Postgres, Redis, binary
from tests.servers import running as server_running

from chaos.processes.clients import wait_until
from chaos.processes.nginx import Nginx
from embedway.storage.tables import usage

SETTINGS = """\
auto = "openai:text-embedding-3-small"

[providers.openai]
base_url = "{base_url}"
api_key = "sk-upstream"
"""
Missing = pytest.skip.Exception
"""Raised where this machine or this user lacks what a scenario needs; the message says what."""


def skip(reason: str) -> None:
    """Skip the scenario."""
    raise Missing(reason)


class Servers:
    """A Postgres and a Redis that all scenarios share, started when the first one needs them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @cached_property
    def postgres(self) -> Postgres:
        """A Postgres, running."""
        return self._stack.enter_context(server_running(Postgres))

    @cached_property
    def redis(self) -> Redis:
        """A Redis, running."""
        return self._stack.enter_context(server_running(Redis))


@dataclass(frozen=True)
class Replicas:
    """Gateways that share one Postgres and one Redis."""

    gateways: Sequence[GatewayProcess]
    postgres: Postgres
    redis: Redis


class Stage:
    """What a scenario may start and use. Everything ends when the scenario does."""

    def __init__(
        self, servers: Servers, stack: ExitStack, *, is_short: bool, say: Callable[[str], None]
    ) -> None:
        """Start nothing yet.

        Args:
            servers: What scenarios share.
            stack: Ends what the scenario starts.
            is_short: Whether the scenario should show only that it works.
            say: Shows what the scenario is doing.
        """
        self.servers = servers
        self.is_short = is_short
        self.say = say
        self._stack = stack
        self.folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="embedway-chaos-"))
        )

    def enter(self, context):
        """Enter a context that ends with the scenario."""
        return self._stack.enter_context(context)

    def provider(self, delay_s: float = 0) -> str:
        """Start a provider that answers after `delay_s`; return its base URL."""
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.fixed_server", str(port), str(delay_s)]
        self.enter(running(command, port))
        return f"http://127.0.0.1:{port}/v1"

    def gateway(self, base_url: str, name: str = "gateway", **variables: object) -> GatewayProcess:
        """Prepare a gateway, not started yet, for the provider at `base_url`."""
        named = {f"EMBEDWAY_{key.upper()}": str(value) for key, value in variables.items()}
        gateway = GatewayProcess(self.folder / name, SETTINGS.format(base_url=base_url), **named)
        self._stack.callback(_end, gateway)
        return gateway

    def started(self, *gateways: GatewayProcess) -> None:
        """Start gateways together, and wait until all answer."""
        self.say("starting the gateway" if len(gateways) == 1 else "starting the replicas")
        for each in gateways:
            each.start()
        for each in gateways:
            each.wait_until_ready()

    def replicas(self, base_url: str, **variables: object) -> Replicas:
        """Start two gateways on a new database in the shared Postgres, and on the shared Redis."""
        self.say("starting Postgres and Redis")
        postgres, redis = self.servers.postgres, self.servers.redis
        redis.say(b"FLUSHALL\r\n")
        shared = {
            "database_url": postgres.url,
            "redis_url": redis.url,
            "pepper": secrets.token_hex(32),
        }
        gateways = [
            self.gateway(base_url, name, **shared, **variables) for name in ("one", "two")
        ]
        with gateways[0].open_store():
            pass  # makes the tables, so that both find them
        self.started(*gateways)
        return Replicas(gateways, postgres, redis)

    def nginx(self, gateways: Sequence[GatewayProcess]) -> str:
        """Start nginx in front of the gateways as docs/operations.md says; return its URL."""
        nginx = Nginx([each.port for each in gateways])
        self._stack.callback(nginx.remove)
        nginx.start()
        return f"http://127.0.0.1:{nginx.port}"

    def wait(self, seconds: float, what: str) -> None:
        """Let time pass while others work."""
        self.say(what)
        time.sleep(seconds)


def _end(gateway: GatewayProcess) -> None:
    if gateway.process and gateway.process.poll() is None:
        gateway.signal(signal.SIGCONT)
        gateway.stop()


def program(name: str) -> str:
    """Return the path of a program; without it, the scenario is skipped."""
    return binary(name)


def records(gateway: GatewayProcess) -> Counter[str]:
    """Return how many usage records each answer with 200 has, by the answer's id."""
    with gateway.open_store() as store, store.database.connect() as connection:
        return Counter(connection.scalars(select(usage.c.id).where(usage.c.status == 200)))


def record_times_ms(gateway: GatewayProcess, key_id: str) -> list[int]:
    """Return when the requests of a key that were answered arrived, in order."""
    with gateway.open_store() as store, store.database.connect() as connection:
        mine = select(usage.c.at_ms).where(usage.c.key_id == key_id, usage.c.status == 200)
        return sorted(connection.scalars(mine))


def memory_bytes(gateway: GatewayProcess, which: str = "VmRSS") -> int:
    """Return the memory of a gateway's process, or with `VmHWM` the most it ever had."""
    assert gateway.process is not None
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) * 1024


def is_back(gateway: GatewayProcess, what: str) -> float:
    """Wait until a gateway is ready again; return how long that took, in seconds."""
    return wait_until(gateway.is_ready, f"the gateway is not ready after {what}.")
