"""Checks that the vectors of a response belong to the space that the request asked for."""

import math
from collections.abc import Awaitable

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.spaces.canaries import NORM_TOLERANCE
from embedway.spaces.prober import Prober, failure_for_request


class SpaceCheck:
    """Checks the responses of one deployment. It is a `ResultCheck` of `embedway.sending.attempt`.

    It compares the vectors' width and length and the model's name at once. If one of them is new,
    it returns an awaitable that probes the deployment. If this process knows nothing to compare
    with, it returns one that reads what other processes have proven.
    """

    __slots__ = ("_deployment", "_input_type", "_prober", "_revision")

    def __init__(
        self, prober: Prober, deployment: Deployment, input_type: InputType | None, *, revision: str
    ) -> None:
        """Check responses of `deployment` against this revision of its model's space."""
        self._prober = prober
        self._deployment = deployment
        self._input_type: InputType | None = input_type
        self._revision = revision

    def __call__(self, batch: Batch, result: BatchResult) -> Awaitable[None] | None:
        """Return None if the response is right, or an awaitable that finds out.

        Raises:
            ProviderError: The deployment is in another space now.
        """
        width, norm = None, None
        # Canaries prove nothing about other widths, nor about fields that only this client sent.
        if batch.dimensions is None and len(batch.extra) == len(batch.fixed):
            first = result.vectors[0]
            width, norm = first.shape[0], math.sqrt(float(first @ first))
        if self.has_changed(width=width, norm=norm, model=result.model):
            return self._require_confirmation(width, norm, result.model)
        if not self._has_reference():
            return self._compare_with_stored(width, norm, result.model)
        self._require_space(is_confirmed=True)
        return None

    def has_changed(self, *, width: int | None, norm: float | None, model: str | None) -> bool:
        """Return whether a response looks different from the proven ones.

        Args:
            width: Width of the vectors; None unless it is the model's default.
            norm: Length of one vector; None under the same condition.
            model: The model's name in the response, if it has one.
        """
        prober, deployment = self._prober, self._deployment
        expected = prober.spaces.expected_signature(deployment, self._input_type)
        if expected is None:
            return False
        return (
            deployment.id in prober.spaces.registry.drift_proofs  # found while it answered
            or (
                model is not None
                and model not in expected.model_names
                and expected.width is not None
            )
            or (width is not None and expected.width is not None and width != expected.width)
            or (norm is not None and expected.has_unit_length and abs(norm - 1) > NORM_TOLERANCE)
        )

    async def confirm(self, *, width: int | None, norm: float | None, model: str | None) -> bool:
        """Probe the deployment and return whether a response that looked changed is right.

        Raises:
            ProviderError: The probe failed.
        """
        prober, deployment, input_type = self._prober, self._deployment, self._input_type
        before = prober.membership(deployment, input_type)
        after = await prober.prove(deployment, input_type)
        if (
            after.is_usable
            and after.revision == before.revision
            # The old model may have answered the canaries, and the new one this request.
            and not self.has_changed(width=width, norm=norm, model=model)
        ):
            return True
        # A deployment that changes all the time must not be probed for each of its responses.
        prober.delay_next_probe(deployment, input_type)
        return False

    def _has_reference(self) -> bool:
        expected = self._prober.spaces.expected_signature(self._deployment, self._input_type)
        return expected is None or expected.has_reference

    async def _compare_with_stored(
        self, width: int | None, norm: float | None, model: str | None
    ) -> None:
        await self._prober.read_anew(self._deployment, self._input_type)
        if self.has_changed(width=width, norm=norm, model=model):
            await self._require_confirmation(width, norm, model)
        else:
            self._require_space(is_confirmed=True)

    async def _require_confirmation(
        self, width: int | None, norm: float | None, model: str | None
    ) -> None:
        try:
            is_confirmed = await self.confirm(width=width, norm=norm, model=model)
        except ProviderError as error:
            # The provider has answered the request, so it must not be sent there again.
            raise failure_for_request(error, billed="yes") from error
        self._require_space(is_confirmed=is_confirmed)

    def _require_space(self, *, is_confirmed: bool) -> None:
        prober, deployment, input_type = self._prober, self._deployment, self._input_type
        if not (is_confirmed and prober.is_in(deployment, input_type, self._revision)):
            raise ProviderError("malformed", "vectors of another space than before", billed="yes")
