"""`embedway providers verify`: find out where a provider's row is wrong."""

import asyncio

import msgspec
import typer

from embedway.cli.administration import Yes, confirm
from embedway.cli.terminal import AsJson, err, fail, print_table
from embedway.cli.trials import ModelName, ProviderName, cost_usd, explain, provider_and_model
from embedway.config import settings as config
from embedway.core.provider_error import ProviderError


def verify(
    name: ProviderName,
    model: ModelName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare a provider with what this gateway knows of it, by about ten calls that it bills.

    Shows the cost first, and asks at a terminal. The exit status is 1 if something differs.

        embedway providers verify openai

        embedway providers verify deepinfra --model bge-m3 --yes
    """
    loaded = config.load_settings()
    declared, served = provider_and_model(loaded, name, model, command="verify")
    from embedway.cli.verification import Verification  # noqa: PLC0415  # the HTTP client: slow

    verification = Verification(declared, served, timeout_s=loaded.settings.request_timeout_s)
    tokens = verification.tokens
    err.print(
        f"{declared.name} will bill at most about {tokens} tokens of {served.upstream_name}: "
        f"{cost_usd(served, tokens)} USD.",
        markup=False,
    )
    confirm("Verify it?", yes=yes)
    try:
        with err.status(f"Asking {declared.url}"):
            findings = asyncio.run(verification.run())
    except (ProviderError, ImportError, ValueError) as error:
        fail(f"{declared.name}: {explain(declared, served.upstream_name, error)}")
    print_table([msgspec.structs.asdict(each) for each in findings], empty="", as_json=as_json)
    if any(each.outcome == "differs" for each in findings):
        raise typer.Exit(1)
