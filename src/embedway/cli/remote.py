"""Sends texts to providers without a gateway, for `embedway embed` and `embedway spaces`.

Cuts, retries and checks as a gateway does. Counts no limits and writes no usage records.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import cast

import msgspec
import numpy as np

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired
from embedway.catalog.model import Model
from embedway.catalog.resolved_name import ResolvedName
from embedway.cli.lengths import check_lengths
from embedway.cli.setup import Setup, fetch_weights
from embedway.cli.terminal import fail
from embedway.cli.trials import Target
from embedway.config.settings import Settings
from embedway.config.spaces import build_memberships
from embedway.core.clock import today
from embedway.core.errors import ContextLengthExceeded, EmbedwayError, TooManyTokens
from embedway.core.provider_error import ProviderError
from embedway.core.request import Truncate
from embedway.core.vectors import Vectors
from embedway.health.health import HealthRegistry
from embedway.providers import provider
from embedway.providers.provider_config import ProviderConfig
from embedway.routing.abilities import ability_error
from embedway.routing.resolve import retired_error
from embedway.sending.attempt import Attempt
from embedway.sending.engine import Engine, EngineRegistry
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.tokenizing.cl100k import Cl100kTokenizer
from embedway.tokenizing.tokenizer import Tokenizer
from embedway.wire.decode import decode


def choose_target(name: str, resolved: ResolvedName, setup: Setup) -> Target:
    """Return the one deployment whose vectors `name` stands for, and its provider.

    Raises:
        ModelRetired: The provider no longer serves it.
    """
    deployment = resolved.deployments[0]
    if setup.settings.canaries and not (resolved.is_pinned or resolved.is_ordered):
        spaces, _ = build_memberships(setup.settings, setup.catalog, setup.providers)
        reference = spaces.registry.reference_deployment(deployment.model.id)
        if reference and reference in resolved.deployments:
            deployment = reference
    if is_retired(deployment.spec, today()):
        raise retired_error(name, deployment)
    provider = next(each for each in setup.providers if each.name == deployment.provider)
    return Target(provider, deployment, setup.settings.request_timeout_s)


@asynccontextmanager
async def open_sender(
    settings: Settings, providers: Sequence[ProviderConfig], models: Iterable[Model] = ()
) -> AsyncGenerator[Sender]:
    """Yield a sender to these providers and local models.

    Exits with status 1 if a provider cannot be used.
    """
    engines: dict[str, Engine] = {}
    tokenizers: dict[str, Tokenizer] = {}
    async with AsyncExitStack() as exit_stack:
        for model in models:
            from embedway.config.engines import load_engine  # noqa: PLC0415  # the model: slow

            fetch_weights(model, settings)
            engine = await asyncio.to_thread(load_engine, model, settings)
            exit_stack.callback(engine.close)
            engines[f"{LOCAL}:{model.id}"] = tokenizers[model.id] = engine
        for each in providers:
            try:
                engines[each.name] = built = provider.build_provider(each)
            except (ImportError, ValueError) as error:
                fail(f"Provider {each.name!r} cannot be used: {error}")
            exit_stack.push_async_callback(built.aclose)
        cl100k = Cl100kTokenizer()
        exit_stack.callback(cl100k.close)
        yield Sender(
            EngineRegistry(engines),
            healths=HealthRegistry(now_s=time.monotonic),
            preparer=InputPreparer(tokenizers=tokenizers, cl100k=cl100k),
        )


async def send_texts(
    sender: Sender, deployment: Deployment, fields: Mapping[str, object], *, timeout_s: float
) -> tuple[Attempt, Vectors]:
    """Send the fields of a request to a deployment; return the attempt and the vectors.

    Raises:
        EmbedwayError: The deployment cannot serve the request, or its texts are too long.
        ProviderError: The provider failed.
        TimeoutError: It did not answer within `timeout_s`, in seconds.
    """
    request = decode(msgspec.json.encode(fields), max_items=len(cast("list[str]", fields["input"])))
    if error := ability_error(request, deployment, sender.engines.abilities(deployment)):
        raise error
    attempt = sender.attempt(request, deployment, request_id="", counts={})
    await attempt.prepare()
    async with asyncio.timeout(timeout_s):
        return attempt, await sender.send([attempt], deadline_s=sender.now_s() + timeout_s)


class RemoteModel:
    """A model at a provider."""

    def __init__(self, sender: Sender, target: Target) -> None:
        self._sender = sender
        self._target = target
        self._deployment = target.deployment

    async def embed(self, truncate: Truncate, texts: list[str], first: int) -> Vectors:
        """Return the vectors of `texts`, one row each; `first` is the first text's number, from 1.

        Exits with status 1 if a text cannot be embedded, or the provider fails or takes too long.
        """
        name = self._target.provider.name
        try:
            return await self._send(texts, truncate)
        except ProviderError as error:
            text = "" if error.item is None else f", text {first + error.item}"
            fail(f"{name}{text}: {self._target.explain(error)}")
        except ContextLengthExceeded as error:
            # Name the text by this process's own counts, if they agree.
            with closing(Cl100kTokenizer()) as codec:
                check_lengths(await codec.encode(texts), self._deployment.model, first=first)
            fail(error.message)
        except EmbedwayError as error:
            fail(error.message)
        except TimeoutError:
            fail(
                f"{name} did not answer within {self._target.timeout_s:g} s. Try again, or set "
                "EMBEDWAY_REQUEST_TIMEOUT_S higher."
            )

    async def _send(self, texts: list[str], truncate: Truncate) -> Vectors:
        fields = {"model": self._deployment.id, "input": texts, "truncate": truncate}
        try:
            _, vectors = await send_texts(
                self._sender, self._deployment, fields, timeout_s=self._target.timeout_s
            )
        except TooManyTokens:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            return np.concatenate(
                [await self._send(each, truncate) for each in (texts[:half], texts[half:])]
            )
        if self._deployment.model.dimensions is None:
            # If no width is declared, all later vectors must be as wide as the first.
            model = msgspec.structs.replace(self._deployment.model, dimensions=vectors.shape[1])
            self._deployment = msgspec.structs.replace(self._deployment, model=model)
        return vectors
