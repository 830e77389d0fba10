"""Measures usage reports over a month of a year's ledger, on SQLite beside Postgres.

    python -m benchmarks.usage [--rows 10000000] [--runs 7] [--commits 3000] [--json]

It fills a new database of each kind with the records of `benchmarks.ledger_lines` and rolls them
up. Then it times the gateway's own queries and its ledger's commits. Ten million records take up to
12 GB of disk.
"""

import argparse
import asyncio
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, func, insert, select
from tests.servers import Postgres, running

from benchmarks.ledger_lines import COLUMNS, make_records
from embedway.core import ids
from embedway.core.usage import UsageRecord
from embedway.ledger import recount, rollups
from embedway.ledger.ledger import Ledger
from embedway.ledger.query import UsageQuery
from embedway.ledger.reports import UsageReports
from embedway.ledger.rollups import DAY_MS, ROLLUPS, Rollup
from embedway.storage import database
from embedway.storage.tables import SUMS, usage

HOURS, DAYS, USER_HOURS, USER_DAYS = ROLLUPS
NAMES = ", ".join(f'"{each}"' for each in COLUMNS)
CONNECTIONS = 32
MONTHS = [datetime(2025 + at // 12, 1 + at % 12, 1, tzinfo=UTC) for at in range(10, 23)]
STARTS_MS = [round(each.timestamp() * 1000) for each in MONTHS]
"""The start of each of twelve months, and the end of the last."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one database."""

    database: str
    lines: int
    size_gb: float
    filled_s: float
    ms: dict[str, float]
    """The median time of each query, in milliseconds."""
    commits: dict[str, float]


class DiskPostgres(Postgres):
    """A Postgres as in production: it waits for the disk."""

    def command(self) -> list[str]:
        """Return the command for a machine of a few gigabytes, with a small write-ahead log."""
        options = [
            f"port={self.port}", "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}", "shared_buffers=1GB", "max_wal_size=1GB",
            "wal_level=minimal", "max_wal_senders=0", "maintenance_work_mem=512MB",
            "random_page_cost=1.1", "effective_cache_size=4GB",
        ]  # fmt: skip
        arguments = itertools.chain.from_iterable(("-c", each) for each in options)
        return [self._server, "-D", str(self.data), *arguments]


@contextmanager
def sqlite_filled(rows: int) -> Iterator[Engine]:
    """Open a SQLite database with this many records, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="embedway-bench-") as folder:
        path = Path(folder) / "embedway.db"
        database.connect(path).dispose()
        with closing(sqlite3.connect(path)) as connection:
            # A crash on the way may lose everything.
            connection.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000;"
                "PRAGMA temp_store = MEMORY; DROP INDEX usage_by_time;"
            )
            marks = ", ".join("?" * len(COLUMNS))
            for chunk in make_records(rows, start_ms=STARTS_MS[0], end_ms=STARTS_MS[-1]):
                connection.executemany(f'INSERT INTO "usage" ({NAMES}) VALUES ({marks})', chunk)
            connection.execute('CREATE INDEX usage_by_time ON "usage" (at_ms)')
            connection.commit()
        engine = database.connect(path)
        _sum_up(engine, "PRAGMA cache_size = -2000000")
        engine.dispose()
        engine = database.connect(path)
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        yield engine
        engine.dispose()


@contextmanager
def postgres_filled(rows: int) -> Iterator[Engine]:
    """Open a new Postgres with this many records."""
    with running(DiskPostgres) as server:
        url = server.url
        engine = database.connect(url)
        with psycopg.connect(url) as connection:
            connection.execute("SET maintenance_work_mem = '512MB'")
            # Emptying and filling a table in one transaction needs no write-ahead log.
            connection.execute('TRUNCATE "usage"; DROP INDEX usage_by_time')
            [key] = connection.execute(
                "SELECT conname FROM pg_constraint "
                "WHERE conrelid = 'usage'::regclass AND contype = 'p'"
            ).fetchone()
            connection.execute(f'ALTER TABLE "usage" DROP CONSTRAINT {key}')
            with connection.cursor().copy(f'COPY "usage" ({NAMES}) FROM STDIN') as copy:
                for chunk in make_records(rows, start_ms=STARTS_MS[0], end_ms=STARTS_MS[-1]):
                    for record in chunk:
                        copy.write_row(record)
            connection.execute(f'ALTER TABLE "usage" ADD CONSTRAINT {key} PRIMARY KEY (id, line)')
            connection.execute('CREATE INDEX usage_by_time ON "usage" (at_ms)')
        _sum_up(engine, "SET LOCAL work_mem = '512MB'")
        # In production, autovacuum would have run by then.
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        yield engine
        engine.dispose()


def _sum_up(engine: Engine, prepare: str) -> None:
    for start_ms, end_ms in itertools.pairwise(STARTS_MS):
        with engine.begin() as connection:
            database.lift_time_limits(connection)
            connection.exec_driver_sql(prepare)
            recount.rebuild(connection, USER_HOURS, start_ms, end_ms)
            # Sum up finer roll-ups, which have fewer rows than the ledger.
            for finer, coarser in ((USER_HOURS, HOURS), (USER_HOURS, USER_DAYS), (HOURS, DAYS)):
                _sum_again(connection, finer, coarser, start_ms, end_ms)


def _sum_again(connection: Any, finer: Rollup, coarser: Rollup, start_ms: int, end_ms: int) -> None:
    table = finer.table.c
    begins = (table.at_ms - table.at_ms % coarser.width_ms).label("at_ms")
    groups = [begins, *(table[name] for name in coarser.key_columns[1:])]
    sums = [func.sum(table[name]) for name in SUMS]
    chosen = (
        select(*groups, *sums)
        .where(table.at_ms >= start_ms, table.at_ms < end_ms)
        .group_by(*groups)
    )
    connection.execute(insert(coarser.table).from_select([*coarser.key_columns, *SUMS], chosen))


def _questions(engine: Engine) -> dict[str, Callable[[], Sequence[Any]]]:
    month, end = STARTS_MS[-2:]
    reports = UsageReports(engine)

    def ask(*by: str, width: Any, since_ms: int) -> Callable[[], Sequence[Any]]:
        query = UsageQuery(group_by=by, width=width)
        return lambda: reports.sum_usage(query, since_ms=since_ms, until_ms=end)

    return {
        "a month by day and model": ask("model", width="1d", since_ms=month),
        "the same from the lines": lambda: _from_lines(engine, month, end),
        "a month by hour and model": ask("model", width="1h", since_ms=month),
        "a month by day and key": ask("key_id", width="1d", since_ms=month),
        "a day by end user": ask("end_user", width="1d", since_ms=end - DAY_MS),
        "a month by end user": ask("end_user", width=None, since_ms=month),
        "a month by day and end user": ask("end_user", width="1d", since_ms=month),
        "a year by month": ask(width="1mo", since_ms=STARTS_MS[0]),
        "a year by month and model": ask("model", width="1mo", since_ms=STARTS_MS[0]),
    }


def _from_lines(engine: Engine, start_ms: int, end_ms: int) -> Sequence[Any]:
    columns = rollups.rollup_query(DAYS).selected_columns
    day = (usage.c.at_ms - usage.c.at_ms % DAY_MS).label("day")
    query = (
        select(day, usage.c.model, *(columns[name] for name in SUMS))
        .where(usage.c.at_ms >= start_ms, usage.c.at_ms < end_ms)
        .group_by(day, usage.c.model)
    )
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        return connection.execute(query).all()


def _line(number: int) -> UsageRecord:
    cost = 2_000
    return UsageRecord(
        id=ids.new_id("embd"), at_ms=STARTS_MS[-1] - 1 - number, request_id=ids.new_id("req"),
        project_id=f"proj_{number % 8:016x}", key_id=f"key_{number % 40:016x}", on_behalf_of=None,
        user=f"user_{number % 1000:05d}", metadata={}, model=f"text-embedding-{number % 12}",
        provider=f"provider-{number % 5}", items=1, tokens=100, cost_nano_usd=cost,
        upstream_cost_nano_usd=cost, calls=1, failed_calls=0, latency_us=5_000, status=200,
    )  # fmt: skip


async def _commit(engine: Engine, connections: int, *, count: int) -> tuple[float, float]:
    """Return the records per second, and the median wait for one in milliseconds."""
    ledger = Ledger(engine, process="benchmark")
    numbers = iter(range(count))
    waits: list[float] = []

    async def client() -> None:
        for number in numbers:
            began = time.perf_counter()
            await ledger.append([_line(number)])
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    rate = count / (time.perf_counter() - began)
    ledger.close()
    return rate, statistics.median(waits) * 1000


def _size(engine: Engine) -> int:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            return pages * connection.exec_driver_sql("PRAGMA page_size").scalar()
        return connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar()


def measure(name: str, *, rows: int, runs: int, commits: int) -> Figures:
    """Measure one kind of database."""
    began = time.perf_counter()
    filled = {"SQLite": sqlite_filled, "Postgres": postgres_filled}[name]
    with filled(rows) as engine:
        filled_s = time.perf_counter() - began
        size = _size(engine)
        ms = {}
        for question, ask in _questions(engine).items():
            times = []
            for _ in range(runs):
                started = time.perf_counter()
                assert ask()
                times.append(time.perf_counter() - started)
            ms[question] = statistics.median(times) * 1000
        one, one_ms = asyncio.run(_commit(engine, 1, count=commits))
        many, many_ms = asyncio.run(_commit(engine, CONNECTIONS, count=commits))
    return Figures(
        database=name, lines=rows, size_gb=size / 1e9, filled_s=filled_s, ms=ms,
        commits={
            "lines a second, 1 at a time": one, "ms a line, 1 at a time": one_ms,
            f"lines a second, {CONNECTIONS} at a time": many,
            f"ms a line, {CONNECTIONS} at a time": many_ms,
        },
    )  # fmt: skip


def _table(figures: Sequence[Figures]) -> Table:
    table = Table(title=f"{figures[0].lines:,} lines of 12 months")
    table.add_column("")
    for each in figures:
        table.add_column(each.database, justify="right")
    table.add_row("filled in, s", *(f"{each.filled_s:.0f}" for each in figures))
    table.add_row("size, GB", *(f"{each.size_gb:.2f}" for each in figures), end_section=True)
    for question in figures[0].ms:
        table.add_row(f"{question}, ms", *(f"{each.ms[question]:,.1f}" for each in figures))
    table.add_section()
    for what in figures[0].commits:
        table.add_row(what, *(f"{each.commits[what]:,.2f}" for each in figures))
    return table


def main() -> None:
    """Fill the databases, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--commits", type=int, default=3_000, help="lines to time the writing of")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    figures = []
    for name in ("SQLite", "Postgres"):
        print(f"{name}: making {options.rows:,} lines ...", file=sys.stderr)
        figures.append(measure(name, rows=options.rows, runs=options.runs, commits=options.commits))
    if options.json:
        sys.stdout.buffer.write(msgspec.json.encode(figures) + b"\n")
        return
    Console(width=None if sys.stdout.isatty() else 140).print(_table(figures))


if __name__ == "__main__":
    main()
