"""`embedway route`: who would be asked for a request, in which order, and why."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from embedway.cli import options
from embedway.cli.embed import read_texts
from embedway.cli.gateway_client import SAMPLE, Url, open_client
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, escape, fail, out, print_table
from embedway.core.errors import InvalidRequest
from embedway.core.request import InputType, Preference
from embedway.pipeline.dry_run import DryRun, DryRunCandidate, DryRunExclusion

MAX_DIMENSIONS = 1_000_000
"""More than any model has."""


def route(
    model: Annotated[str, typer.Argument(help="By any name that a request may use.")] = "auto",
    texts: Annotated[
        list[str] | None, typer.Argument(help="The texts; a short one if left out.", metavar="TEXT")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            dir_okay=False,
            help="Read a text from each line; - for standard input.",
        ),
    ] = None,
    preference: Annotated[Preference, typer.Option(help="What to favour.")] = "balanced",
    allowed_providers: Annotated[
        list[str] | None,
        typer.Option("--allowed-provider", help="Only these providers. Repeatable."),
    ] = None,
    eu_native: Annotated[
        bool, typer.Option("--eu-native", help="Only deployments based and regulated in the EU.")
    ] = False,
    allow_quantization: Annotated[
        bool,
        typer.Option(
            "--allow-quantization/--no-allow-quantization",
            help="Whether deployments with quantised weights may serve it.",
        ),
    ] = True,
    zero_data_retention: Annotated[
        bool, typer.Option("--zero-data-retention", help="Only deployments that keep no data.")
    ] = False,
    dimensions: Annotated[
        int | None,
        options.whole_number(
            "--dimensions",
            least=1,
            most=MAX_DIMENSIONS,
            example=512,
            help="Shorten the vectors to N numbers.",
        ),
    ] = None,
    input_type: Annotated[InputType | None, typer.Option(help="What the vectors are for.")] = None,
    fallbacks: Annotated[
        list[str] | None,
        typer.Option("--fallback", help="A model to try next, of the same space. Repeatable."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show who would be asked for a request, in which order, why, and at what price.

    Nobody is asked and nothing is billed. If EMBEDWAY_API_KEY is set, the running gateway tells,
    which knows how fast providers are and who fails; else the plan is made here.

        embedway route bge-m3

        embedway route bge-m3 --file texts.txt --preference cost --eu-native

        embedway route --json | jq '.candidates[0].id'
    """
    fields: dict[str, object] = {
        "model": model,
        "input": read_texts([SAMPLE] if file is None and not texts else texts, file),
        "preference": preference,
        "allowed_providers": allowed_providers,
        "eu_native": eu_native,
        "allow_quantization": allow_quantization,
        "zdr": zero_data_retention,
        "dimensions": dimensions,
        "input_type": input_type,
        "fallbacks": fallbacks,
    }
    with open_client(url) as asked:
        try:
            told = asked.dry_run(fields)
        except InvalidRequest as refusal:
            fail(refusal)  # the command is understood: this is its answer
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        return
    _print(told)


def _print(told: DryRun) -> None:
    count = count_of(told.items, "text")
    if told.tokens is not None:
        tokens = count_of(told.tokens, "token")
        count += f", {tokens}{' (an estimate)' if told.tokens_estimated else ''}"
    out.print(
        f"{escape(told.model)}: {count}, preference {told.preference}\nspace {escape(told.space)}\n"
    )
    nobody = "Nobody is proven to be of this space yet: a request waits while that is found out."
    rows = [_row(number, each) for number, each in enumerate(told.candidates, 1)]
    print_table(rows, empty=nobody, as_json=False)
    unproven = [_left_out(each, "space, unproven") for each in told.unproven]
    removed = [_left_out(each, each.filter) for each in told.removed]
    if unproven or removed:
        out.print()
        print_table([*unproven, *removed], empty="", as_json=False)


def _row(number: int, candidate: DryRunCandidate) -> dict[str, object]:
    price = candidate.price_per_mtok_usd
    return {
        "order": number,
        "id": candidate.id,
        "tokens": candidate.tokens,
        "calls": candidate.calls,
        "usd_per_mtok": "unknown" if price is None else f"{price:g}",
        "cost_usd": candidate.cost_usd or "unknown",
        "ms": round(candidate.latency_s * 1000),
        "health": candidate.health,
        "why": candidate.reason,
    }


def _left_out(each: DryRunExclusion, filter: str) -> dict[str, object]:
    return {"left_out": each.id, "by": filter, "why": each.reason}
