"""Tries providers: one short text with each of their keys, which they bill."""

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
from embedway.cli.terminal import fail, load_providers
from embedway.config.catalogs import catalog_in_use
from embedway.config.providers import incomplete_providers, provider_offers
from embedway.config.settings import LoadedSettings
from embedway.core import money, vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.clock import today
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.providers.provider_config import ProviderConfig
from embedway.routing.resolve import resolve

TEXT = "The quick brown fox jumps over the lazy dog."
TOKENS = 10
"""About how many tokens that is, for whoever is told the cost beforehand."""


ProviderName = Annotated[
    str, typer.Argument(help="The provider, as `embedway providers list` shows it.")
]
ModelName = Annotated[
    str | None, typer.Option(help="Any name of the model; the first known one if left out.")
]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one text with one key."""

    key: str
    """Which of several keys, such as `key 2 of 3`; empty for the only one."""
    dimensions: int = 0
    tokens: int = 0
    milliseconds: int = 0
    failure: str = ""
    """What went wrong, and the cure; empty if nothing did."""


def provider_and_model(
    loaded: LoadedSettings, name: str, model: str | None, *, command: str
) -> tuple[ProviderConfig, Deployment]:
    """The enabled provider of this name, and its model to try.

    Exits with status 1 and the cure if there is no such provider, or if no model of it is known.
    """
    declared = load_providers(loaded)
    chosen = next((each for each in declared if each.name == name), None)
    if chosen is None:
        missing = [each for each in incomplete_providers(loaded) if each.startswith(f"{name}: ")]
        names = ", ".join(each.name for each in declared) or "none"
        fail(
            missing[0] if missing
            else f"Provider {name!r} is not enabled. Enabled: {names}. To see how to enable "
            "one: embedway providers list --all"
        )  # fmt: skip
    served = model_to_try(chosen, model, models=catalog_in_use(loaded.settings).models)
    if served is None:
        fail(
            f"No model of {chosen.name!r} is known. Name one: embedway providers {command} "
            f"{chosen.name} --model NAME"
        )
    return chosen, served


def model_to_try(
    declared: ProviderConfig, name: str | None = None, *, models: Sequence[Model]
) -> Deployment | None:
    """The model of this name as the catalog knows it there, or the first that it still serves."""
    known = catalog.load_catalog(eu_native=False, offers=provider_offers([declared]), models=models)
    if name:
        return resolve(f"{declared.name}:{name}", known, param="model").deployments[0]
    served = (
        each
        for each in known.deployments()
        if each.provider == declared.name and not is_retired(each.spec, today())
    )
    return next(served, None)


def batch_to_try(served: Deployment) -> Batch:
    """A call for one short text, without the width, so that another one can be told of."""
    deployment = served.spec
    return Batch(
        model=served.upstream_name,
        base_model=deployment.base_model,
        items=[TEXT],
        tokens=[TOKENS],
        exact=False,
        input_types=deployment.input_types,
        extra=deployment.parameters,
    )


def cost_usd(served: Deployment, tokens: int) -> str:
    """What the provider asks for so many tokens, in USD."""
    price = served.spec.price_per_mtok_usd
    return (
        "unknown" if price is None else money.format_usd(money.cost(tokens, price_per_mtok=price))
    )


async def try_keys(
    declared: ProviderConfig, served: Deployment, *, timeout_s: float
) -> list[Trial]:
    """What comes of each key of a provider, or of asking without one if it has none."""
    keys = declared.keys or [None]
    names = [
        f"key {number} of {len(keys)}" if len(keys) > 1 else ""
        for number in range(1, len(keys) + 1)
    ]
    one_each = (msgspec.structs.replace(declared, keys=[key] if key else []) for key in keys)
    return await asyncio.gather(
        *(_tried(each, served, name, timeout_s) for each, name in zip(one_each, names, strict=True))
    )


async def _tried(declared: ProviderConfig, served: Deployment, key: str, timeout_s: float) -> Trial:
    began_s = time.perf_counter()
    try:
        width, tokens = await _embedded(declared, served, timeout_s)
    except (ProviderError, EmbedwayError, ImportError, ValueError) as error:
        return Trial(key=key, failure=explain(declared, served.upstream_name, error))
    milliseconds = round((time.perf_counter() - began_s) * 1000)
    return Trial(key=key, dimensions=width, tokens=tokens, milliseconds=milliseconds)


async def _embedded(
    declared: ProviderConfig, served: Deployment, timeout_s: float
) -> tuple[int, int]:
    """The width of the vector, and the tokens that the provider counts."""
    model, batch = served.model, batch_to_try(served)
    result = await call(declared, batch, timeout_s=timeout_s)
    width = result.vectors.shape[1]
    if model.dimensions not in {None, width}:
        raise ValueError(
            f"it answers with {width} dimensions, but {model.dimensions} are declared for "
            f"{model.id}. Correct its dimensions in embedway.toml."
        )
    vectors.check_vectors(result.vectors, items=1, dimensions=None)
    return width, result.tokens_up_to(batch.max_tokens) or 0


async def call(declared: ProviderConfig, batch: Batch, *, timeout_s: float) -> BatchResult:
    """The answer of a provider to one call.

    Raises:
        ProviderError: It fails, or does not answer in time.
    """
    from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: listing needs none

    async with aclosing(provider.build_provider(declared)) as engine:
        try:
            async with asyncio.timeout(timeout_s):
                return await engine.embed(batch)
        except TimeoutError:
            raise ProviderError("timeout") from None


def explain(declared: ProviderConfig, model: str, error: Exception) -> str:
    """What went wrong at a provider, for who runs the gateway."""
    if not isinstance(error, ProviderError):
        return str(error)
    said = answer(error)
    cause = f" ({_cause(error.__cause__)})" if error.__cause__ else ""
    match error.kind:
        case "credentials":
            return f"it refuses the key{said}. The key is from {declared.origin}."
        case "model":
            return (
                f"it has no model {model!r}{said}. If it should, check the base URL: {declared.url}"
            )
        case "unreachable":
            return (
                f"nothing answers at {declared.url}{cause}. A private address has to be declared "
                "as its base_url."
            )
        case kind:
            return f"{kind.replace('_', ' ')}{said}{cause}. Asked: {declared.url}"


def answer(error: ProviderError) -> str:
    """The status and reason of a provider's error, as the end of a sentence."""
    status = f" (HTTP {error.status})" if error.status else ""
    return f"{status}: {error.reason}" if error.reason else status


def _cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
