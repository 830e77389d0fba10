"""`embedway providers verify`: finds out where a provider's row is wrong."""

import asyncio

import typer

from embedway.cli.administration import Yes, confirm
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, err, fail, note, print_table
from embedway.cli.trials import (
    ModelName,
    ProviderName,
    choose_deployment,
    explain_failure,
    format_cost_usd,
)
from embedway.core.provider_error import ProviderError


def verify(
    name: ProviderName,
    model: ModelName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare a provider with what this gateway expects of it, by about ten calls that it bills.

    The command shows the cost first, and asks at a terminal. The exit status is 1 if something
    differs.

        embedway providers verify openai

        embedway providers verify deepinfra --model bge-m3 --yes
    """
    setup = Setup()
    provider, deployment = choose_deployment(setup, name, model, command="verify")
    from embedway.cli.verification import Verification  # noqa: PLC0415  # the HTTP client: slow

    verification = Verification(provider, deployment, timeout_s=setup.settings.request_timeout_s)
    tokens = verification.tokens
    note(
        f"{provider.name} will bill at most about {tokens} tokens of {deployment.upstream_name}: "
        f"{format_cost_usd(deployment, tokens)} USD."
    )
    confirm("Verify it?", yes=yes)
    try:
        with err.status(f"Calling {provider.url}"):
            findings = asyncio.run(verification.run())
    except (ProviderError, ImportError, ValueError) as error:
        fail(f"{provider.name}: {explain_failure(provider, deployment.upstream_name, error)}")
    print_table(findings, as_json=as_json)
    if any(each.outcome == "differs" for each in findings):
        raise typer.Exit(1)
