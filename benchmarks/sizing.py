"""Measures what one gateway needs, for planning: memory, disk, connections, round trips.

    python -m benchmarks.sizing [--seconds 10] [--json]

One process passes requests through to a provider, on SQLite alone, then on Postgres and Redis. Its
key has rate limits and a budget, so nothing is left out. Provider and client are those of
`benchmarks.passthrough`. All of them share this machine.
"""

import argparse
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import psycopg
from redis import Redis as RedisClient
from rich.console import Console
from rich.table import Table
from tests.servers import Redis, running

from benchmarks import passthrough
from benchmarks.passthrough import load, tool
from benchmarks.processes import peak_mib, resident_mib
from benchmarks.usage import DiskPostgres

KEY = ("--limit", "requests=10000000/minute", "--limit", "tokens=100000000/day")
KEY += ("--budget", "100000/day")
CONNECTIONS = 32
MILLION = 1_000_000


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway used in one setup."""

    setup: str
    requests: int
    requests_per_s: float
    cpu_ms: float
    """The gateway's CPU time per request, in milliseconds."""
    idle_mib: float
    """The memory before the first request, with the built-in model loaded."""
    peak_mib: float
    ledger_mb_per_million: float
    """How much a million requests add to the database, in MB."""
    postgres_connections: int
    redis_round_trips: float
    """Round trips to Redis per request; one may serve several requests."""


class Backends(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of a setup, and what can be read from them."""

    name: str
    settings: dict[str, str]
    postgres: str | None = None
    redis: str | None = None

    def database_bytes(self, folder: Path) -> int:
        """Return the size of the database."""
        if self.postgres is None:
            with closing(sqlite3.connect(folder / "embedway/embedway.db")) as connection:
                [pages] = connection.execute("PRAGMA page_count").fetchone()
                [size] = connection.execute("PRAGMA page_size").fetchone()
            return pages * size
        with psycopg.connect(self.postgres) as connection:
            [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            return size

    def connections(self) -> int:
        """Return how many connections the gateway holds to Postgres."""
        if self.postgres is None:
            return 0
        with psycopg.connect(self.postgres) as connection:
            query = (
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            [count] = connection.execute(query).fetchone()
            return count

    def script_runs(self) -> int:
        """Return how many scripts Redis has run: each is one round trip."""
        if self.redis is None:
            return 0
        with RedisClient.from_url(self.redis) as client:
            return client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


@contextmanager
def on_sqlite() -> Iterator[Backends]:
    """Keep everything in one file."""
    yield Backends(name="SQLite", settings={})


@contextmanager
def on_postgres() -> Iterator[Backends]:
    """Keep everything in Postgres, and count limits in Redis."""
    with running(DiskPostgres) as postgres, running(Redis) as redis:
        url = postgres.url
        settings = {
            "EMBEDWAY_DATABASE_URL": url,
            "EMBEDWAY_REDIS_URL": redis.url,
            "EMBEDWAY_PEPPER": os.urandom(32).hex(),
        }
        yield Backends(name="Postgres and Redis", settings=settings, postgres=url, redis=redis.url)


def measure(backends: Backends, folder: Path, seconds: int) -> Need:
    """Put a gateway in this setup under load."""
    with ExitStack() as stack:
        provider = passthrough.start_provider(stack, tool("nginx"), folder)
        base_url = f"http://127.0.0.1:{provider.port}/v1"
        gateway = passthrough.start_embedway(stack, base_url, folder, *KEY, **backends.settings)
        idle = resident_mib(gateway.pid)
        passthrough.check("embedway", gateway)
        load(provider, gateway, CONNECTIONS, passthrough.WARM_UP_S)
        bytes_before, runs_before = backends.database_bytes(folder), backends.script_runs()
        requests_before = passthrough.count_requests(provider)
        measured = load(provider, gateway, CONNECTIONS, seconds)
        requests = passthrough.count_requests(provider) - requests_before
        added = backends.database_bytes(folder) - bytes_before
        return Need(
            setup=backends.name,
            requests=requests,
            requests_per_s=measured.per_s,
            cpu_ms=measured.cpu_ms,
            idle_mib=idle,
            peak_mib=peak_mib(gateway.pid),
            ledger_mb_per_million=added / requests * MILLION / 1e6,
            postgres_connections=backends.connections(),
            redis_round_trips=(backends.script_runs() - runs_before) / requests,
        )


def show(needs: Sequence[Need]) -> None:
    """Print a table."""
    table = Table("one gateway, 32 connections", *(need.setup for need in needs))
    for name, form, field in (
        ("requests/s", "{:,.0f}", "requests_per_s"),
        ("CPU ms a request", "{:.2f}", "cpu_ms"),
        ("memory when idle, MiB", "{:.0f}", "idle_mib"),
        ("memory under load, MiB", "{:.0f}", "peak_mib"),
        ("ledger, MB a million requests", "{:,.0f}", "ledger_mb_per_million"),
        ("connections to Postgres", "{}", "postgres_connections"),
        ("round trips to Redis a request", "{:.2f}", "redis_round_trips"),
    ):
        table.add_row(name, *(form.format(getattr(need, field)) for need in needs))
    Console().print(table)


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=10, help="of load in each setup")
    options.add_argument("--json", action="store_true", help="print JSON")
    chosen = options.parse_args()
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    needs = []
    try:
        for setup in (on_sqlite, on_postgres):
            with tempfile.TemporaryDirectory() as folder, setup() as backends:
                needs.append(measure(backends, Path(folder), chosen.seconds))
    except KeyboardInterrupt:
        sys.exit(130)
    if chosen.json:
        print(msgspec.json.encode(needs).decode())
    else:
        show(needs)


if __name__ == "__main__":
    main()
