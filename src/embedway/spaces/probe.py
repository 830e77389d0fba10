"""Asks a deployment for the vectors of the canaries, within its limits."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import LOCAL
from embedway.core import ids
from embedway.core.batch import BatchResult
from embedway.core.errors import EmbedwayError, ServiceOverloaded, UpstreamError
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest, InputType
from embedway.core.usage import ANSWERED, PROBE, UsageRecord
from embedway.sending.attempt import Attempt
from embedway.sending.outcome import Success
from embedway.sending.sender import Sender
from embedway.spaces.verdict import ProbeResult

TIMEOUT_S = 10
"""Give up a call of a probe after this long."""
MAX_PARALLEL_PROBES = 8
"""The most probes that run at the same time."""

ProbeRecorder = Callable[[UsageRecord], Awaitable[None]]
"""Stores the usage record of a probe. Must not raise."""


class CanaryProbe:
    """Sends probes, at most `MAX_PARALLEL_PROBES` at a time."""

    def __init__(
        self,
        *,
        sender: Sender,
        fingerprint: Callable[[Deployment], str],
        now_ms: Callable[[], int],
        record: ProbeRecorder,
    ) -> None:
        self._sender = sender
        self._fingerprint = fingerprint
        self._now_ms = now_ms
        self._record = record
        self._gate = asyncio.Semaphore(MAX_PARALLEL_PROBES)

    async def run(
        self, deployment: Deployment, input_type: InputType | None, texts: Sequence[str]
    ) -> ProbeResult:
        """Ask a deployment for the vectors of `texts`.

        Raises:
            ProviderError: A call failed, or the vectors are malformed.
        """
        async with self._gate:
            # Every call carries the fields that an operator fixed. A client's are not probed.
            request = EmbedRequest(input=list(texts), model=deployment.id, input_type=input_type)
            attempt = self._sender.attempt(
                request, deployment, request_id=PROBE, counts={}, was_healthy=False
            )
            began_s, failed = self._sender.now_s(), True
            try:
                results = await self._send(attempt)
                failed = False
            finally:
                if attempt.calls and deployment.provider != LOCAL:
                    latency_s = self._sender.now_s() - began_s
                    await self._record(
                        _build_record(attempt, self._now_ms(), latency_s, failed=failed)
                    )
            return ProbeResult(
                vectors=np.concatenate([result.vectors for result in results]),
                models=frozenset(result.model for result in results if result.model),
                fingerprint=self._fingerprint(deployment),
                at_ms=self._now_ms(),
                calls=len(results),
            )

    async def _send(self, attempt: Attempt) -> Sequence[BatchResult]:
        """Send the batches of a probe one after the other, with no retry and no failover."""
        try:
            parts = attempt.cut(await attempt.prepare())
        except EmbedwayError as error:
            raise _to_provider_error(error) from error
        results: list[BatchResult] = []
        for part in parts:
            deadline_s = self._sender.now_s() + TIMEOUT_S
            outcome = await attempt.run(part, deadline_s=deadline_s, timeout_s=TIMEOUT_S)
            if not isinstance(outcome, Success):
                raise _to_provider_error(outcome.error)
            results.append(outcome.result)
        if len({result.vectors.shape[1] for result in results}) > 1:
            raise ProviderError("malformed", "vectors of different widths", billed="yes")
        return results


def _to_provider_error(error: ProviderError | EmbedwayError) -> ProviderError:
    """Turn any error of a probe into a `ProviderError`."""
    if isinstance(error, ProviderError):
        return error
    kind = "overloaded" if isinstance(error, ServiceOverloaded) else "failed"
    return ProviderError(kind, str(error), billed="not sent")


def _build_record(
    attempt: Attempt, received_ms: int, latency_s: float, *, failed: bool
) -> UsageRecord:
    """Build the usage record of a probe. It charges no caller, but has the provider's price."""
    deployment = attempt.deployment
    return UsageRecord(
        id=ids.new_id(PROBE),
        at_ms=received_ms,
        request_id=PROBE,
        project_id="",
        key_id="",
        on_behalf_of=None,
        user=None,
        metadata={},
        model=deployment.model.id,
        provider=deployment.provider,
        items=0,
        tokens=0,
        cost_nano_usd=0,
        upstream_cost_nano_usd=deployment.cost(attempt.upstream_tokens),
        priced=deployment.spec.price_per_mtok_usd is not None,
        calls=attempt.calls,
        failed_calls=attempt.failed_calls,
        latency_us=round(latency_s * 1_000_000),
        status=UpstreamError.status if failed else ANSWERED,
    )
