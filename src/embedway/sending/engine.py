"""Knows the engine behind each deployment, and what one call to it may hold."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities


class Engine(Protocol):
    """Turns batches into vectors, shared by all requests."""

    @property
    def limits(self) -> BatchLimits:
        """Of a batch."""
        ...

    @property
    def abilities(self) -> EngineAbilities:
        """What a batch may ask for."""
        ...

    async def embed(self, batch: Batch) -> BatchResult:
        """The vectors of the items of `batch`, in order.

        Raises:
            ProviderError: It failed.
            InvalidRequest: The batch asks for something that it cannot be asked.
            ServiceOverloaded: Too much is waiting already.
        """
        ...


class EngineRegistry:
    """The engines of this process, by `Deployment.engine_name`."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def engine(self, deployment: Deployment) -> Engine:
        """The engine that embeds for the deployment."""
        return self._engines[deployment.engine_name]

    def abilities(self, deployment: Deployment) -> EngineAbilities:
        """What the deployment can be asked for beyond the vectors of texts."""
        return self._engines[deployment.engine_name].abilities

    def limits(self, deployment: Deployment) -> BatchLimits:
        """What one call may hold: the deployment's own limits, or else its engine's."""
        limits, own = self._engines[deployment.engine_name].limits, deployment.spec
        if own.max_items is None and own.max_batch_tokens is None:
            return limits
        return msgspec.structs.replace(
            limits,
            max_items=own.max_items or limits.max_items,
            max_tokens=own.max_batch_tokens or limits.max_tokens,
        )
