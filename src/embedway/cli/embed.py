"""`embedway embed`: embeds texts here and now, without a server or a key of one."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from embedway.catalog.model import Model
from embedway.cli.exports import refusal
from embedway.cli.lengths import too_long
from embedway.cli.options import is_unicode
from embedway.cli.terminal import (
    LIST_MODELS,
    err,
    escape,
    fail,
    fetch_weights,
    load_providers,
    local_model,
    progress,
    reject,
)
from embedway.cli.vector_files import SUFFIXES, Write, writer
from embedway.config import settings as config
from embedway.config.models import build_catalog
from embedway.config.settings import LoadedSettings, Settings
from embedway.core.batch import Batch
from embedway.core.request import Truncate
from embedway.core.vectors import Vectors
from embedway.tokenizing.truncate import fit_to_limits

STDIN = "-"
CHUNK_TEXTS = 512
"""Embedded and written at a time."""


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="The texts; if left out, lines are read.", metavar="TEXT"),
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
        Truncate, typer.Option(help="Cut texts that are too long at their end or start.")
    ] = "none",
) -> None:
    """Embed texts and print a line of JSON for each, or write a file.

    Texts come from the arguments, from the lines of --file, or from the lines of standard input.

        embedway embed "The quick brown fox" "A lazy dog"

        embedway embed --file texts.txt --output vectors.parquet

        cat texts.txt | embedway embed > vectors.jsonl

    Order is kept: the first vector is the first text's. No server is needed. A model of a provider
    is asked there with the provider's own key, and billed by it; what runs here costs nothing.
    """
    loaded = config.load_settings()
    if output and (reason := refusal(output, SUFFIXES)):
        reject(f"Cannot write --output {str(output)!r}: {reason}.")
    lines = read_texts(texts, file)
    if here := local_model(model, loaded.settings):
        _embed_here(here, loaded.settings, lines, truncate, output)
    else:
        _embed_there(model, loaded, lines, truncate, output)


def _embed_here(
    model: Model, settings: Settings, lines: list[str], truncate: Truncate, output: Path | None
) -> None:
    """Embeds `lines` with a model that runs in this process."""
    from embedway.config.engines import load_engine  # noqa: PLC0415  # other commands do without it

    fetch_weights(model, settings)

    async def embed(texts: list[str], first: int) -> Vectors:
        ids = await engine.encode(texts)
        if truncate == "none":
            _check_lengths(ids, model, first=first)
        fitting = fit_to_limits(ids, model=model, truncate=truncate)
        batch = Batch(model=model.id, items=fitting, tokens=[len(item) for item in fitting])
        return (await engine.embed(batch)).vectors

    # Closed also when interrupted: Python must not end while the model runs.
    with closing(load_engine(model, settings)) as engine:
        asyncio.run(_written(embed, lines, output))


def _embed_there(
    name: str, loaded: LoadedSettings, lines: list[str], truncate: Truncate, output: Path | None
) -> None:
    """Embeds `lines` with a model that a provider runs."""
    from embedway.cli import remote  # noqa: PLC0415  # the HTTP client: slow

    declared = load_providers(loaded)
    catalog = build_catalog(loaded.settings, declared)
    named = catalog.find(name)
    if named is None:
        fail(catalog.unknown_message(name, otherwise=LIST_MODELS))
    served = remote.deployment(name, named, catalog, declared, loaded.settings)
    place = next(each for each in declared if each.name == served.provider)
    err.print(
        f"[dim]Asking {escape(served.id)}, which bills it; it is in no usage of the gateway.[/dim]"
    )

    async def embed_all() -> None:
        model = remote.Remote(place, served, timeout_s=loaded.settings.request_timeout_s)
        try:
            await _written(partial(model.embed, truncate), lines, output)
        finally:
            await model.aclose()

    try:
        asyncio.run(embed_all())
    except (remote.CannotEmbed, ImportError, ValueError) as error:
        fail(error)


async def _written(
    embed: Callable[[list[str], int], Awaitable[Vectors]], lines: list[str], output: Path | None
) -> None:
    """Writes the vectors of `lines`; `embed` is given some of them and the number of the first."""
    with ExitStack() as opened, progress(disable=len(lines) <= CHUNK_TEXTS) as bar:
        task = bar.add_task("Embedding", total=len(lines))
        write: Write | None = None
        for start in range(0, len(lines), CHUNK_TEXTS):
            texts = lines[start : start + CHUNK_TEXTS]
            vectors = await embed(texts, start + 1)
            if write is None:  # the width of a provider's vectors may not be known before
                to = writer(output, rows=len(lines), dimensions=vectors.shape[1])
                write = opened.enter_context(to)
            write(start, texts, vectors)
            bar.advance(task, len(texts))


def read_texts(texts: list[str] | None, file: Path | None) -> list[str]:
    """Those given, or the lines of `file`, or of standard input: `-`, or if there is neither."""
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
    lines = texts or _read(file)
    for number, line in enumerate(lines, 1):
        if not line:
            fail(f"Text {number} is empty. Take it out: every text gets a vector of its own.")
    return lines


def _read(file: Path | None) -> list[str]:
    raw = file.read_bytes() if file and str(file) != STDIN else sys.stdin.buffer.read()
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
        if reason := too_long(len(item), model, number=number):
            fail(reason)
