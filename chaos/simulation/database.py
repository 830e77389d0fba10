"""A simulated database server: real SQL on a SQLite file in memory, with faults around commits.

Replicas open it with SQLAlchemy, and its connections fail as the real ones do. As `sqlite` it is
the file of a single replica. As `network` it stands for Postgres: connections are lost, and a
commit whose reply is lost may have happened, may not, or may happen later.

All connections of a simulation are in one thread, so none may wait for SQLite's own locks. A write
therefore waits for a lock of the simulation first, in virtual time.
"""

import atexit
import itertools
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from greenlet import GreenletExit, getcurrent, greenlet
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from chaos.simulation.process import OUTSIDE, PROCESS
from chaos.simulation.world import Partition, World
from embedway.ledger.commits import CommitError, CommitRejected, ConnectionLost
from embedway.ledger.sqlite_writer import SqliteLedgerWriter
from embedway.storage import database

LOCK_WAIT_S = 5.0
"""The longest wait for another transaction, as in the gateway's own settings."""
CONNECT_WAIT_S = 5.0
"""How long connecting takes to fail if the server does not answer."""
WRITES = ("BEGIN", "INSERT", "UPDATE", "DELETE")

Kind = Literal["sqlite", "network"]


class Lost(sqlite3.OperationalError):
    """The connection broke."""


class SimulatedDatabase:
    """The server, and what is wrong with it."""

    def __init__(self, world: World, kind: Kind) -> None:
        self.world = world
        self.kind: Kind = kind
        self.network = Partition()
        self.is_frozen = False
        self.is_read_only = False
        self.slower = 1.0
        self.lost_commits = 0.0
        """The share of commits whose connection breaks."""
        self.on_commit: list[Callable[[], None]] = []
        """Called after each commit that wrote something."""
        self._chance = world.chance("database")
        self._folder = Path(tempfile.mkdtemp(prefix="embedway-chaos-", dir=_memory()))
        self.path = self._folder / "embedway.db"
        shutil.copy(_template(), self.path)
        self._owner: SimulatedConnection | None = None
        self._waiting: deque[greenlet] = deque()
        self._frozen: list[greenlet] = []
        self._numbers = itertools.count(1)
        self.plain = sqlite3.connect(self.path, isolation_level=None)
        """A connection for the simulation's own questions, which never fails."""

    def open_engine(self) -> Engine:
        """Return an engine for one process."""
        # Engines with one dialect share the SQL that it compiled, which takes most of the time.
        shared = _first_engine()
        pool = QueuePool(self._connect, pool_size=10, dialect=shared.dialect)
        engine = Engine(pool, shared.dialect, shared.url)
        engine._compiled_cache = shared._compiled_cache

        @event.listens_for(engine, "handle_error")
        def handle_error(context: Any) -> None:
            if isinstance(context.original_exception, Lost):
                context.is_disconnect = True

        return engine

    def heal(self) -> None:
        """End all faults."""
        self.network.is_away = self.is_read_only = False
        self.network.cut_off.clear()
        self.slower, self.lost_commits = 1.0, 0.0
        self.thaw()

    def thaw(self) -> None:
        """End a freeze."""
        self.is_frozen = False
        frozen, self._frozen = self._frozen, []
        for each in frozen:
            self.world.loop.wake(each)

    def proven_models(self, provider: str) -> list[str]:
        """Return the models of a provider whose space is known."""
        query = "SELECT deployment FROM space_proofs WHERE state != 'unproven' ORDER BY 1"
        ids = [row[0] for row in self.plain.execute(query)]
        return [id.partition(":")[2] for id in ids if id.startswith(f"{provider}:")]

    def close(self) -> None:
        """Delete the file."""
        self.plain.close()
        shutil.rmtree(self._folder)

    def _connect(self) -> sqlite3.Connection:
        self.reach()
        connection = sqlite3.connect(
            self.path, factory=SimulatedConnection, check_same_thread=False, timeout=0
        )
        connection.setup(self)
        return connection

    def reach(self) -> None:
        """Wait for the network and the server.

        Raises:
            Lost: The server cannot be reached.
        """
        process = PROCESS.get()
        if process is None:
            return
        if not process.is_alive:
            raise GreenletExit
        if self.network.blocks(process):
            self.world.fault("database")
            if self.kind == "sqlite":
                raise sqlite3.OperationalError("disk I/O error")
            self._sleep(self._chance.choice((0.001, 0.001, CONNECT_WAIT_S)))
            raise Lost("connection refused")
        while self.is_frozen:
            self.world.fault("database")
            self._frozen.append(getcurrent())
            self.world.loop.wait()

    def _sleep(self, seconds: float) -> None:
        self.world.loop.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Take about that long."""
        self._sleep(seconds * self.slower * self._chance.uniform(0.5, 1.5))

    def lock(self, connection: "SimulatedConnection") -> None:
        """Wait until no other transaction writes.

        Raises:
            sqlite3.OperationalError: That took too long.
        """
        waiting = getcurrent()
        late_s = self.world.now_s + LOCK_WAIT_S
        while self._owner is not None:
            self._waiting.append(waiting)
            timer = self.world.loop.call_later(
                late_s - self.world.now_s, self.world.loop.resume, waiting
            )
            try:
                self.world.loop.wait()
            except GreenletExit:
                self._wake_next()  # it may have been this one's turn
                raise
            finally:
                timer.cancel()
                with suppress(ValueError):
                    self._waiting.remove(waiting)
            if self._owner is not None and self.world.now_s >= late_s:
                self.world.fault("database", "a transaction waits too long for another")
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
        self._owner = connection

    def unlock(self, connection: "SimulatedConnection") -> None:
        """Let the next transaction write."""
        if self._owner is connection:
            self._owner = None
            self._wake_next()

    def _wake_next(self) -> None:
        while self._owner is None and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.dead:
                self.world.loop.wake(waiting)
                return

    def commit(self, connection: "SimulatedConnection") -> None:
        """Commit what `connection` wrote, with the faults that are due."""
        chance, process = self._chance, PROCESS.get()
        self.reach()
        if chance.random() < self.lost_commits:
            fate = chance.choice(("before", "after", "later", "never"))
            self.world.fault("database", f"the connection breaks at a commit, which is {fate}")
            if self.kind == "sqlite":
                connection.real_rollback()
                raise sqlite3.OperationalError("disk I/O error")
            if fate == "before":
                connection.real_rollback()
            elif fate == "after":
                connection.real_commit()
                self.committed()
            else:
                self.finish_later(connection, is_committed=fate == "later")
            raise Lost("server closed the connection unexpectedly")
        self.pause(0.0005)
        if process is not None and not process.is_alive:
            raise GreenletExit
        self.reach()
        connection.real_commit()
        self.committed()
        self.pause(0.0005)  # the reply is on its way

    def finish_later(self, connection: "SimulatedConnection", *, is_committed: bool) -> None:
        """Let a transaction whose client is gone end some time later."""
        connection.break_off()

        def finish() -> None:
            if is_committed:
                connection.real_commit()
            else:
                connection.real_rollback()
            connection.real_close()
            self.world.note("a transaction without a client ends")
            if is_committed:
                self.committed()

        delay_s = self._chance.choice((0.01, 0.3, 2.0, 8.0)) * self._chance.uniform(0.5, 1.5)
        self.world.loop.call_later(delay_s, finish, context=OUTSIDE.copy())

    def committed(self) -> None:
        """Tell the observers."""
        for each in self.on_commit:
            each()


class SimulatedCursor(sqlite3.Cursor):
    """A cursor that waits and fails as its server does."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement."""
        self.connection.begin(sql)
        return super().execute(sql, *arguments)

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        """Run one statement for many rows."""
        self.connection.begin(sql)
        return super().executemany(sql, rows)


class SimulatedConnection(sqlite3.Connection):
    """A connection of a replica to the simulated server."""

    server: SimulatedDatabase

    def setup(self, server: SimulatedDatabase) -> None:
        """Set the server."""
        self.server = server
        self._is_broken = False

    def cursor(self, factory: type[sqlite3.Cursor] = SimulatedCursor) -> sqlite3.Cursor:
        """Return a cursor."""
        return super().cursor(factory)

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement."""
        return self.cursor().execute(sql, *arguments)

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        """Run one statement for many rows."""
        return self.cursor().executemany(sql, rows)

    def begin(self, sql: str) -> None:
        """Wait for the server, and before the first write for all other transactions."""
        if self._is_broken:
            raise Lost("the connection is closed")
        server = self.server
        if self.in_transaction:
            return
        server.reach()
        if sql.lstrip().startswith(WRITES):
            server.pause(0.0002)
            server.lock(self)
            if server.is_read_only:
                server.unlock(self)
                server.world.fault("database")
                raise sqlite3.OperationalError("attempt to write a readonly database")

    def commit(self) -> None:
        """Commit, or fail as the server does."""
        if self.in_transaction:
            self.server.commit(self)
        self.server.unlock(self)

    def rollback(self) -> None:
        """Roll back. The server does so itself when a connection breaks."""
        if not self._is_broken:
            self.real_rollback()

    def close(self) -> None:
        """Close; the server rolls back what is not committed."""
        if not self._is_broken:
            # SQLite keeps a transaction for as long as anything refers to one of its cursors.
            self.real_rollback()
            super().close()

    def real_commit(self) -> None:
        """Commit on the server."""
        super().commit()
        self.server.unlock(self)

    def real_rollback(self) -> None:
        """Roll back on the server."""
        super().rollback()
        self.server.unlock(self)

    def real_close(self) -> None:
        """Close on the server."""
        super().close()

    def break_off(self) -> None:
        """Break the client's end. The server's goes on."""
        self._is_broken = True


class NetworkLedgerWriter(SqliteLedgerWriter):
    """Writes to the simulated server, and reads its errors as the writer for Postgres does."""

    @contextmanager
    def _session(self) -> Generator[sqlite3.Connection]:
        reached = False
        pooled = None
        try:
            pooled = self._engine.raw_connection()
            reached = True
            yield pooled.driver_connection
            pooled.close()
        except sqlite3.IntegrityError as error:
            self._abandon(pooled)
            raise CommitRejected(f"{error}") from None
        except sqlite3.OperationalError as error:
            self._abandon(pooled)
            busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            if busy or isinstance(error, Lost):
                raise ConnectionLost(f"{error}", in_doubt=reached) from None
            raise CommitError(f"{error}") from None
        except BaseException:
            self._abandon(pooled)
            raise

    @staticmethod
    def _abandon(pooled: Any) -> None:
        if pooled is not None:
            pooled.invalidate()
            pooled.close()


@cache
def _first_engine() -> Engine:
    """Return an engine whose dialect is ready."""
    engine = create_engine("sqlite://", hide_parameters=True)
    engine.connect().close()
    return engine


@cache
def _memory() -> str | None:
    """Return a folder in memory, or None for the usual one."""
    folder = Path("/dev/shm")
    return str(folder) if folder.is_dir() else None


@cache
def _template() -> Path:
    """Make an empty database with all tables, once for this process."""
    folder = tempfile.mkdtemp(prefix="embedway-chaos-", dir=_memory())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "embedway.db"
    database.connect(path).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path
