"""Holds back an answer that looks changed, until its vector space is proven again."""

import math
from collections.abc import Awaitable

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.spaces.prober import Prober


class SpaceCheck:
    """Checks that the answers of one deployment are of the space that a request wants.

    A `ResultCheck` of `embedway.sending.attempt`. It compares width, length and model name at once;
    only if one of them is new does it return an awaitable, which probes the deployment.
    """

    __slots__ = ("_deployment", "_input_type", "_prober", "_revision")

    def __init__(
        self, prober: Prober, deployment: Deployment, input_type: InputType | None, *, revision: str
    ) -> None:
        """Take what is checked, and against which revision of its model's space."""
        self._prober = prober
        self._deployment = deployment
        self._input_type: InputType | None = input_type
        self._revision = revision

    def __call__(self, batch: Batch, result: BatchResult) -> Awaitable[None] | None:
        """Return None if the answer is right, or an awaitable that finds out.

        Raises:
            ProviderError: The deployment is in another space now.
        """
        width, norm = None, None
        # Nothing is proven of another width, nor of fields that only this client sent.
        if batch.dimensions is None and len(batch.extra) == len(batch.fixed):
            first = result.vectors[0]
            width, norm = first.shape[0], math.sqrt(float(first @ first))
        deployment, input_type, model = self._deployment, self._input_type, result.model
        if self._prober.changed(deployment, input_type, width=width, norm=norm, model=model):
            return self._confirm(width, norm, model)
        self._require_space(is_confirmed=True)
        return None

    async def _confirm(self, width: int | None, norm: float | None, model: str | None) -> None:
        self._require_space(
            is_confirmed=await self._prober.confirm(
                self._deployment, self._input_type, width=width, norm=norm, model=model
            )
        )

    def _require_space(self, *, is_confirmed: bool) -> None:
        prober, deployment, input_type = self._prober, self._deployment, self._input_type
        if not (is_confirmed and prober.is_in(deployment, input_type, self._revision)):
            raise ProviderError("malformed", "vectors of another space than before", billed="yes")
