"""Starts what a scenario needs, and ends it with the scenario."""

import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from benchmarks.gateway import GatewayProcess, Key, get
from benchmarks.processes import free_port, running
from sqlalchemy import select
from tests.servers import Postgres, Redis
from tests.servers import running as server_running

from chaos.processes.nginx import Nginx
from embedway.storage.tables import usage

SETTINGS = """\
auto = "openai:text-embedding-3-small"

[providers.openai]
base_url = "{base_url}"
api_key = "sk-upstream"
"""
BUSY_PLACES = 32
BUSY_PROVIDER_S = 0.4
Skipped, Lacking = pytest.skip.Exception, pytest.fail.Exception
"""Raised where this machine lacks what a scenario needs, the second if servers are required. The
message says what it lacks."""


@dataclass(frozen=True)
class Replicas:
    """Two running gateways that share one Postgres and one Redis."""

    gateways: Sequence[GatewayProcess]
    postgres: Postgres
    redis: Redis


class Shared:
    """What several scenarios use, each started when the first one needs it.

    A scenario leaves it as it found it: running.
    """

    def __init__(self, stack: ExitStack, *, is_short: bool) -> None:
        """Start nothing yet; `stack` ends what is started."""
        self._stack = stack
        self._is_short = is_short
        self._folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="embedway-chaos-"))
        )

    @cached_property
    def replicas(self) -> Replicas:
        """Two replicas, whose provider answers after 10 ms."""
        redis = self._stack.enter_context(server_running(Redis))
        postgres = self._stack.enter_context(server_running(Postgres))
        base_url = start_provider(self._stack, 0.01)
        variables = {
            "database_url": postgres.url,
            "redis_url": redis.url,
            "pepper": secrets.token_hex(32),
            "drain_s": 0.2 if self._is_short else 2,
        }
        gateways = [
            prepare_gateway(self._stack, self._folder / name, base_url, **variables)
            for name in ("one", "two")
        ]
        with gateways[0].open_store():
            pass  # makes the tables, so that both find them
        start(*gateways)
        return Replicas(gateways, postgres, redis)

    @cached_property
    def busy(self) -> GatewayProcess:
        """A gateway that works on 32 requests at once, whose provider answers after 0.4 s."""
        base_url = start_provider(self._stack, BUSY_PROVIDER_S)
        gateway = prepare_gateway(
            self._stack,
            self._folder / "busy",
            base_url,
            max_in_flight=BUSY_PLACES,
            header_timeout_s=1.5 if self._is_short else 10,
        )
        start(gateway)
        return gateway


class Stage:
    """What a scenario may start and use. What it starts ends with it."""

    def __init__(
        self, shared: Shared, stack: ExitStack, *, is_short: bool, say: Callable[[str], None]
    ) -> None:
        """Start nothing yet.

        Args:
            shared: What scenarios share.
            stack: Ends what the scenario starts.
            is_short: Whether the scenario should show only that it works.
            say: Shows what the scenario is doing.
        """
        self.shared = shared
        self.stack = stack
        self.is_short = is_short
        self.say = say
        self.folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="embedway-chaos-"))
        )

    def replicas(self) -> Replicas:
        """Return the shared replicas."""
        self.say("starting Postgres, Redis and two replicas")
        return self.shared.replicas

    def busy(self) -> GatewayProcess:
        """Return the shared gateway with few places."""
        self.say("starting the gateway")
        return self.shared.busy

    def gateway(self, **variables: object) -> GatewayProcess:
        """Start a gateway of the scenario's own, whose provider answers at once."""
        self.say("starting the gateway")
        base_url = start_provider(self.stack, 0)
        gateway = prepare_gateway(self.stack, self.folder / "gateway", base_url, **variables)
        start(gateway)
        return gateway

    def nginx(self, gateways: Sequence[GatewayProcess]) -> str:
        """Start nginx in front of the gateways as docs/operations.md says; return its URL."""
        nginx = Nginx([each.port for each in gateways])
        self.stack.callback(nginx.remove)
        nginx.start()
        return f"http://127.0.0.1:{nginx.port}"

    def wait(self, seconds: float, what: str) -> None:
        """Let time pass while others work."""
        self.say(what)
        time.sleep(seconds)


def start_provider(stack: ExitStack, delay_s: float) -> str:
    """Start a provider that answers after `delay_s`; return its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.fixed_server", str(port), str(delay_s)]
    stack.enter_context(running(command, port))
    return f"http://127.0.0.1:{port}/v1"


def prepare_gateway(
    stack: ExitStack, folder: Path, base_url: str, **variables: object
) -> GatewayProcess:
    """Return a gateway, not started yet, for the provider at `base_url`."""
    named = {
        name if name.isupper() else f"EMBEDWAY_{name.upper()}": str(value)
        for name, value in variables.items()
    }
    gateway = GatewayProcess(folder, SETTINGS.format(base_url=base_url), **named)
    stack.callback(_end, gateway)
    return gateway


def start(*gateways: GatewayProcess) -> None:
    """Start gateways together, and wait until all answer."""
    for each in gateways:
        each.start()
    for each in gateways:
        each.wait_until_ready()


def _end(gateway: GatewayProcess) -> None:
    if gateway.process and gateway.process.poll() is None:
        gateway.signal(signal.SIGCONT)
        gateway.stop()


def records(gateway: GatewayProcess, *keys: Key) -> Counter[str]:
    """Return how many usage records each answer with 200 to these keys has, by the answer's id."""
    ids = [each.id for each in keys]
    with gateway.open_store() as store, store.database.connect() as connection:
        found = select(usage.c.id).where(usage.c.status == 200, usage.c.key_id.in_(ids))
        return Counter(connection.scalars(found))


def memory_bytes(gateway: GatewayProcess) -> int:
    """Return the memory of a gateway's process."""
    assert gateway.process is not None
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def metric(gateway: GatewayProcess, name: str) -> float:
    """Return the value of a metric without labels."""
    lines = get(f"{gateway.url}/metrics", timeout=30).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])
