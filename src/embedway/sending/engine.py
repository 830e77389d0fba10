"""Maps deployments to the engines that embed for them, with their limits."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities


class Engine(Protocol):
    """Turns batches into vectors. All requests share it."""

    @property
    def limits(self) -> BatchLimits:
        """The limits of one call."""
        ...

    @property
    def abilities(self) -> EngineAbilities:
        """What a batch may ask for besides the vectors of texts."""
        ...

    async def embed(self, batch: Batch) -> BatchResult:
        """Return the vectors of a batch's items, in order.

        Raises:
            ProviderError: The call failed.
            InvalidRequest: The engine cannot do what the batch asks for.
            ServiceOverloaded: Too much is waiting already.
        """
        ...


class EngineRegistry:
    """The engines of this process, by `Deployment.engine_name`."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def engine(self, deployment: Deployment) -> Engine:
        """Return the engine that embeds for a deployment."""
        return self._engines[deployment.engine_name]

    def abilities(self, deployment: Deployment) -> EngineAbilities:
        """Return what a deployment can be asked for besides the vectors of texts."""
        return self._engines[deployment.engine_name].abilities

    def limits(self, deployment: Deployment) -> BatchLimits:
        """Return the limits of one call: the deployment's own, or else its engine's."""
        limits, spec = self._engines[deployment.engine_name].limits, deployment.spec
        if spec.max_items is None and spec.max_batch_tokens is None:
            return limits
        return msgspec.structs.replace(
            limits,
            max_items=spec.max_items or limits.max_items,
            max_tokens=spec.max_batch_tokens or limits.max_tokens,
        )
