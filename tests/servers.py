"""Runs the servers that tests need beside a gateway: Postgres and Redis.

Each runs from Debian's binaries on a free port, with data of its own, and is removed at the end.
"""

import contextlib
import getpass
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
from sqlalchemy import Engine

from embedway.storage import database

START_S = 60
UNPRIVILEGED = ("postgres", "nobody")
"""The users to run servers as instead of root, which Postgres refuses."""
# A shell that runs this in the background ignores these, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "shared_buffers=32MB",
    "max_wal_size=256MB",
    "autovacuum=off",
)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary(name: str) -> str:
    """Return the path of a program; without it, skip the test, or fail if servers are required."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    # Debian puts nginx where only root's path looks.
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = shutil.which(name, path=path) or next(map(str, debian), None)
    if not found:
        lack(f"{name} is not installed: apt-get install postgresql redis-server nginx-light")
    return found


def lack(reason: str) -> NoReturn:
    """Skip the test because this machine lacks something, or fail if servers are required."""
    if os.environ.get("EMBEDWAY_TEST_SERVERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def account() -> str:
    """Return the user that servers run as."""
    if os.getuid():
        return getpass.getuser()
    known = {each.pw_name for each in pwd.getpwall()}
    return next(each for each in UNPRIVILEGED if each in known)


class Server:
    """A process on a port of its own, with a folder of its own that only its user may read."""

    def __init__(self) -> None:
        self.port = free_port()
        # Other users cannot read pytest's own folders.
        self.folder = Path(tempfile.mkdtemp(prefix="embedway-server-"))
        self.user = account()
        if os.getuid() == 0:
            shutil.chown(self.folder, self.user)
        self.process: subprocess.Popen | None = None

    @property
    def as_user(self) -> dict[str, object]:
        """The options that run a subprocess as that user."""
        options = {"cwd": self.folder, "start_new_session": True}
        if os.getuid() == 0:
            entry = pwd.getpwnam(self.user)
            options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return options

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        # It has a session of its own, so that Ctrl-C reaches only pytest, which then stops it, and
        # it does not outlive a killed pytest.
        setpriv = shutil.which("setpriv")
        dependent = [setpriv, "--pdeathsig", "INT"] if setpriv else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*dependent, *self.command()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **self.as_user,
            )
        deadline = time.monotonic() + START_S
        while not self.answers():
            alive = self.process.poll() is None and time.monotonic() < deadline
            assert alive, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it without waiting for its clients; keep its data."""
        if self.process and self.process.poll() is None:
            self.resume()
            self.process.send_signal(number)
            self.process.wait(START_S)

    def pause(self) -> None:
        """Freeze it: it accepts connections but does not answer."""
        self.process.send_signal(signal.SIGSTOP)  # first, so that it starts no more children
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        self._signal_children(signal.SIGCONT)
        self.process.send_signal(signal.SIGCONT)

    def _signal_children(self, number: signal.Signals) -> None:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in listed.read_text().split() if listed.exists() else ():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(int(child), number)

    def remove(self) -> None:
        """End it and remove its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Server):
    """A Postgres, stopped at first, that trusts every user except `guarded`."""

    PASSWORD = "correct horse"
    _numbers = itertools.count()

    def __init__(self) -> None:
        server = binary("postgres")
        super().__init__()
        self._server = server
        self.data = self.folder / "data"
        subprocess.run(
            [binary("initdb"), "--pgdata", self.data, "--username", "embedway", "--auth", "trust",
             "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"],
            check=True, capture_output=True, **self.as_user,
        )  # fmt: skip
        access = self.data / "pg_hba.conf"
        rule = "host all guarded all scram-sha-256\n"
        access.write_text(rule + access.read_text())

    def command(self) -> list[str]:
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]  # fmt: skip  # noqa: E501
        given = itertools.chain.from_iterable(("-c", each) for each in (*FAST, *options))
        return [self._server, "-D", str(self.data), *given]

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.address("postgres"), connect_timeout=5).close()
            return True
        return False

    def address(self, name: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://embedway@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str, name: str = "postgres") -> list[tuple]:
        """Run a statement on one of its databases."""
        with psycopg.connect(self.address(name), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def url(self) -> str:
        """The URL of a new database, another one each time."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.address(name)


@contextlib.contextmanager
def broken_commits(engine: Engine, table: str) -> Iterator[None]:
    """Break connections that change a table of a Postgres, during their commit."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE CONSTRAINT TRIGGER break AFTER INSERT OR UPDATE ON {table} "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION break()"
        )
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION break() CASCADE")


class Redis(Server):
    """A Redis without persistence, stopped at first."""

    def __init__(self) -> None:
        self._server = binary("redis-server")
        super().__init__()

    def command(self) -> list[str]:
        return [
            self._server, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self.folder),
        ]  # fmt: skip

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say(b"PING\r\n").startswith(b"+PONG")
        return False

    def say(self, line: bytes) -> bytes:
        """Send a command and return the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(line)
            return connection.recv(1000)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def running(kind: type[Server]) -> Iterator:
    """Start a server of that kind; remove it at the end."""
    server = kind()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """Run a Postgres that all tests share and none stops."""
    with running(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Redis]:
    """Run a Redis that all tests share and none stops."""
    with running(Redis) as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: Postgres) -> str:
    """Return the URL of an empty Postgres database for one test."""
    return shared_postgres.url


@pytest.fixture
def redis_url(shared_redis: Redis) -> str:
    """Return the URL of an empty Redis."""
    shared_redis.say(b"FLUSHALL\r\n")
    return shared_redis.url


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Run a Postgres for one test, which may stop and start it."""
    with running(Postgres) as server:
        yield server


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Run a Redis for one test, which may stop, start, pause and resume it."""
    with running(Redis) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def any_address(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Return the address of a new database; each test runs on both kinds."""
    on_postgres = request.param == "postgres"
    return request.getfixturevalue("postgres_url") if on_postgres else tmp_path / "test.db"


@pytest.fixture
def any_database(any_address: Path | str) -> Iterator[Engine]:
    """Open a new database with all tables; each test runs on both kinds."""
    engine = database.connect(any_address)
    yield engine
    engine.dispose()
