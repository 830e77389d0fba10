"""`embedway route`: shows which deployments a request would try, in which order, and why."""

from pathlib import Path
from typing import Annotated

import typer

from embedway.cli import options
from embedway.cli.embed import read_texts
from embedway.cli.gateway_client import SAMPLE, Url, open_client
from embedway.cli.terminal import AsJson, count_of, fail, out, print_json, print_table, say
from embedway.core.errors import InvalidRequest
from embedway.core.request import InputType, Preference
from embedway.pipeline.dry_run import DryRun, DryRunCandidate, DryRunExclusion

MAX_DIMENSIONS = 1_000_000
"""The most dimensions that can be typed; no model has so many."""


def route(
    model: Annotated[
        str, typer.Argument(help="The model, by any name that a request may use.")
    ] = "auto",
    texts: Annotated[
        list[str] | None, typer.Argument(help="The texts. [one short text]", metavar="TEXT")
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
            help="Whether deployments with quantised weights may serve the request.",
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
    """Show which deployments a request would try, in which order, why, and at what price.

    No provider is called and nothing is billed. If EMBEDWAY_API_KEY is set, the running gateway
    answers, because it knows latencies and failures; otherwise this command plans by itself.

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
    with open_client(url) as client:
        try:
            dry_run = client.dry_run(fields)
        except InvalidRequest as error:
            fail(error)  # status 1, not 2: the command line itself is right
    if as_json:
        print_json(dry_run)
        return
    _print(dry_run)


def _print(dry_run: DryRun) -> None:
    count = count_of(dry_run.items, "text")
    if dry_run.tokens is not None:
        tokens = count_of(dry_run.tokens, "token")
        count += f", {tokens}{' (an estimate)' if dry_run.tokens_estimated else ''}"
    say(f"{dry_run.model}: {count}, preference {dry_run.preference}\nspace {dry_run.space}\n")
    print_table(
        [_candidate_row(number, each) for number, each in enumerate(dry_run.candidates, 1)],
        empty="No deployment is proven to be of this space yet. A request waits for the proof.",
    )
    unproven = [_exclusion_row(each, "space, unproven") for each in dry_run.unproven]
    removed = [_exclusion_row(each, each.filter) for each in dry_run.removed]
    if unproven or removed:
        out.print()
        print_table([*unproven, *removed])


def _candidate_row(number: int, candidate: DryRunCandidate) -> dict[str, object]:
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


def _exclusion_row(exclusion: DryRunExclusion, filter: str) -> dict[str, object]:
    return {"left_out": exclusion.id, "by": filter, "why": exclusion.reason}
