"""Sends spans and metrics to a collector, by OTLP over HTTP.

A collector that is away, slow or refuses delays no request: spans wait in a bounded queue, and
those that find no room or are not taken are dropped and counted.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import msgspec
import structlog

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall
from embedway.http.client import HttpClient
from embedway.observe.metrics import Metrics
from embedway.observe.otlp_options import OtlpOptions
from embedway.observe.tracing import ProviderAddress, Span, Tracer

MAX_WAITING_SPANS = 8192
"""The most spans that may wait for the collector: some 8 MB."""
MAX_BATCH_SPANS = 512
"""The most spans in one message."""
SPANS_EVERY_S = 1.0
"""The longest that spans wait for a message to fill, in seconds."""
TIMEOUT_S = 10.0
"""How long the collector may take for one message, in seconds."""
RETRY_WAITS_S = (1.0, 2.0, 4.0)
"""The waits before a message is sent again, in seconds. Then it is dropped."""
LONGEST_RETRY_WAIT_S = 30.0
"""The longest wait that a collector may ask for, in seconds."""
CLOSE_S = 2.0
"""The longest that shutdown waits for the collector, in seconds."""
RETRIED = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""The statuses that OTLP says to send again after."""
MAX_REPLY_BYTES = 2**16

_log = structlog.get_logger("embedway.otlp")


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a collector answered a message."""

    body: bytes | None = None
    """The reply; None if the message was not taken."""
    reason: str = ""
    """Why it was not taken."""
    retry_after_s: float | None = None
    """The shortest wait before it may be sent again; None if it need not or may not."""


class OtlpSignal:
    """Delivers the messages of one signal to a collector."""

    def __init__(
        self,
        name: Literal["spans", "metrics"],
        url: str,
        *,
        headers: Mapping[str, str],
        closing: asyncio.Event,
    ) -> None:
        """Deliver to `url`. Once `closing` is set, nothing is sent again."""
        self.name = name
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._closing = closing
        self._client = HttpClient(url, allow_private=True, max_in_flight=1)
        self._is_failing = False

    async def deliver(self, message: bytes) -> bytes | None:
        """Send a message, with retries; return the reply, or None if it is not taken."""
        for tries, least_wait_s in enumerate((*RETRY_WAITS_S, None)):
            answer = await self._send(message)
            retry_after_s = None if self._closing.is_set() else answer.retry_after_s
            if least_wait_s is None or retry_after_s is None:
                self._note(answer.reason)
                return answer.body
            if tries:  # the first try may have met a kept connection that was just closed
                self._note(answer.reason)
            wait_s = min(max(least_wait_s, retry_after_s), LONGEST_RETRY_WAIT_S)
            await wait_for(self._closing, wait_s)
        return None

    async def _send(self, message: bytes) -> _Answer:
        """Send a message once."""
        call = HttpCall(path="", body=message)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await self._client.send(
                    call, headers=self._headers, max_bytes=MAX_REPLY_BYTES
                )
        except TimeoutError:
            return _Answer(reason="timeout", retry_after_s=0)
        except ProviderError as error:
            return _Answer(reason=error.kind, retry_after_s=0)
        if reply.is_success:
            return _Answer(body=reply.body)
        reason = f"status {reply.status}"
        if reply.status not in RETRIED:
            return _Answer(reason=reason)
        asked = reply.headers.get("Retry-After", "")
        return _Answer(reason=reason, retry_after_s=int(asked[:6]) if asked.isdecimal() else 0)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _note(self, reason: str) -> None:
        """Log the first failure of an outage, and the first success after it."""
        if reason and not self._is_failing:
            _log.warning("collector unavailable", signal=self.name, reason=reason)
        elif self._is_failing and not reason:
            _log.info("collector available again", signal=self.name)
        self._is_failing = bool(reason)


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until `event` is set, for at most `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


class OtlpExporter:
    """Sends spans as they come, and all metrics from time to time."""

    def __init__(
        self, options: OtlpOptions, metrics: Metrics, addresses: Mapping[str, ProviderAddress]
    ) -> None:
        """Begin to send. `addresses` has the address of each provider by its name."""
        from embedway.observe import otlp_encoding  # noqa: PLC0415  # its messages are an extra

        self.dropped = 0
        """The spans that found no room or were not taken."""
        self._spans = deque[Span]()
        self._in_flight = 0
        self._has_batch, self._closing = asyncio.Event(), asyncio.Event()
        self._registry = metrics.registry
        about = {"resource": options.resource, "addresses": addresses}
        self._encode_spans = partial(otlp_encoding.encode_spans, **about)
        self._encode_metrics = partial(
            otlp_encoding.encode_metrics, start_ns=time.time_ns(), **about
        )
        self._rejected_spans = otlp_encoding.rejected_spans
        self._metrics_every_s = options.metrics_every_s
        self._signals: list[OtlpSignal] = []
        self._tasks: list[asyncio.Task[None]] = []
        signal = partial(OtlpSignal, headers=options.headers, closing=self._closing)
        if options.traces_url:
            self._run(self._send_spans, signal("spans", options.traces_url))
        if options.metrics_url:
            self._run(self._send_metrics, signal("metrics", options.metrics_url))

    def _run(
        self, send: Callable[[OtlpSignal], Coroutine[Any, Any, None]], signal: OtlpSignal
    ) -> None:
        self._signals.append(signal)
        self._tasks.append(asyncio.ensure_future(send(signal)))

    def add(self, span: Span) -> None:
        """Send a span soon, or drop it if too many wait."""
        if len(self._spans) >= MAX_WAITING_SPANS:
            self.dropped += 1
            return
        self._spans.append(span)
        if len(self._spans) == MAX_BATCH_SPANS:
            self._has_batch.set()

    async def aclose(self) -> None:
        """Send what waits, for at most `CLOSE_S`."""
        self._closing.set()
        self._has_batch.set()
        _, late = await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if lost := len(self._spans) + self._in_flight:
            _log.warning("spans lost", count=lost)
        for signal in self._signals:
            await signal.aclose()

    async def _send_spans(self, signal: OtlpSignal) -> None:
        while self._spans or not self._closing.is_set():
            await wait_for(self._has_batch, SPANS_EVERY_S)
            if self._spans:
                await self._send_batch(signal)
            # Small messages would cost more than their spans, so the rest waits for company.
            if len(self._spans) < MAX_BATCH_SPANS and not self._closing.is_set():
                self._has_batch.clear()

    async def _send_batch(self, signal: OtlpSignal) -> None:
        self._in_flight = count = min(len(self._spans), MAX_BATCH_SPANS)
        batch = [self._spans.popleft() for _ in range(count)]
        reply = await self._export(signal, partial(self._encode_spans, batch))
        self.dropped += count if reply is None else self._rejected_spans(reply)
        self._in_flight = 0

    async def _send_metrics(self, signal: OtlpSignal) -> None:
        is_last = False
        while not is_last:
            await wait_for(self._closing, self._metrics_every_s)
            is_last = self._closing.is_set()
            try:  # here, because gauges read what only the event loop may touch
                metrics = list(self._registry.collect())
            except Exception:  # noqa: BLE001  # the next time may go well
                _log.exception("defect", signal=signal.name)
                continue
            encode = partial(self._encode_metrics, metrics, now_ns=time.time_ns())
            await self._export(signal, encode)

    async def _export(self, signal: OtlpSignal, encode: Callable[[], bytes]) -> bytes | None:
        try:
            message = await asyncio.to_thread(encode)
        except Exception:  # noqa: BLE001  # the next message may be encoded all the same
            _log.exception("defect", signal=signal.name)
            return None
        return await signal.deliver(message)


@asynccontextmanager
async def open_tracer(
    options: OtlpOptions | None, metrics: Metrics, addresses: Mapping[str, ProviderAddress]
) -> AsyncGenerator[Tracer | None]:
    """Open the tracer, or None if no spans are wanted; leaving the context sends what waits."""
    if options is None:
        yield None
        return
    exporter = OtlpExporter(options, metrics, addresses)
    metrics.add_counter(
        "embedway_spans_dropped",
        "Spans that the collector did not take, or that found no room while it was away.",
        lambda: exporter.dropped,
    )
    try:
        tracer = Tracer(options.sampler, record=exporter.add)
        yield tracer if options.traces_url else None
    finally:
        await exporter.aclose()
