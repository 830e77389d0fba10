"""`embedway corpus`: embeds tables and texts of any size into a vector store."""

import asyncio
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from filelock import FileLock, Timeout

from embedway.cli.corpus_report import format_duration, progress_bar, say_done, wait_reporter
from embedway.cli.setup import Setup
from embedway.cli.terminal import (
    AsJson,
    fail,
    note,
    print_record,
    print_table,
    reject,
    say,
    say_error,
)
from embedway.core import money
from embedway.core.errors import EmbedwayError
from embedway.core.request import Truncate
from embedway.corpora.chunks import Chunking
from embedway.corpora.embedding import PatientEmbedder
from embedway.corpora.job import CorpusJob, JobStopped, Progress
from embedway.corpora.locations import SourceError
from embedway.corpora.options import JobOptions, ModelOptions, absolute
from embedway.corpora.sinks.registry import KINDS, open_sink, parse_target
from embedway.corpora.sinks.sink import Collection, Sink, SinkError
from embedway.corpora.source import RowCondition, Source, SourceOptions
from embedway.corpora.state import JobState, JobStatus

if TYPE_CHECKING:
    from embedway.cli.corpus_model import CorpusModel

INTERRUPTED = 130
"""The exit status after Ctrl-C."""
FOLDER = "corpora"
"""The folder of jobs in the data folder."""
SAMPLE_TEXTS = 64
"""How many texts a dry run embeds to estimate the time, if that is free."""

commands = typer.Typer(
    help="Embed tables and texts of any size into a vector store.", no_args_is_help=True
)

_SINKS = ", ".join(f"`{each.example}`" for each in KINDS.values())


@commands.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a pattern such as 'docs/*.csv', or an s3:// address. Parquet, "
            "JSON lines, CSV, TSV or plain text; all but the first also with .gz.",
            metavar="SOURCE",
        ),
    ],
    to: Annotated[str, typer.Option(help=f"Where the vectors go: {_SINKS}.", metavar="SINK")],
    text: Annotated[
        str | None,
        typer.Option(help="The column with the text. Plain text needs none.", metavar="COLUMN"),
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(
            "--id", help="The column with an id. [file and number of the row]", metavar="COLUMN"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The model, as `embedway models list` shows it.")
    ] = "auto",
    url: Annotated[
        str | None,
        typer.Option(
            help="Ask this gateway, with the key in EMBEDWAY_API_KEY. [no gateway]", metavar="URL"
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(min=8, help="Cut each text into chunks of so many tokens.", metavar="TOKENS"),
    ] = None,
    overlap: Annotated[
        int, typer.Option(min=0, help="The tokens that a chunk shares with the one before it.")
    ] = 0,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Ask for shorter vectors.")] = None,
    truncate: Annotated[
        Truncate, typer.Option(help="Where to cut texts that are too long. [set them aside]")
    ] = "none",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only rows with COLUMN=VALUE; also !=, >, >=, < and <=.", metavar="CONDITION"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most so many rows.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop after so many USD.", metavar="USD")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=256, help="Requests to send at a time.")
    ] = None,
    sync: Annotated[
        bool,
        typer.Option("--sync", help="Also remove what the source does not have any more."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how much it is, and what it would cost.")
    ] = False,
) -> None:
    """Embed each row of SOURCE into SINK.

        embedway corpus run posts.csv --text body --id id --to parquet:vectors

        embedway corpus run 's3://bucket/docs/*.parquet' --text text --id id --chunk 256
        --overlap 32 --to qdrant:http://localhost:6333#docs

    Run it again, and it embeds only rows that are new or changed. It may end at any moment, also by
    `kill -9`: the next run goes on where it was, and each row is in SINK once. Rows that cannot be
    embedded are set aside in a file, with the reason.
    """
    if overlap and chunk is None:
        reject("--overlap is of no use without --chunk.")
    if chunk is not None and overlap >= chunk:
        reject(f"--overlap {overlap} is not less than --chunk {chunk}.")
    if budget is not None and _parse_usd(budget) is None:
        reject(f"--budget {budget!r} is no amount of USD, such as 12.50.")
    try:
        options = JobOptions(
            source=SourceOptions(
                place=absolute(source),
                text=text,
                id=id,
                where=tuple(map(RowCondition.parse, where or ())),
                limit=limit,
            ),
            model=ModelOptions(name=model, url=url, dimensions=dimensions, truncate=truncate),
            to=str(parse_target(to).absolute()),
            chunking=None if chunk is None else Chunking(tokens=chunk, overlap=overlap),
            parallel=parallel,
            budget_usd=budget,
            sync=sync,
        )
    except (SourceError, SinkError) as error:
        reject(error)
    setup = Setup()
    if dry_run:
        _run_safely(lambda: asyncio.run(_estimate(options, setup)))
    else:
        _run_safely(lambda: asyncio.run(_work(options, setup)))


@commands.command()
def status(as_json: AsJson = False) -> None:
    """List the jobs of this data folder, and how far each has come."""
    rows: list[dict[str, Any]] = []
    for path in sorted(_folder(Setup()).glob("job_*.db")):
        with closing(JobState(path)) as state:
            options, reached = _read_job(state)
            rows.append(
                {
                    "job": path.stem,
                    "state": reached.state,
                    "source": options.source.place,
                    "to": options.shown_sink,
                    "rows": state.count_written(),
                    "rejected": reached.rejected,
                    "tokens": reached.tokens,
                    "cost_usd": money.format_usd(reached.cost_nano_usd),
                    "problem": reached.problem,
                }
            )
    print_table(rows, empty="There are no jobs. Begin one: embedway corpus run", as_json=as_json)


@commands.command()
def resume(
    job: Annotated[str, typer.Argument(help="The job, as `embedway corpus status` shows it.")],
    budget: Annotated[
        str | None, typer.Option(help="Stop after so many more USD.", metavar="USD")
    ] = None,
) -> None:
    """Go on with a job, with the options that it was begun with."""
    setup = Setup()
    with closing(JobState(_find_job(setup, job))) as state:
        options, _ = _read_job(state)
    if budget is not None:
        options = msgspec.structs.replace(options, budget_usd=budget)
    _run_safely(lambda: asyncio.run(_work(options, setup)))


@commands.command()
def cancel(
    job: Annotated[str, typer.Argument(help="The job, as `embedway corpus status` shows it.")],
) -> None:
    """Forget a job. What is in its sink stays there."""
    path = _find_job(Setup(), job)
    for each in path.parent.glob(f"{path.stem}.*"):
        each.unlink()
    say(f"{job} is forgotten. What is in its sink stays there.")


async def _work(options: JobOptions, setup: Setup) -> None:
    """Run a job to its end, and say what was done."""
    from embedway.cli.corpus_model import open_model  # noqa: PLC0415  # the HTTP client: slow

    folder = _folder(setup)
    source = Source(options.source)
    with ExitStack() as parts:
        parts.enter_context(_only_run(folder, options.id))
        sink = parts.enter_context(closing(open_sink(parse_target(options.to))))
        async with open_model(setup, options.model) as opened:
            model = await _with_dimensions(opened)
            _prepare_sink(sink, model, options)
            state = parts.enter_context(closing(JobState(folder / f"{options.id}.db")))
            state.set("options", msgspec.json.encode(options).decode())
            rejects = folder / f"{options.id}.rejected.jsonl"
            report = parts.enter_context(progress_bar(source))
            budget_usd = _parse_usd(options.budget_usd)
            job = CorpusJob(
                source=source,
                sink=sink,
                state=state,
                embedder=PatientEmbedder(model.embed, on_wait=wait_reporter()),
                rejects=rejects,
                chunking=options.chunking,
                token_offsets=model.token_offsets,
                parallel=options.parallel or model.parallel,
                budget_nano_usd=None if budget_usd is None else int(budget_usd.scaleb(9)),
                sync=options.sync,
                on_progress=report,
            )
            interruptions = _stop_on_signals(job)
            try:
                done = await job.run()
            except (JobStopped, asyncio.CancelledError) as stopped:
                parts.close()
                say_done(job.progress.status, options, rejects)
                say_error(f"{stopped} To go on: embedway corpus resume {options.id}".lstrip())
                raise typer.Exit(INTERRUPTED if interruptions else 1) from None
    say_done(done, options, rejects)


@contextmanager
def _only_run(folder: Path, job: str) -> Generator[None]:
    """Make sure that no other process works on a job."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"{job}.lock", timeout=0):
            yield
    except Timeout:
        fail(f"Another process works on {job}. Wait until it ends, or stop it.")


def _stop_on_signals(job: CorpusJob) -> list[int]:
    """Let Ctrl-C and SIGTERM stop a job, the second one at once; return those that came."""
    came: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop(number: int) -> None:
        came.append(number)
        if job.is_stopping and task:
            task.cancel()
            return
        note("Stopping, after the requests under way. Another Ctrl-C ends at once.")
        job.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return came


async def _with_dimensions(model: "CorpusModel") -> "CorpusModel":
    """Find out the width of a model's vectors, if it is not known, by embedding a word."""
    if model.dimensions is not None:
        return model
    found = await PatientEmbedder(model.embed).embed(["width"])
    if found.refused:
        fail(found.refused[0])
    return msgspec.structs.replace(model, dimensions=found.vectors.shape[1])


def _prepare_sink(sink: Sink, model: "CorpusModel", options: JobOptions) -> None:
    """Make the collection, or check that its vectors can be compared with the new ones."""
    wanted = Collection(
        space=model.space,
        model=model.id,
        dimensions=model.dimensions or 0,
        chunking=str(options.chunking) if options.chunking else "whole rows",
        source=options.source.place,
    )
    known = sink.read_collection()
    if known is None:
        sink.create(wanted)
    elif reason := known.differs_from(wanted):
        raise SinkError(
            f"{options.shown_sink!r} holds vectors of {known.model}, and these do not belong "
            f"there: {reason}. Name another sink, or use the same model and options."
        )


async def _estimate(options: JobOptions, setup: Setup) -> None:
    """Say how many rows and tokens there are, and what they would cost and take."""
    from embedway.cli.corpus_model import open_model  # noqa: PLC0415  # the HTTP client: slow

    source = Source(options.source)
    rows = rejected = tokens = 0
    sample: list[str] = []
    async with open_model(setup, options.model) as model:
        with progress_bar(source) as report:
            seen = Progress(status=JobStatus(), total_bytes=source.total_bytes)
            for batch in source.read():
                rows += len(batch.rows)
                rejected += len(batch.rejected)
                tokens += sum(len(model.token_offsets(each.text)) for each in batch.rows)
                sample += [each.text for each in batch.rows[: SAMPLE_TEXTS - len(sample)]]
                seen.bytes_read = batch.bytes_read
                seen.status = JobStatus(rows=rows, tokens=tokens)
                report(seen)
        price = model.price_per_mtok_usd
        record: dict[str, object] = {
            "files": len(source.files),
            "rows": rows,
            "rejected": rejected,
            "tokens": tokens,
            "model": model.id,
            "space": model.space,
            "price_usd": money.format_usd(_price_of(tokens, price)) if price is not None else None,
        }
        if price == 0 and sample:
            started_s = time.perf_counter()
            await PatientEmbedder(model.embed).embed(sample)
            seconds = (time.perf_counter() - started_s) * rows / len(sample)
            record["time"] = f"about {format_duration(seconds)} on this machine"
    print_record(record)


def _read_job(state: JobState) -> tuple[JobOptions, JobStatus]:
    options = msgspec.json.decode(state.get("options") or "null", type=JobOptions)
    reached = msgspec.json.decode(state.get("status") or "{}", type=JobStatus)
    return options, reached


def _folder(setup: Setup) -> Path:
    return setup.settings.data_dir / FOLDER


def _find_job(setup: Setup, job: str) -> Path:
    path = _folder(setup) / f"{job}.db"
    if not path.is_file() or Path(job).name != job:
        fail(f"There is no job {job!r}. To see all: embedway corpus status")
    return path


def _price_of(tokens: int, price_per_mtok_usd: Decimal | None) -> int:
    """Return the price of tokens; 0 if none is known."""
    return money.cost(tokens, price_per_mtok=price_per_mtok_usd) if price_per_mtok_usd else 0


def _parse_usd(text: str | None) -> Decimal | None:
    try:
        amount = Decimal(text or "")
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _run_safely(work: Callable[[], None]) -> None:
    """Run a job, and say in one line what stops it."""
    try:
        work()
    except (SourceError, SinkError, EmbedwayError) as error:
        fail(error)
