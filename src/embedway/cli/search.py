"""`embedway search`: finds the rows of a corpus that are nearest to a question."""

import asyncio
from contextlib import closing
from typing import Annotated

import typer

from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, escape, fail, out, print_json, reject
from embedway.core.errors import EmbedwayError
from embedway.core.vectors import Vectors
from embedway.corpora.embedding import PatientEmbedder
from embedway.corpora.options import ModelOptions
from embedway.corpora.sinks.registry import open_sink, parse_target
from embedway.corpora.sinks.sink import Collection, Hit, SinkError

SHOWN_CHARACTERS = 240


def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    sink: Annotated[
        str,
        typer.Option(
            "--in", help="The sink, as in `embedway corpus run --to SINK`.", metavar="SINK"
        ),
    ],
    top: Annotated[int, typer.Option(min=1, max=1000, help="The most rows to show.")] = 5,
    url: Annotated[
        str | None,
        typer.Option(
            help="Ask this gateway, with the key in EMBEDWAY_API_KEY. [no gateway]", metavar="URL"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the rows of a corpus that are nearest to QUESTION.

        embedway search "how do I renew a licence" --in parquet:vectors

    The question is embedded by the model whose vectors the sink holds.
    """
    if not question.strip():
        reject("The question is empty.")
    try:
        target = parse_target(sink)
        with closing(open_sink(target)) as opened:
            collection = opened.read_collection()
            if collection is None:
                fail(f"{target.shown!r} holds nothing. Fill it with `embedway corpus run`.")
            vector = asyncio.run(_embed(question, collection, url, target.shown))
            hits = opened.search(vector, top=top)
    except (SinkError, EmbedwayError) as error:
        fail(error)
    _print(hits, as_json=as_json)


async def _embed(question: str, collection: Collection, url: str | None, sink: str) -> Vectors:
    from embedway.cli.corpus_model import open_model  # noqa: PLC0415  # the HTTP client: slow

    provider, _, name = collection.model.partition(":")
    options = ModelOptions(
        name=collection.model if url is None or provider != "gateway" else name,
        url=url,
        dimensions=collection.dimensions,
        input_type="query",
    )
    async with open_model(Setup(), options) as model:
        if model.space != collection.space:
            fail(
                f"{sink!r} holds vectors of the space {collection.space}, and {collection.model} "
                f"now has {model.space}. They cannot be compared: embed the corpus anew."
            )
        found = await PatientEmbedder(model.embed).embed([question])
    if found.refused:
        fail(found.refused[0])
    return found.vectors[0]


def _print(hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        print_json(hits)
        return
    for hit in hits:
        point = hit.point
        text = " ".join(point.text.split())
        shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
        out.print(f"[bold]{hit.score:.3f}[/bold]  {escape(point.id)}\n       {escape(shown)}")
    if not hits:
        out.print("The corpus is empty.")
