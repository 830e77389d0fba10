"""Records a span for each embeddings request and for each call made for it.

A span is a plain record, made when its work has ended. It never holds a text, a vector or a key.
`otlp` sends the spans to a collector.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.provider_error import ProviderError
from embedway.core.usage import PROBE
from embedway.http.call import trace_headers
from embedway.observe.trace_context import (
    RequestTrace,
    Sampler,
    begin_trace,
    current,
    new_span_id,
)
from embedway.sending.outcome import Cancellation, Outcome, Success

CLIENT_LEFT = "client_left"
"""The `error.type` of a request, or of a call, whose client did not wait for it."""

MAX_TOKENS = 2**63 - 1
"""The most tokens that a span can hold; a provider may report anything."""


class ProviderAddress(msgspec.Struct, frozen=True):
    """What kind a provider is, and where it is called."""

    kind: str
    host: str
    port: int


class CallSpan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The record of one call to a provider, or of one run of a local model."""

    trace: RequestTrace
    span_id: bytes
    number: int
    """The number of the call in its request, from 1."""
    start_ns: int
    end_ns: int
    deployment: Deployment
    is_probe: bool
    error: str = ""
    """The kind of failure; empty if the call succeeded."""
    status: int | None = None
    """The HTTP status of a failure; None if no reply came."""
    items: int | None = None
    """The items of the answer; None if the call failed. The next two are those of an answer too."""
    width: int | None = None
    tokens: int | None = None
    """The tokens that the provider reports; None if it reports none that can be read."""
    model: str | None = None
    """The model's name according to the provider; None if it names none."""


Span = RequestTrace | CallSpan


class _Call(msgspec.Struct, frozen=True, gc=False):
    """A call that has begun."""

    span_id: bytes
    number: int


_call: ContextVar[_Call | None] = ContextVar("traced_call", default=None)


class Tracer:
    """Follows requests and their calls, and hands each finished span to `record`."""

    def __init__(self, sampler: Sampler, *, record: Callable[[Span], None]) -> None:
        self._sampler = sampler
        self._record = record

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> RequestTrace:
        """Begin the trace of a request with these headers, in the context of its task."""
        trace = begin_trace(headers, self._sampler)
        current.set(trace)
        return trace

    def end(
        self,
        trace: RequestTrace,
        *,
        method: str,
        path: str,
        status: int,
        request_id: str,
        facts: Mapping[str, str],
    ) -> None:
        """End the trace of a request.

        Args:
            trace: What `begin` returned.
            method: The request's method.
            path: Its path.
            status: The status of its answer; 499 if its client left.
            request_id: Its id.
            facts: The fields of its log line.
        """
        current.set(None)
        if not trace.is_sampled:
            return
        trace.end_ns = time.time_ns()
        trace.method, trace.path, trace.status = method, path, status
        trace.request_id, trace.facts = request_id, facts
        self._record(trace)

    def start_call(self) -> None:
        """Begin a call for the request of this context."""
        trace = current.get()
        if trace is None:
            return
        trace.calls += 1
        call = _Call(new_span_id(), trace.calls)
        _call.set(call)
        trace_headers.set(trace.headers(call.span_id))

    def end_call(
        self, request_id: str, deployment: Deployment, outcome: Outcome, seconds: float
    ) -> None:
        """End the call of this context, as `OnOutcome` describes."""
        trace, call = current.get(), _call.get()
        if trace is None or call is None:
            return
        _call.set(None)
        trace_headers.set(None)
        if not trace.is_sampled:
            return
        end_ns = time.time_ns()
        error, status = "", None
        items = width = tokens = model = None
        if isinstance(outcome, Success):
            items, width = outcome.result.vectors.shape
            tokens, model = outcome.result.tokens, outcome.result.model
        elif isinstance(outcome, Cancellation):
            error = CLIENT_LEFT
        elif isinstance(outcome.error, ProviderError):
            error, status = outcome.error.kind, outcome.error.status
        else:
            error = outcome.error.reason
        self._record(
            CallSpan(
                trace=trace,
                span_id=call.span_id,
                number=call.number,
                start_ns=end_ns - round(seconds * 1e9),
                end_ns=end_ns,
                deployment=deployment,
                is_probe=request_id == PROBE,
                error=error,
                status=status,
                items=items,
                width=width,
                tokens=tokens if tokens is not None and 0 <= tokens <= MAX_TOKENS else None,
                model=model,
            )
        )
