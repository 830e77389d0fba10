"""Keeps the trace of the request in progress: its W3C trace context, and whether it is sampled.

Knows nothing of exporting. https://www.w3.org/TR/trace-context/ defines the headers.
"""

import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from embedway.core import ids
from embedway.core.money import NanoUsd
from embedway.core.space_id import SpaceId

MAX_STATE_CHARACTERS = 512
"""The longest `tracestate` to keep; W3C asks for at least this much."""

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_SAMPLED = 1


class Sampler(msgspec.Struct, frozen=True, kw_only=True):
    """Decides which requests leave spans, as OpenTelemetry's samplers of the same names do."""

    ratio: float = 1.0
    """The share of traces to sample, from 0 to 1."""
    follows_parent: bool = True
    """Whether the decision of a client that sends a trace context counts instead."""

    def decide(self, trace_id: bytes) -> bool:
        """Return whether to sample this trace. Every service decides the same for the same id."""
        return int.from_bytes(trace_id[8:]) < round(self.ratio * 2**64)


class TracedAnswer(msgspec.Struct, frozen=True, gc=False):
    """What the span of an answered request records of the answer."""

    encoding_format: str
    items: int
    tokens: int
    cost_nano_usd: NanoUsd
    space: SpaceId


class RequestTrace(msgspec.Struct, gc=False):
    """The trace of one request, and what its span records. `Tracer.end` fills in the end."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """The client's span; empty if it sent none."""
    state: str
    """The client's `tracestate`."""
    is_sampled: bool
    start_ns: int
    """When it began, in ns since the epoch. So are all times of spans."""
    end_ns: int = 0
    calls: int = 0
    """The calls begun so far."""
    method: str = ""
    path: str = ""
    status: int = 0
    request_id: str = ""
    facts: Mapping[str, str] = {}
    """The fields of the request's log line."""
    answer: TracedAnswer | None = None

    def headers(self, span_id: bytes) -> Mapping[str, str]:
        """Return the headers that make a span of this trace the parent of what a server does."""
        flags = _SAMPLED if self.is_sampled else 0
        parent = f"00-{self.trace_id.hex()}-{span_id.hex()}-{flags:02x}"
        if self.state:
            return {"traceparent": parent, "tracestate": self.state}
        return {"traceparent": parent}


current: ContextVar[RequestTrace | None] = ContextVar("current_trace", default=None)
"""The trace of the request that the running code works for; None if it is not traced."""


def begin_trace(headers: Sequence[tuple[bytes, bytes]], sampler: Sampler) -> RequestTrace:
    """Return a trace that continues the client's, or a new one if it sent no valid context."""
    parent = _read_parent([value for name, value in headers if name == b"traceparent"])
    if parent is None:
        trace_id, parent_id, state = ids.random_bytes(16), b"", ""
        is_sampled = sampler.decide(trace_id)
    else:
        trace_id, parent_id, is_sampled = parent
        state = _read_state([value for name, value in headers if name == b"tracestate"])
        if not sampler.follows_parent:
            is_sampled = sampler.decide(trace_id)
    return RequestTrace(
        trace_id, new_span_id(), parent_id, state, is_sampled, start_ns=time.time_ns()
    )


def note_answer(answer: TracedAnswer) -> None:
    """Note the answer to the request in progress, for its span."""
    trace = current.get()
    if trace is not None:
        trace.answer = answer


def new_span_id() -> bytes:
    """Return a new span id, of eight bytes."""
    return ids.random_bytes(8)


def add_trace_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Add the id of a sampled trace to a log line, as a structlog processor."""
    trace = current.get()
    if trace is not None and trace.is_sampled:
        event["trace_id"] = trace.trace_id.hex()
    return event


def _read_parent(values: Sequence[bytes]) -> tuple[bytes, bytes, bool] | None:
    """Return the trace id, the span id and the sampled flag of a client's `traceparent`.

    Returns None for a header that is missing, sent twice or malformed; W3C then begins a new trace.
    """
    match = _PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # Later versions may add fields; version 0 has none, and ff is reserved.
    if version == b"ff" or (version == b"00" and more):
        return None
    trace, span = bytes.fromhex(trace_id.decode()), bytes.fromhex(span_id.decode())
    return (trace, span, bool(int(flags, 16) & _SAMPLED)) if any(trace) and any(span) else None


def _read_state(values: Sequence[bytes]) -> str:
    """Return a client's `tracestate`, or nothing if it is malformed or too long."""
    state = b",".join(values)
    is_valid = len(state) <= MAX_STATE_CHARACTERS and _PRINTABLE.fullmatch(state)
    return state.decode() if is_valid else ""
