"""Tries providers by sending one short text with each of their keys, which they bill."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
import typer

from embedway.catalog import catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired
from embedway.catalog.model import Model
from embedway.cli.setup import Setup
from embedway.cli.terminal import fail
from embedway.config.providers import incomplete_providers, provider_offers
from embedway.core import money, vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.clock import today
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.providers.provider_config import ProviderConfig
from embedway.routing.resolve import resolve

TEXT = "The quick brown fox jumps over the lazy dog."
TOKENS = 10
"""About how many tokens `TEXT` has, to estimate the cost beforehand."""

ProviderName = Annotated[
    str, typer.Argument(help="The provider, as `embedway providers list` shows it.")
]
ModelName = Annotated[
    str | None, typer.Option(help="Any name of the model. [the first one in the catalog]")
]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of sending one text with one key."""

    key: str
    """The key's number, such as `key 2 of 3`; empty if there is only one."""
    dimensions: int = 0
    tokens: int = 0
    milliseconds: int = 0
    failure: str = ""
    """What went wrong and how to fix it; empty if nothing did."""


def choose_deployment(
    setup: Setup, name: str, model: str | None, *, command: str
) -> tuple[ProviderConfig, Deployment]:
    """Return the enabled provider called `name` and its deployment to try.

    Exits with status 1 if there is no such provider, or if no model of it is known.
    """
    provider_config = next((each for each in setup.providers if each.name == name), None)
    if provider_config is None:
        incomplete = incomplete_providers(setup.loaded)
        missing = [each for each in incomplete if each.startswith(f"{name}: ")]
        names = ", ".join(each.name for each in setup.providers) or "none"
        fail(
            missing[0] if missing
            else f"Provider {name!r} is not enabled. Enabled: {names}. To see how to enable "
            "one: embedway providers list --all"
        )  # fmt: skip
    deployment = trial_deployment(provider_config, model, models=setup.catalog_in_use.models)
    if deployment is None:
        fail(
            f"No model of {name!r} is known. Name one: embedway providers {command} {name} "
            "--model NAME"
        )
    return provider_config, deployment


def trial_deployment(
    provider_config: ProviderConfig, name: str | None = None, *, models: Sequence[Model]
) -> Deployment | None:
    """Return the provider's deployment of the model `name`, or else the first not retired."""
    offers = provider_offers([provider_config])
    offered = catalog.load_catalog(eu_native=False, offers=offers, models=models)
    if name:
        return resolve(f"{provider_config.name}:{name}", offered, param="model").deployments[0]
    usable = (
        each
        for each in offered.deployments()
        if each.provider == provider_config.name and not is_retired(each.spec, today())
    )
    return next(usable, None)


def trial_batch(deployment: Deployment) -> Batch:
    """Return a batch of one short text. It names no width, so that a wrong one is noticed."""
    spec = deployment.spec
    return Batch(
        model=deployment.upstream_name,
        base_model=spec.base_model,
        items=[TEXT],
        tokens=[TOKENS],
        exact=False,
        input_types=spec.input_types,
        extra=spec.parameters,
    )


def format_cost_usd(deployment: Deployment, tokens: int) -> str:
    """Return the provider's price of `tokens` tokens in USD, or `unknown`."""
    price = deployment.spec.price_per_mtok_usd
    return (
        "unknown" if price is None else money.format_usd(money.cost(tokens, price_per_mtok=price))
    )


async def try_keys(
    provider_config: ProviderConfig, deployment: Deployment, *, timeout_s: float
) -> list[Trial]:
    """Try each key of a provider, or a call without a key if it has none."""
    keys = provider_config.keys or [None]
    return await asyncio.gather(
        *(
            _try_key(
                msgspec.structs.replace(provider_config, keys=[key] if key else []),
                deployment,
                f"key {number} of {len(keys)}" if len(keys) > 1 else "",
                timeout_s,
            )
            for number, key in enumerate(keys, 1)
        )
    )


async def _try_key(
    provider_config: ProviderConfig, deployment: Deployment, key: str, timeout_s: float
) -> Trial:
    start_s = time.perf_counter()
    try:
        width, tokens = await _embed_text(provider_config, deployment, timeout_s)
    except (ProviderError, EmbedwayError, ImportError, ValueError) as error:
        return Trial(
            key=key, failure=explain_failure(provider_config, deployment.upstream_name, error)
        )
    milliseconds = round((time.perf_counter() - start_s) * 1000)
    return Trial(key=key, dimensions=width, tokens=tokens, milliseconds=milliseconds)


async def _embed_text(
    provider_config: ProviderConfig, deployment: Deployment, timeout_s: float
) -> tuple[int, int]:
    """Return the width of the vector, and the provider's token count."""
    model, batch = deployment.model, trial_batch(deployment)
    result = await call_provider(provider_config, batch, timeout_s=timeout_s)
    width = result.vectors.shape[1]
    if model.dimensions not in {None, width}:
        raise ValueError(
            f"it answers with {width} dimensions, but {model.dimensions} are declared for "
            f"{model.id}. Correct its dimensions in embedway.toml."
        )
    vectors.check_vectors(result.vectors, items=1, dimensions=None)
    return width, result.tokens_up_to(batch.max_tokens) or 0


async def call_provider(
    provider_config: ProviderConfig, batch: Batch, *, timeout_s: float
) -> BatchResult:
    """Send one batch to a provider, without retries.

    Raises:
        ProviderError: The provider fails or does not answer in time.
    """
    from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: slow

    async with aclosing(provider.build_provider(provider_config)) as engine:
        try:
            async with asyncio.timeout(timeout_s):
                return await engine.embed(batch)
        except TimeoutError:
            raise ProviderError("timeout") from None


def explain_failure(provider_config: ProviderConfig, model: str, error: Exception) -> str:
    """Return what went wrong at a provider, in words for the operator."""
    if not isinstance(error, ProviderError):
        return str(error)
    response = describe_response(error)
    cause = f" ({_describe_cause(error.__cause__)})" if error.__cause__ else ""
    match error.kind:
        case "credentials":
            return f"it refuses the key{response}. The key is from {provider_config.origin}."
        case "model":
            return (
                f"it has no model {model!r}{response}. If it should, check the base URL: "
                f"{provider_config.url}"
            )
        case "unreachable":
            return (
                f"nothing answers at {provider_config.url}{cause}. If that address is private, "
                "declare it as the provider's base_url."
            )
        case kind:
            return f"{kind.replace('_', ' ')}{response}{cause}. Asked: {provider_config.url}"


def describe_response(error: ProviderError) -> str:
    """Return the HTTP status and reason of a provider's error, to end a sentence."""
    status = f" (HTTP {error.status})" if error.status else ""
    return f"{status}: {error.reason}" if error.reason else status


def _describe_cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
