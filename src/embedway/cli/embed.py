"""`embedway embed`: embeds texts here and now, without a server, a key or a bill."""

import asyncio
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress

from embedway.catalog.model import Model
from embedway.cli.terminal import err, fail, fetch_weights, find_model, load_settings
from embedway.cli.vector_files import Write, refusal, writer
from embedway.core.batch import Batch
from embedway.core.request import Truncate
from embedway.limits.tokens import fit

if TYPE_CHECKING:
    from embedway.local.engine import LocalEngine

CHUNK_TEXTS = 512
"""Embedded and written at a time."""


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="The texts; none to read them.", metavar="TEXT")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="Read a text from each line."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a .npy, .parquet or .jsonl file instead."),
    ] = None,
    model: Annotated[str, typer.Option(help="As `embedway models list` shows it.")] = "auto",
    truncate: Annotated[
        Truncate, typer.Option(help="Cut texts that are too long at their end or start.")
    ] = "none",
) -> None:
    """Embed texts and print a line of JSON for each, or write a file.

    Texts come from the arguments, from the lines of --file, or from the lines of standard input.

        embedway embed "The quick brown fox" "A lazy dog"

        embedway embed --file texts.txt --output vectors.parquet

        cat texts.txt | embedway embed > vectors.jsonl

    Order is kept: the first vector is the first text's. No server is needed, and nothing is billed.
    """
    from embedway.app import load_engine  # noqa: PLC0415  # other commands do without it

    settings = load_settings()
    found = find_model(model, settings)
    if output and (reason := refusal(output)):
        fail(f"Cannot write {str(output)!r}: {reason}.")
    lines = read_texts(texts, file)
    fetch_weights(found, settings)
    with (
        writer(output, rows=len(lines), dimensions=found.dimensions or 0) as write,
        # Closed also when interrupted: Python must not end while the model runs.
        closing(load_engine(found, settings)) as engine,
    ):
        asyncio.run(_embed(engine, found, lines, truncate, write))


async def _embed(
    engine: "LocalEngine", model: Model, lines: list[str], truncate: Truncate, write: Write
) -> None:
    hidden = len(lines) <= CHUNK_TEXTS or not err.is_terminal
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, disable=hidden) as progress:
        task = progress.add_task("Embedding", total=len(lines))
        for start in range(0, len(lines), CHUNK_TEXTS):
            texts = lines[start : start + CHUNK_TEXTS]
            ids = await engine.encode(texts)
            if truncate == "none":
                _check_lengths(ids, model, first=start + 1)
            fitting = fit(ids, model=model, truncate=truncate)
            batch = Batch(model=model.id, items=fitting, tokens=[len(item) for item in fitting])
            write(start, texts, (await engine.embed(batch)).vectors)
            progress.advance(task, len(texts))


def read_texts(texts: list[str] | None, file: Path | None) -> list[str]:
    """Those given, or the lines of `file`, or of standard input: `-`, or if there is neither."""
    if texts and file:
        fail("Give texts or --file, not both.")
    if not texts and file is None and sys.stdin.isatty():
        fail("Nothing to embed. Give texts, --file, or pipe lines in.")
    if any(not _is_unicode(text) for text in texts or ()):
        fail("The texts are not UTF-8. Set the terminal to UTF-8, or use --file.")
    lines = texts or _read(file)
    for number, line in enumerate(lines, 1):
        if not line:
            fail(f"Text {number} is empty. Take it out: every text gets a vector of its own.")
    return lines


def _is_unicode(argument: str) -> bool:
    # What is not, Python hands on as lone surrogates.
    return not re.search("[\ud800-\udfff]", argument)


def _read(file: Path | None) -> list[str]:
    raw = file.read_bytes() if file and str(file) != "-" else sys.stdin.buffer.read()
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows put a mark first
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fail(
            f"The texts are not UTF-8: line {line} holds the byte 0x{raw[error.start]:02x}. "
            "Convert them first, for instance with iconv."
        )
    if not text:
        fail("Nothing to embed: there is no text in it.")
    # Not splitlines(), which also cuts at form feeds and Unicode's own separators.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _check_lengths(ids: list[list[int]], model: Model, *, first: int) -> None:
    for number, item in enumerate(ids, first):
        if len(item) > (model.max_item_tokens or len(item)):
            fail(
                f"Text {number} has {len(item)} tokens, more than the {model.max_item_tokens} that "
                f"{model.id} takes. Shorten or split it, or have it cut: --truncate end."
            )
