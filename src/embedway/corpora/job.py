"""Embeds the rows of a source into a sink: each once, resumable at any moment.

Rows are read, cut into points, embedded many at a time, and written in their order. What is written
is noted in a `JobState`, so that a later run embeds only what is new, changed or was interrupted.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import numpy as np

from embedway.concurrency.in_order import map_in_order
from embedway.core import money
from embedway.core.money import NanoUsd
from embedway.core.vectors import Vectors
from embedway.corpora.chunks import Chunking, TokenOffsets, cut_row, whole_row
from embedway.corpora.embedding import EmbeddedTexts, PatientEmbedder
from embedway.corpora.sinks.sink import Point, Sink
from embedway.corpora.source import RejectedRow, Row, RowBatch, Source
from embedway.corpora.state import JobState, JobStatus

REQUEST_TEXTS = 64
"""The most texts of one request. A row with more chunks is sent whole."""
REQUEST_CHARACTERS = 200_000
WRITE_POINTS = 8_192
WRITE_S = 5.0
"""Write to the sink after so many points, or this time."""
REMOVALS = 1_000
"""How many rows to remove at a time."""


class JobStopped(Exception):
    """The job ended before its end; the message says why. It can be resumed."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are embedded by one request."""

    points: Sequence[Sequence[Point]]
    """The points of each row."""
    changed: frozenset[str]
    """The ids of those rows that may be in the sink already."""


class Progress(msgspec.Struct, kw_only=True):
    """How far a run has come. One instance, which changes."""

    status: JobStatus
    bytes_read: int = 0
    total_bytes: int = 0


class _Written:
    """What is embedded and not yet written."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.vectors: list[Vectors] = []
        self.rows: list[str] = []
        self.changed: list[str] = []
        self.refused: list[RejectedRow] = []
        self.since_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether to write."""
        late = time.monotonic() - self.since_s >= WRITE_S
        return len(self.points) >= WRITE_POINTS or (late and bool(self.rows or self.refused))


class CorpusJob:
    """One run over a corpus."""

    def __init__(
        self,
        *,
        source: Source,
        sink: Sink,
        state: JobState,
        embedder: PatientEmbedder,
        rejects: Path,
        chunking: Chunking | None = None,
        token_offsets: TokenOffsets | None = None,
        parallel: int,
        budget_nano_usd: NanoUsd | None = None,
        sync: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Prepare a run.

        Args:
            source: The rows.
            sink: Where their vectors go; it is created already.
            state: What is known of the rows.
            embedder: Embeds texts.
            rejects: The file for the rows that cannot be embedded.
            chunking: How to cut rows; None to embed each whole.
            token_offsets: Finds the tokens to cut between, if rows are cut.
            parallel: How many requests to send at a time.
            budget_nano_usd: The most that this run may cost, in nano-USD; None for no limit.
            sync: Whether to remove the rows that the source does not have any more.
            on_progress: Called often with how far the run has come.
        """
        self._source = source
        self._sink = sink
        self._state = state
        self._embedder = embedder
        self._rejects = rejects
        self._chunking = chunking
        self._token_offsets = token_offsets
        self._parallel = parallel
        self._budget_nano_usd = budget_nano_usd
        self._sync = sync
        self._on_progress = on_progress
        self.is_stopping = False
        """Whether it sends no more requests."""
        self.progress = Progress(status=JobStatus(state="running"), total_bytes=source.total_bytes)

    def stop(self) -> None:
        """Finish the requests under way, write what they bring, and end."""
        self.is_stopping = True

    async def run(self) -> JobStatus:
        """Run to the end of the source; return what was done.

        Raises:
            JobStopped: It was stopped, or the budget is spent.
            SourceError: The source cannot be read.
            SinkError: The sink cannot be written.
            EmbedwayError: The model cannot be used.
        """
        started_s = time.monotonic()
        self._state.begin_run()
        self._rejects.unlink(missing_ok=True)
        written = _Written()
        try:
            results = map_in_order(
                self._groups(),
                self._embed,
                max_parallel=self._parallel,
                weigh=lambda _: 1,
                max_weight=4 * self._parallel,
            )
            async with aclosing(results):
                async for group, found in results:
                    self._take(group, found, written)
                    self._tell(started_s)
                    if written.is_due:
                        written = await self._write(written)
                    if self._is_over_budget:
                        self.is_stopping = True
            await self._write(written)
            self._check_complete()
            if self._sync:
                await self._remove_gone()
            return self._end("finished", started_s)
        except BaseException as error:
            self._end("stopped", started_s, problem=str(error))
            raise

    @property
    def _is_over_budget(self) -> bool:
        spent = self.progress.status.cost_nano_usd
        return self._budget_nano_usd is not None and spent >= self._budget_nano_usd

    def _check_complete(self) -> None:
        if self._is_over_budget and self.is_stopping:
            spent = money.format_usd(self.progress.status.cost_nano_usd)
            raise JobStopped(f"The budget is spent: this run has cost {spent} USD.")
        if self.is_stopping:
            raise JobStopped("Stopped.")

    async def _groups(self) -> AsyncGenerator[Group]:
        """Yield the rows to embed, those of one request together."""
        batches = self._source.read()
        points: list[Sequence[Point]] = []
        changed: set[str] = set()
        characters = texts = 0
        while not self.is_stopping:
            prepared = await asyncio.to_thread(self._prepare_next, batches)
            if prepared is None:
                break
            for row_points, is_changed in prepared:
                size = sum(len(each.text) for each in row_points)
                if points and (
                    texts + len(row_points) > REQUEST_TEXTS
                    or characters + size > REQUEST_CHARACTERS
                ):
                    yield Group(points=points, changed=frozenset(changed))
                    if self.is_stopping:
                        return
                    points, changed, characters, texts = [], set[str](), 0, 0
                points.append(row_points)
                characters, texts = characters + size, texts + len(row_points)
                if is_changed:
                    changed.add(row_points[0].row_id)
        if points and not self.is_stopping:
            yield Group(points=points, changed=frozenset(changed))

    def _prepare_next(
        self, batches: Iterator[RowBatch]
    ) -> list[tuple[Sequence[Point], bool]] | None:
        """Read some rows, and return the points of those to embed; None at the end."""
        batch = next(batches, None)
        if batch is None:
            return None
        states = self._state.classify(batch.rows)
        repeated = [
            RejectedRow(place="", id=row.id, reason="Another row has the same id.")
            for row, state in zip(batch.rows, states, strict=True)
            if state == "repeated"
        ]
        self._reject([*batch.rejected, *repeated])
        unchanged = states.count("unchanged")
        self._count(
            rows=len(batch.rows) + len(batch.rejected),
            unchanged=unchanged,
        )
        self.progress.bytes_read = batch.bytes_read
        return [
            (self._cut(row), state == "changed")
            for row, state in zip(batch.rows, states, strict=True)
            if state in {"new", "changed"}
        ]

    def _cut(self, row: Row) -> Sequence[Point]:
        if self._chunking is None or self._token_offsets is None:
            return whole_row(row)
        return cut_row(row, self._chunking, self._token_offsets)

    async def _embed(self, group: Group) -> tuple[Group, EmbeddedTexts]:
        texts = [each.text for row in group.points for each in row]
        return group, await self._embedder.embed(texts)

    def _take(self, group: Group, found: EmbeddedTexts, written: _Written) -> None:
        """Keep what was embedded until it is written. A row is written whole or not at all."""
        at = taken = 0
        for row in group.points:
            row_id = row[0].row_id
            indexes = range(at, at + len(row))
            at += len(row)
            reasons = [found.refused[each] for each in indexes if each in found.refused]
            embedded = len(row) - len(reasons)
            if row_id in group.changed:
                written.changed.append(row_id)
            if reasons:
                written.refused.append(RejectedRow(place="", id=row_id, reason=reasons[0]))
            else:
                written.points += row
                written.vectors.append(found.vectors[taken : taken + embedded])
                written.rows.append(row_id)
            taken += embedded
        self._count(tokens=found.tokens, cost_nano_usd=found.cost_nano_usd)

    async def _write(self, written: _Written) -> _Written:
        """Write to the sink, and note what is written."""
        await asyncio.to_thread(self._write_now, written)
        self._count(written=len(written.rows))
        return _Written()

    def _write_now(self, written: _Written) -> None:
        if written.points or written.changed:
            none = np.empty((0, 0), np.float32)
            vectors = np.concatenate(written.vectors) if written.vectors else none
            self._sink.replace(written.points, vectors, known_rows=written.changed)
        self._state.note_written(written.rows)
        self._state.note_rejected([each.id for each in written.refused if each.id is not None])
        self._reject(written.refused)

    def _reject(self, rows: Sequence[RejectedRow]) -> None:
        """Set rows aside in a file."""
        if not rows:
            return
        with self._rejects.open("ab") as file:
            file.writelines(msgspec.json.encode(each) + b"\n" for each in rows)
        self._count(rejected=len(rows))

    async def _remove_gone(self) -> None:
        """Remove the rows that this run has not seen."""
        while gone := await asyncio.to_thread(self._state.gone, REMOVALS):
            await asyncio.to_thread(self._sink.delete, gone)
            await asyncio.to_thread(self._state.forget, gone)
            self._count(removed=len(gone))

    def _count(self, **more: int) -> None:
        status = self.progress.status
        changed = {name: getattr(status, name) + count for name, count in more.items()}
        self.progress.status = msgspec.structs.replace(status, **changed)

    def _tell(self, started_s: float) -> None:
        self.progress.status = msgspec.structs.replace(
            self.progress.status, seconds=time.monotonic() - started_s
        )
        self._on_progress(self.progress)

    def _end(self, state: str, started_s: float, *, problem: str = "") -> JobStatus:
        status = msgspec.structs.replace(
            self.progress.status,
            state=state,
            problem=problem,
            seconds=time.monotonic() - started_s,
        )
        self.progress.status = status
        self._state.set("status", msgspec.json.encode(status).decode())
        return status
