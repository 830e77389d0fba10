"""`embedway embed`: embeds texts at once, without a server or one of its keys."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from embedway.catalog.model import Model
from embedway.cli.exports import VECTOR_SUFFIXES, VectorWriter, open_vector_writer, output_error
from embedway.cli.lengths import check_lengths
from embedway.cli.options import is_unicode
from embedway.cli.setup import Setup, fetch_weights
from embedway.cli.terminal import LIST_MODELS, err, escape, fail, progress, reject
from embedway.config.settings import Settings
from embedway.core.batch import Batch
from embedway.core.request import Truncate
from embedway.core.vectors import Vectors
from embedway.tokenizing.truncate import fit_to_limits

STDIN = "-"
CHUNK_TEXTS = 512
"""The most texts to embed and write at a time."""


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="The texts. [lines of standard input]", metavar="TEXT"),
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
    model: Annotated[
        str, typer.Option(help="The model, as `embedway models list` shows it.")
    ] = "auto",
    truncate: Annotated[
        Truncate, typer.Option(help="Where to cut texts that are too long.")
    ] = "none",
) -> None:
    """Embed texts and print a line of JSON for each, or write a file.

    Texts come from the arguments, from the lines of --file, or from the lines of standard input.

        embedway embed "The quick brown fox" "A lazy dog"

        embedway embed --file texts.txt --output vectors.parquet

        cat texts.txt | embedway embed > vectors.jsonl

    Order is kept: the first vector is the first text's. No server is needed. A provider's model is
    called with the provider's own key, and the provider bills it; a local model costs nothing.
    """
    setup = Setup()
    if output and (reason := output_error(output, VECTOR_SUFFIXES)):
        reject(f"Cannot write --output {str(output)!r}: {reason}.")
    lines = read_texts(texts, file)
    if local_model := setup.find_local_model(model):
        _embed_locally(local_model, setup.settings, lines, truncate, output)
    else:
        _embed_at_provider(model, setup, lines, truncate, output)


def _embed_locally(
    model: Model, settings: Settings, lines: list[str], truncate: Truncate, output: Path | None
) -> None:
    """Embed `lines` with a model in this process."""
    from embedway.config.engines import load_engine  # noqa: PLC0415  # slow, and few commands need it

    fetch_weights(model, settings)

    async def embed(texts: list[str], first: int) -> Vectors:
        ids = await engine.encode(texts)
        if truncate == "none":
            check_lengths(ids, model, first=first)
        fitting = fit_to_limits(ids, model=model, truncate=truncate)
        batch = Batch(model=model.id, items=fitting, tokens=[len(item) for item in fitting])
        return (await engine.embed(batch)).vectors

    # Close it also when interrupted: Python must not end while the model runs.
    with closing(load_engine(model, settings)) as engine:
        asyncio.run(_write_vectors(embed, lines, output))


def _embed_at_provider(
    name: str, setup: Setup, lines: list[str], truncate: Truncate, output: Path | None
) -> None:
    """Embed `lines` with a provider's model."""
    from embedway.cli import remote  # noqa: PLC0415  # the HTTP client: slow

    resolved = setup.catalog.find(name)
    if resolved is None:
        fail(setup.catalog.unknown_message(name, otherwise=LIST_MODELS))
    target = remote.choose_target(name, resolved, setup)
    err.print(
        f"[dim]Calling {escape(target.deployment.id)}, which bills it; the gateway's usage does "
        "not include it.[/dim]"
    )

    async def embed_all() -> None:
        async with remote.open_sender(setup.settings, [target.provider]) as sender:
            model = remote.RemoteModel(sender, target)
            await _write_vectors(partial(model.embed, truncate), lines, output)

    try:
        asyncio.run(embed_all())
    except ValueError as error:
        fail(error)


async def _write_vectors(
    embed: Callable[[list[str], int], Awaitable[Vectors]], lines: list[str], output: Path | None
) -> None:
    """Embed and write `lines` chunk by chunk; `embed` takes a chunk and its first line's number."""
    with ExitStack() as exit_stack, progress(disable=len(lines) <= CHUNK_TEXTS) as bar:
        task = bar.add_task("Embedding", total=len(lines))
        write: VectorWriter | None = None
        for start in range(0, len(lines), CHUNK_TEXTS):
            texts = lines[start : start + CHUNK_TEXTS]
            vectors = await embed(texts, start + 1)
            if write is None:  # only now is the width known for certain
                writer = open_vector_writer(output, rows=len(lines), dimensions=vectors.shape[1])
                write = exit_stack.enter_context(writer)
            write(start, texts, vectors)
            bar.advance(task, len(texts))


def read_texts(texts: list[str] | None, file: Path | None) -> list[str]:
    """Return `texts`, or else the lines of `file`, or of standard input for `-` or neither.

    Exits with status 2 for both or for text that is not UTF-8, and with 1 for an empty text.
    """
    if texts and file:
        reject(f"Give texts or --file {str(file)!r}, not both.")
    if file and str(file) != STDIN and not file.exists():
        reject(f"--file {str(file)!r} does not exist.")
    if not texts and file is None and sys.stdin.isatty():
        reject(
            "Nothing to embed. Give texts, --file, or pipe lines in, as in: "
            'embedway embed "The quick brown fox"'
        )
    if any(not is_unicode(text) for text in texts or ()):
        reject("The texts are not UTF-8. Set the terminal to UTF-8, or use --file.")
    lines = texts or _read_lines(file)
    for number, line in enumerate(lines, 1):
        if not line:
            fail(f"Text {number} is empty. Take it out: every text gets a vector of its own.")
    return lines


def _read_lines(file: Path | None) -> list[str]:
    raw = file.read_bytes() if file and str(file) != STDIN else sys.stdin.buffer.read()
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fail(
            f"The texts are not UTF-8: line {line} holds the byte 0x{raw[error.start]:02x}. "
            "Convert them first, for instance with iconv."
        )
    if not text:
        fail("Nothing to embed: the input is empty.")
    # Not splitlines(), which also cuts at form feeds and Unicode line separators.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
