"""Works on one batch, from wherever it is to its end, and stores how far it has come.

Lines are answered many at a time and written in their order. What is written since the last
checkpoint is lost if the process dies: the next one begins at that checkpoint.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from embedway.batches.answer import BatchEnding, Ending, LineAnswerer, LineResult
from embedway.batches.job import BatchJob, BatchProblem, BatchStatus
from embedway.batches.lines import (
    InputLine,
    LineInvalid,
    duplicate_error,
    parse_request,
    read_lines,
)
from embedway.batches.store import LEASE_MS, BatchStore, LeaseLost
from embedway.concurrency.in_order import map_in_order
from embedway.core.errors import EmbedwayError, FilesUnavailable, NotFound, StorageUnavailable
from embedway.files.file import Segment, StoredFile
from embedway.files.store import FileStore
from embedway.wire.decode import decode_body

MAX_LINES = 50_000
MAX_INPUTS = 50_000
"""The most items of all lines together. Both are OpenAI's limits."""
MAX_PROBLEMS = 100
"""The most lines at fault to report."""
PARALLEL = 32
"""How many lines of a batch to send at a time."""
ROOM = 32 * 2**20
"""Roughly how many bytes the lines under way and their results may take."""
MAX_UNDER_WAY = 512
"""The most lines under way."""
ITEM_BYTES = 2**13
"""Roughly the size of one item's vector in a result."""
CHECKPOINT_LINES = 512
CHECKPOINT_BYTES = 8 * 2**20
CHECKPOINT_S = 2.0
"""Write a checkpoint after so many lines, so many bytes of results, or this time."""
RENEW_S = LEASE_MS / 1000 / 5
RETRY_S = 1.0
"""The wait before something is written again that could not be written."""

_ENDED: dict[Ending, BatchStatus] = {"batch_expired": "expired", "batch_cancelled": "cancelled"}

Written = TypeVar("Written")

_log = structlog.get_logger("embedway.batches")


class BatchRun:
    """One process's work on one batch, on which it holds the lease."""

    def __init__(
        self,
        batch: BatchJob,
        *,
        store: BatchStore,
        files: FileStore,
        answerer: LineAnswerer,
        now_ms: Callable[[], int],
        max_line_bytes: int,
        max_items: int,
    ) -> None:
        self.batch = batch
        self._store = store
        self._files = files
        self._answerer = answerer
        self._now_ms = now_ms
        self._max_line_bytes = max_line_bytes
        self._max_items = max_items
        self._ending = BatchEnding()
        self._results = ResultBuffer()
        # A process that died may have charged lines after the checkpoint: as many as it may have
        # had in hand.
        first = batch.next_line
        self._perhaps_charged = range(first, first + CHECKPOINT_LINES + 2 * MAX_UNDER_WAY)
        if "in_progress" not in batch.reached_ms:
            self._perhaps_charged = range(0)

    async def run(self) -> None:
        """Work until the batch ends, `stop` is called, or another process has taken the batch."""
        work = asyncio.ensure_future(self._work())
        renewal = asyncio.ensure_future(self._keep_lease(work))
        try:
            await asyncio.wait([work])
        finally:
            renewal.cancel()
            work.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
        if work.cancelled():
            _log.warning("batch taken over", batch=self.batch.id)
            return
        failure = work.exception()
        if failure is not None:
            await self._release_after(failure)

    def stop(self) -> None:
        """Finish the lines under way, and leave the rest to other processes."""
        self._ending.end(None)

    async def _release_after(self, failure: BaseException) -> None:
        """Let another process try again shortly what failed here."""
        if isinstance(failure, LeaseLost):
            _log.warning("batch taken over", batch=self.batch.id)
            return
        if not isinstance(failure, FilesUnavailable | StorageUnavailable):
            _log.error("batch interrupted", batch=self.batch.id, exc_info=failure)
        with suppress(StorageUnavailable):  # then its lease ends by itself
            await self._store.release(self.batch.id, after_ms=LEASE_MS)

    async def _keep_lease(self, work: asyncio.Future[None]) -> None:
        while True:
            if self._now_ms() >= self.batch.expires_ms:
                self._ending.end("batch_expired")
            try:
                status = await self._store.renew(self.batch.id)
            except LeaseLost:
                work.cancel()
                return
            except StorageUnavailable:
                pass  # the batch goes on as long as nobody else takes it
            else:
                if status == "cancelling":
                    self._ending.end("batch_cancelled")
            await asyncio.sleep(RENEW_S)

    async def _work(self) -> None:
        if self.batch.status == "validating":
            await self._validate()
        if self.batch.status in {"in_progress", "cancelling"}:
            try:
                await self._answer_all()
            except NotFound as error:
                await self._fail(error)
                return
            except FilesUnavailable:
                if self._ending.reason is None:
                    raise  # another try may find the input file whole
        if self._ending.is_stopping and self._ending.reason is None:
            await self._store.release(self.batch.id)
            return
        if self.batch.status != "failed":
            await self._finish("completed")

    async def _fail(self, error: NotFound) -> None:
        """End a batch whose input file is gone. What is answered stays."""
        self.batch = msgspec.structs.replace(self.batch, errors=(_missing_file(error),))
        await self._finish("failed")

    async def _validate(self) -> None:
        """Check every line, and count them."""
        problems: list[BatchProblem] = []
        total = inputs = 0
        try:
            await self._files.get(self.batch.project_id, self.batch.input_file_id)
            seen: set[str] = set()
            async with aclosing(self._lines()) as lines:
                async for line in lines:
                    total += 1
                    try:
                        inputs += await self._check(line, seen)
                    except LineInvalid as error:
                        problems.append(error.problem)
                    if total > MAX_LINES or inputs > MAX_INPUTS or len(problems) >= MAX_PROBLEMS:
                        break
        except LineInvalid as error:
            problems.append(error.problem)
        except NotFound as error:
            problems.append(_missing_file(error))
        problems += _count_problems(total, inputs, has_others=bool(problems))
        self.batch = msgspec.structs.replace(self.batch, total=total, errors=tuple(problems))
        await self._reach("failed" if problems else "in_progress")

    async def _check(self, line: InputLine, seen: set[str]) -> int:
        """Check one line, and return how many items it has.

        What is wrong with the body of a request is reported when that is sent, as for any request.

        Raises:
            LineInvalid: It is no request.
        """
        request = parse_request(line)
        if request.custom_id in seen:
            raise duplicate_error(line)
        seen.add(request.custom_id)
        await asyncio.sleep(0)  # a piece of the file has thousands of lines
        try:
            return len((await decode_body(bytes(request.body), max_items=self._max_items)).items)
        except EmbedwayError:
            return 1

    async def _answer_all(self) -> None:
        """Answer all lines that are left, or say why they get no answer."""
        if self.batch.status == "cancelling":
            self._ending.end("batch_cancelled")
        await self._files.get(self.batch.project_id, self.batch.input_file_id)
        numbers = {
            id: await self._store.count_segments(id)
            for id in (self.batch.output_file_id, self.batch.error_file_id)
        }
        answers = map_in_order(
            self._lines(),
            self._answer,
            max_parallel=PARALLEL,
            weigh=_weigh,
            max_weight=ROOM,
        )
        async with aclosing(answers):
            async for result in answers:
                if result is None:
                    break
                self._results.add(result)
                if self._results.is_due:
                    await self._save(numbers)
        await self._save(numbers)

    async def _answer(self, line: InputLine) -> LineResult | None:
        return await self._answerer.answer(
            self.batch,
            line,
            may_be_charged=line.number in self._perhaps_charged,
            ending=self._ending,
        )

    def _lines(self) -> AsyncGenerator[InputLine]:
        batch = self.batch
        return read_lines(
            self._files.read(batch.input_file_id, start=batch.next_byte),
            number=batch.next_line,
            start=batch.next_byte,
            max_bytes=self._max_line_bytes,
        )

    async def _save(self, numbers: dict[str, int]) -> None:
        """Write a checkpoint: the results so far, and where to go on."""
        results, self._results = self._results, ResultBuffer()
        if results.last is None:
            return
        batch = msgspec.structs.replace(
            self.batch,
            completed=self.batch.completed + results.answered,
            failed=self.batch.failed + results.failed,
            tokens=self.batch.tokens + results.tokens,
            next_line=results.last.number + 1,
            next_byte=results.last.end_byte,
        )
        segments: list[Segment] = []
        for file_id, content in (
            (batch.output_file_id, results.output),
            (batch.error_file_id, results.errors),
        ):
            if content:
                write = partial(
                    self._files.write_segment, file_id, numbers[file_id], b"".join(content)
                )
                segments.append(await _persist(write))
                numbers[file_id] += 1
        await _persist(partial(self._store.save, batch, segments=segments))
        self.batch = batch

    async def _reach(self, status: BatchStatus, *, files: Collection[StoredFile] = ()) -> None:
        batch = self._store.with_status(self.batch, status)
        await _persist(partial(self._store.save, batch, files=list(files)))
        self.batch = batch

    async def _finish(self, status: BatchStatus) -> None:
        """Make the files of results visible, and end the batch."""
        if self._ending.reason is not None:
            status = _ENDED[self._ending.reason]
        elif status == "completed":
            await self._reach("finalizing")
        now_ms, batch = self._now_ms(), self.batch
        expires_s = batch.output_expires_s
        files: list[StoredFile] = []
        for id, kind in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
            if size := await self._store.count_bytes(id):
                files.append(
                    StoredFile(
                        id=id,
                        project_id=batch.project_id,
                        name=f"{batch.id}_{kind}.jsonl",
                        purpose="batch_output",
                        bytes=size,
                        state="ready",
                        created_ms=now_ms,
                        expires_ms=None if expires_s is None else now_ms + 1000 * expires_s,
                    )
                )
        await self._reach(status, files=files)
        _log.info(
            "batch finished",
            batch=batch.id,
            status=status,
            completed=batch.completed,
            failed=batch.failed,
        )
        with suppress(FilesUnavailable, StorageUnavailable):  # they go when the files go
            for id in (batch.output_file_id, batch.error_file_id):
                await self._files.remove_unused_segments(id)


def _weigh(line: InputLine) -> int:
    items = line.content.count(b'"') // 2  # or fewer
    return max(len(line.content) + ITEM_BYTES * items, ROOM // MAX_UNDER_WAY)


def _missing_file(error: NotFound) -> BatchProblem:
    return BatchProblem(code="file_not_found", message=error.message, param="input_file_id")


def _count_problems(total: int, inputs: int, *, has_others: bool) -> list[BatchProblem]:
    """Return what is wrong with the number of lines and items."""
    if not total and not has_others:
        return [BatchProblem(code="empty_file", message="The input file has no requests.")]
    if total > MAX_LINES:
        message = f"The input file has more than {MAX_LINES} requests. Split it."
        return [BatchProblem(code="too_many_tasks", message=message)]
    if inputs > MAX_INPUTS:
        message = f"The requests have more than {MAX_INPUTS} inputs together. Split the file."
        return [BatchProblem(code="too_many_inputs", message=message)]
    return []


async def _persist(write: Callable[[], Awaitable[Written]]) -> Written:
    """Write, again and again while the database or the object store is away."""
    while True:
        try:
            return await write()
        except (FilesUnavailable, StorageUnavailable):
            await asyncio.sleep(RETRY_S)


class ResultBuffer:
    """The results since the last checkpoint."""

    def __init__(self) -> None:
        self.output: list[bytes] = []
        self.errors: list[bytes] = []
        self.tokens = 0
        self.last: InputLine | None = None
        """The last line with a result; None if there is none."""
        self._bytes = 0
        self._due_s = asyncio.get_running_loop().time() + CHECKPOINT_S

    @property
    def answered(self) -> int:
        """How many lines have an answer."""
        return len(self.output)

    @property
    def failed(self) -> int:
        """How many lines have none."""
        return len(self.errors)

    @property
    def is_due(self) -> bool:
        """Whether to write a checkpoint."""
        return (
            self._bytes >= CHECKPOINT_BYTES
            or self.answered + self.failed >= CHECKPOINT_LINES
            or asyncio.get_running_loop().time() >= self._due_s
        )

    def add(self, result: LineResult) -> None:
        """Add the result of the next line."""
        (self.output if result.is_answered else self.errors).append(result.content)
        self.tokens += result.tokens
        self.last = result.line
        self._bytes += len(result.content)
