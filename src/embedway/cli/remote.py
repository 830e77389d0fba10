"""Embeds texts at a provider, without a gateway: what `embed` does for a model that runs elsewhere.

Cuts, retries and checks as a gateway does, but asks one deployment alone: the one whose vectors a
name stands for. Counts no limits and writes no usage.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from embedway.catalog.catalog import Catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired
from embedway.catalog.resolved_name import ResolvedName
from embedway.cli.lengths import too_long
from embedway.cli.trials import explain
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
from embedway.sending.engine import EngineRegistry
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.tokenizing.cl100k import Cl100kTokenizer
from embedway.wire.decode import decode


class CannotEmbed(Exception):
    """A text cannot be embedded there; the message says which, why and what to do."""


def deployment(
    name: str,
    named: ResolvedName,
    catalog: Catalog,
    declared: Sequence[ProviderConfig],
    settings: Settings,
) -> Deployment:
    """The deployment whose vectors a name stands for, whoever else has the same model.

    Raises:
        ModelRetired: Its provider no longer serves it.
    """
    served = _standard(named, catalog, declared, settings)
    if is_retired(served.spec, today()):
        raise retired_error(name, served)
    return served


def _standard(
    named: ResolvedName, catalog: Catalog, declared: Sequence[ProviderConfig], settings: Settings
) -> Deployment:
    first = named.deployments[0]
    if named.is_pinned or named.is_ordered or not settings.canaries:
        return first
    spaces, _ = build_memberships(settings, catalog, declared)
    maker = spaces.registry.reference_deployment(first.model.id)
    return maker if maker and maker in named.deployments else first


class Remote:
    """A model at a provider."""

    def __init__(self, declared: ProviderConfig, served: Deployment, *, timeout_s: float) -> None:
        """Takes who is asked, and how long for at most 512 texts or so."""
        self._declared = declared
        self._served = served
        self._timeout_s = timeout_s
        self._provider = provider.build_provider(declared)
        self._cl100k = Cl100kTokenizer()
        self._sender = Sender(
            EngineRegistry({served.engine_name: self._provider}),
            healths=HealthRegistry(now_s=time.monotonic),
            preparer=InputPreparer(tokenizers={}, cl100k=self._cl100k),
        )

    async def embed(self, truncate: Truncate, texts: list[str], first: int) -> Vectors:
        """The vectors of `texts`, of which `first` is the number of the first, from 1.

        Raises:
            CannotEmbed: There are none.
        """
        served = self._served
        try:
            return await self._embedded(texts, truncate)
        except ProviderError as error:
            text = "" if error.item is None else f", text {first + error.item}"
            reason = explain(self._declared, served.upstream_name, error)
            raise CannotEmbed(f"{served.provider}{text}: {reason}") from error
        except ContextLengthExceeded as error:
            raise CannotEmbed(await self._too_long(texts, first) or error.message) from error
        except EmbedwayError as error:
            raise CannotEmbed(error.message) from error
        except TimeoutError as error:
            raise CannotEmbed(
                f"{served.provider} did not answer within {self._timeout_s:g} s. Try again, or set "
                "EMBEDWAY_REQUEST_TIMEOUT_S higher."
            ) from error

    async def aclose(self) -> None:
        """Closes its connections."""
        self._cl100k.close()
        await self._provider.aclose()

    async def _embedded(self, texts: list[str], truncate: Truncate) -> Vectors:
        fields = {"model": self._served.id, "input": texts, "truncate": truncate}
        request = decode(msgspec.json.encode(fields))
        if refused := ability_error(request, self._served, self._provider.abilities):
            raise refused
        attempt = self._sender.attempt(request, self._served, request_id="", counts={})
        try:
            await attempt.prepare()
        except TooManyTokens:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            parts = [await self._embedded(part, truncate) for part in (texts[:half], texts[half:])]
            return np.concatenate(parts)
        async with asyncio.timeout(self._timeout_s):
            deadline_s = self._sender.now_s() + self._timeout_s
            vectors = await self._sender.send([attempt], deadline_s=deadline_s)
        if self._served.model.dimensions is None:
            # A model without a declared width keeps to that of the first answer.
            model = msgspec.structs.replace(self._served.model, dimensions=vectors.shape[1])
            self._served = msgspec.structs.replace(self._served, model=model)
        return vectors

    async def _too_long(self, texts: list[str], first: int) -> str | None:
        """Name the text that is too long, where its tokens are counted here."""
        model = self._served.model
        for number, ids in enumerate(await self._cl100k.encode(texts), first):
            if reason := too_long(len(ids), model, number=number):
                return reason
        return None
