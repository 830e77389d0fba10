"""Remembers in a file which rows of a corpus are in its sink, so that work on it can go on.

A row is noted as about to be written before it is written, and as written afterwards. A row of
which only the first is known may be in the sink or not, so it is embedded and written again.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from embedway.corpora.source import Row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    run INTEGER NOT NULL,
    state INTEGER NOT NULL
) WITHOUT ROWID;
"""
_WRITING, _WRITTEN, _REJECTED = 0, 1, 2

RowState = Literal["new", "changed", "unchanged", "repeated"]
"""What is known of a row: `new`, `changed` since it was written, `unchanged`, or `repeated` by
another row of this run with the same id."""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the work on a corpus has come."""

    state: Literal["running", "stopped", "finished"] = "stopped"
    rows: int = 0
    """The rows read in the last run."""
    written: int = 0
    """Those of them that were embedded and written."""
    unchanged: int = 0
    rejected: int = 0
    removed: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0
    seconds: float = 0.0
    problem: str = ""
    """Why it stopped before its end; empty if it did not."""


class JobState:
    """The file of one job. Methods block; no two threads use them at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # the name of a sink may have a password
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_SCHEMA)
        self.run = int(self.get("run") or 0)
        """The number of this run."""

    def begin_run(self) -> None:
        """Begin to read the source from its start."""
        self.run += 1
        self.set("run", str(self.run))

    def get(self, name: str) -> str | None:
        """Return a fact, or None."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row and row[0]

    def set(self, name: str, value: str) -> None:
        """Store a fact."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def classify(self, rows: Sequence[Row]) -> list[RowState]:
        """Return what is known of some rows, and note that this run has seen them."""
        known = self._find([each.id for each in rows])
        states: list[RowState] = []
        unchanged: list[tuple[int, str]] = []
        seen: set[str] = set()
        for row in rows:
            digest, run, state = known.get(row.id, (b"", 0, _WRITING))
            if row.id in seen or run == self.run:
                states.append("repeated")
                continue
            seen.add(row.id)
            if not digest:
                states.append("new")
            elif digest == row.digest and state == _WRITTEN:
                states.append("unchanged")
                unchanged.append((self.run, row.id))
            else:
                states.append("changed")
        with self._transaction():
            self._database.executemany("UPDATE rows SET run = ? WHERE id = ?", unchanged)
            fresh = [
                (row.id, row.digest, self.run, _WRITING)
                for row, state in zip(rows, states, strict=True)
                if state in {"new", "changed"}
            ]
            self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", fresh)
        return states

    def note_written(self, row_ids: Sequence[str]) -> None:
        """Note that rows are in the sink."""
        self._set_state(row_ids, _WRITTEN)

    def note_rejected(self, row_ids: Sequence[str]) -> None:
        """Note that rows of this run cannot be embedded."""
        self._set_state(row_ids, _REJECTED)

    def gone(self, count: int) -> list[str]:
        """Return the ids of up to `count` rows that this run has not seen."""
        query = "SELECT id FROM rows WHERE run < ? LIMIT ?"
        return [each for (each,) in self._database.execute(query, (self.run, count))]

    def forget(self, row_ids: Sequence[str]) -> None:
        """Forget rows that are deleted."""
        with self._transaction():
            self._database.executemany("DELETE FROM rows WHERE id = ?", [(id,) for id in row_ids])

    def count_written(self) -> int:
        """Return how many rows are in the sink."""
        query = "SELECT count(*) FROM rows WHERE state = ?"
        return self._database.execute(query, (_WRITTEN,)).fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _find(self, ids: Sequence[str]) -> Mapping[str, tuple[bytes, int, int]]:
        query = (
            "SELECT id, digest, run, state FROM rows WHERE id IN (SELECT value FROM json_each(?))"
        )
        found = self._database.execute(query, (msgspec.json.encode(ids).decode(),))
        return {id: (digest, run, state) for id, digest, run, state in found}

    def _set_state(self, row_ids: Sequence[str], state: int) -> None:
        with self._transaction():
            self._database.executemany(
                "UPDATE rows SET state = ? WHERE id = ?", [(state, id) for id in row_ids]
            )

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")
