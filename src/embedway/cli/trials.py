"""Tries providers by sending one short text with each of their keys, which they bill."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated

import msgspec
import typer

from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired
from embedway.cli.setup import Setup
from embedway.cli.terminal import fail
from embedway.config.providers import incomplete_providers
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


class Target(msgspec.Struct, frozen=True):
    """A provider, and its deployment to try."""

    provider: ProviderConfig
    deployment: Deployment
    timeout_s: float

    @property
    def batch(self) -> Batch:
        """One short text. It names no width, so that a wrong one is noticed."""
        spec = self.deployment.spec
        return Batch(
            model=self.deployment.upstream_name,
            base_model=spec.base_model,
            items=[TEXT],
            tokens=[TOKENS],
            exact=False,
            input_types=spec.input_types,
            extra=spec.parameters,
        )

    def cost_usd(self, tokens: int) -> str:
        """Return the provider's price of `tokens` tokens in USD, or `unknown`."""
        price = self.deployment.spec.price_per_mtok_usd
        if price is None:
            return "unknown"
        return money.format_usd(money.cost(tokens, price_per_mtok=price))

    async def call(self, batch: Batch) -> BatchResult:
        """Send one batch to the provider, without retries.

        Raises:
            ProviderError: The provider fails or does not answer in time.
        """
        from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: slow

        async with aclosing(provider.build_provider(self.provider)) as engine:
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await engine.embed(batch)
            except TimeoutError:
                raise ProviderError("timeout") from None

    def explain(self, error: Exception) -> str:
        """Return what went wrong at the provider, in words for the operator."""
        if not isinstance(error, ProviderError):
            return str(error)
        response, cause = describe_response(error), ""
        if inner := error.__cause__:
            cause = f" ({getattr(inner, 'strerror', None) or inner or type(inner).__name__})"
        match error.kind:
            case "credentials":
                return f"it refuses the key{response}. The key is from {self.provider.origin}."
            case "model":
                return (
                    f"it has no model {self.deployment.upstream_name!r}{response}. If it should, "
                    f"check the base URL: {self.provider.url}"
                )
            case "unreachable":
                return (
                    f"nothing answers at {self.provider.url}{cause}. If that address is private, "
                    "declare it as the provider's base_url."
                )
            case kind:
                return f"{kind.replace('_', ' ')}{response}{cause}. Asked: {self.provider.url}"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of sending one text with one key."""

    target: Target
    key: str
    """The key's number, such as `key 2 of 3`; empty if there is only one."""
    dimensions: int = 0
    tokens: int = 0
    milliseconds: int = 0
    failure: str = ""
    """What went wrong and how to fix it; empty if nothing did."""


def choose_target(setup: Setup, name: str, model: str | None, *, command: str) -> Target:
    """Return the enabled provider called `name` and its deployment to try.

    Exits with status 1 if there is no such provider, or if no model of it is known.
    """
    provider = next((each for each in setup.providers if each.name == name), None)
    if provider is None:
        incomplete = incomplete_providers(setup.loaded)
        missing = [each for each in incomplete if each.startswith(f"{name}: ")]
        names = ", ".join(each.name for each in setup.providers) or "none"
        fail(
            missing[0] if missing
            else f"Provider {name!r} is not enabled. Enabled: {names}. To see how to enable "
            "one: embedway providers list --all"
        )  # fmt: skip
    return find_target(setup, provider, model) or fail(
        f"No model of {name!r} is known. Name one: embedway providers {command} {name} --model NAME"
    )


def find_target(setup: Setup, provider: ProviderConfig, name: str | None = None) -> Target | None:
    """Return the provider's deployment of the model `name`, or else the first not retired."""
    offered = setup.offered_by([provider])
    if name:
        found = resolve(f"{provider.name}:{name}", offered, param="model").deployments
    else:
        found = [
            each
            for each in offered.deployments()
            if each.provider == provider.name and not is_retired(each.spec, today())
        ]
    timeout_s = setup.settings.request_timeout_s
    return Target(provider, found[0], timeout_s) if found else None


async def try_keys(targets: Iterable[Target]) -> list[Trial]:
    """Try each key of each provider, or a call without a key if it has none."""
    return await asyncio.gather(
        *(
            _try_key(
                target,
                f"key {number} of {len(keys)}" if len(keys) > 1 else "",
                msgspec.structs.replace(target.provider, keys=[key] if key else []),
            )
            for target in targets
            for keys in [target.provider.keys or [None]]
            for number, key in enumerate(keys, 1)
        )
    )


async def _try_key(target: Target, key: str, provider: ProviderConfig) -> Trial:
    batch, model = target.batch, target.deployment.model
    start_s = time.perf_counter()
    try:
        result = await msgspec.structs.replace(target, provider=provider).call(batch)
        width = result.vectors.shape[1]
        if model.dimensions not in {None, width}:
            raise ValueError(
                f"it answers with {width} dimensions, but {model.dimensions} are declared for "
                f"{model.id}. Correct its dimensions in embedway.toml."
            )
        vectors.check_vectors(result.vectors, items=1, dimensions=None)
    except (ProviderError, EmbedwayError, ImportError, ValueError) as error:
        return Trial(target=target, key=key, failure=target.explain(error))
    return Trial(
        target=target,
        key=key,
        dimensions=width,
        tokens=result.tokens_up_to(batch.max_tokens) or 0,
        milliseconds=round((time.perf_counter() - start_s) * 1000),
    )


def describe_response(error: ProviderError) -> str:
    """Return the HTTP status and reason of a provider's error, to end a sentence."""
    status = f" (HTTP {error.status})" if error.status else ""
    return f"{status}: {error.reason}" if error.reason else status
