"""Encodes spans and metrics as OTLP messages, with the names of OpenTelemetry's conventions.

Imported only if a collector is configured, because the protobuf messages are an extra. Requests
wait for the time that encoding takes, so the parts that many spans share are encoded once, and
joined with the rest as bytes: https://protobuf.dev/programming-guides/encoding/#last-one-wins.
https://github.com/open-telemetry/semantic-conventions-genai defines the names in `gen_ai.*`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPMethod, HTTPStatus
from typing import Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Histogram,
    HistogramDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from prometheus_client.core import Metric

import embedway
from embedway.catalog.model import LOCAL
from embedway.core.batch import clients_name
from embedway.core.redaction import redact
from embedway.core.space_id import SpaceId
from embedway.core.usage import CLIENT_LEFT as CLIENT_LEFT_STATUS
from embedway.observe.trace_context import RequestTrace
from embedway.observe.tracing import CLIENT_LEFT, CallSpan, ProviderAddress, Span

CALL_SECONDS = "embedway_provider_seconds"
"""The metric that is also sent as `OPERATION_SECONDS`."""
OPERATION_SECONDS = "gen_ai.client.operation.duration"
PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "foundry": "azure.ai.inference",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
}
"""OpenTelemetry's names for kinds of providers, where they differ from ours."""

_SCOPE = InstrumentationScope(name="embedway", version=embedway.__version__)
_EMBEDDINGS = "embeddings"
_MORE = 0x80  # the bit of a byte that is not the last of a length
_SAMPLED, _HAS_IS_REMOTE, _IS_REMOTE = 0x1, 0x100, 0x200
# A provider may answer anything, even an input, where it should name a model.
_MODEL_NAME = re.compile(r"[\w.:/@+-]{1,256}")

Value = str | int | float | None


class Attributes(Protocol):
    """The attributes of a message."""

    def add(self) -> KeyValue:
        """Add an empty attribute, and return it."""
        ...


def encode_spans(
    spans: Iterable[Span], *, resource: Mapping[str, str], addresses: Mapping[str, ProviderAddress]
) -> bytes:
    """Return the message that exports these spans.

    Args:
        spans: The spans.
        resource: The attributes of this gateway.
        addresses: The address of each provider by its name.
    """
    encoded = ScopeSpans(scope=_SCOPE).SerializeToString()
    encoded += b"".join(
        _field(2, _encode_call(span, addresses.get(span.deployment.provider)))
        if isinstance(span, CallSpan)
        else _field(2, _encode_request(span))
        for span in spans
    )
    group = ResourceSpans(resource=_resource(resource)).SerializeToString() + _field(2, encoded)
    return _field(1, group)


def _field(number: int, message: bytes) -> bytes:
    """Return a message as a field of another, which may be joined with the other's other fields."""
    head, length = bytearray((number << 3 | 2,)), len(message)
    while length >= _MORE:
        head.append(length % _MORE | _MORE)
        length >>= 7
    head.append(length)
    return bytes(head) + message


def rejected_spans(reply: bytes) -> int:
    """Return how many spans the collector says it rejected; 0 for a reply that cannot be read."""
    try:
        return ExportTraceServiceResponse.FromString(reply).partial_success.rejected_spans
    except DecodeError:
        return 0


def encode_metrics(
    metrics: Iterable[Metric],
    *,
    resource: Mapping[str, str],
    addresses: Mapping[str, ProviderAddress],
    start_ns: int,
    now_ns: int,
) -> bytes:
    """Return the message that exports these metrics.

    Args:
        metrics: What the registry of `/metrics` has collected.
        resource: The attributes of this gateway.
        addresses: The address of each provider by its name.
        start_ns: When counting began, in ns since the epoch.
        now_ns: The time now.
    """
    message = ExportMetricsServiceRequest()
    group = message.resource_metrics.add(resource=_resource(resource))
    sink = group.scope_metrics.add(scope=_SCOPE).metrics
    for metric in metrics:
        if not metric.samples:
            continue
        if metric.type == "counter":
            total = sink.add(name=f"{metric.name}_total", description=metric.documentation).sum
            total.is_monotonic = True
            total.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            points = total.data_points
        elif metric.type == "histogram":
            histogram = sink.add(name=metric.name, description=metric.documentation).histogram
            _write_histogram(histogram, metric, start_ns=start_ns, now_ns=now_ns)
            if metric.name == CALL_SECONDS:
                operations = sink.add(name=OPERATION_SECONDS, unit="s").histogram
                operations.CopyFrom(histogram)
                _rename_provider(operations, addresses)
            continue
        else:
            gauge = sink.add(name=metric.name, description=metric.documentation).gauge
            points = gauge.data_points
        for sample in metric.samples:
            point = points.add(time_unix_nano=now_ns, as_double=sample.value)
            if metric.type == "counter":
                point.start_time_unix_nano = start_ns
            _put(point.attributes, sample.labels)
    return message.SerializeToString()


def _resource(attributes: Mapping[str, str]) -> Resource:
    resource = Resource()
    _put(resource.attributes, attributes)
    return resource


def _put(attributes: Attributes, values: Mapping[str, Value]) -> None:
    """Add attributes, except those without a value."""
    for name, value in values.items():
        if value is None or value == "":
            continue
        attribute = attributes.add()
        attribute.key = name
        if isinstance(value, str):
            attribute.value.string_value = value
        elif isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.double_value = value


def _encode_request(trace: RequestTrace) -> bytes:
    facts, answer = trace.facts, trace.answer
    shared = _request_facts(
        trace.method,
        trace.path,
        trace.status,
        facts.get("model", ""),
        facts.get("project"),
        facts.get("key"),
        facts.get("reason"),
        answer and answer.encoding_format,
        answer and answer.items,
        answer and answer.space,
    )
    message = _place(trace, trace.span_id, trace.parent_id, trace.start_ns, trace.end_ns)
    message.flags = _SAMPLED | _HAS_IS_REMOTE | (_IS_REMOTE if trace.parent_id else 0)
    values: dict[str, Value] = {"embedway.request_id": trace.request_id}
    if answer is not None:
        values["embedway.tokens"] = answer.tokens
        values["embedway.cost_usd"] = answer.cost_nano_usd / 1e9
    _put(message.attributes, values)
    return message.SerializeToString() + shared


@lru_cache(maxsize=1024)
def _request_facts(
    method: str,
    path: str,
    status: int,
    model: str,
    project: str | None,
    key: str | None,
    reason: str | None,
    encoding_format: str | None,
    items: int | None,
    space: SpaceId | None,
) -> bytes:
    """Return the part of a request's span that many requests share."""
    method = method if method in HTTPMethod.__members__ else "_OTHER"
    span = OtlpSpan(name=f"{method} {path}", kind=OtlpSpan.SPAN_KIND_SERVER)
    error = CLIENT_LEFT if status == CLIENT_LEFT_STATUS else reason
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.status.code = Status.STATUS_CODE_ERROR
    _put(
        span.attributes,
        {
            "http.request.method": method,
            "http.route": path,
            "url.path": path,
            "url.scheme": "http",
            "http.response.status_code": status,
            "error.type": error,
            "gen_ai.operation.name": _EMBEDDINGS,
            "gen_ai.request.model": redact(model),
            "gen_ai.embeddings.dimension.count": space and space.dimensions,
            "embedway.project_id": project,
            "embedway.key_id": key,
            "embedway.items": items,
            "embedway.space": space and str(space),
        },
    )
    if encoding_format:
        formats = span.attributes.add(key="gen_ai.request.encoding_formats").value.array_value
        formats.values.add(string_value=encoding_format)
    return span.SerializeToString()


def _encode_call(call: CallSpan, address: ProviderAddress | None) -> bytes:
    deployment, trace = call.deployment, call.trace
    shared = _call_facts(
        deployment.id,
        deployment.upstream_name,
        deployment.provider,
        address,
        call.number,
        call.is_probe,
        call.error,
        call.status,
        call.model,
        call.items,
        call.width,
    )
    message = _place(trace, call.span_id, trace.span_id, call.start_ns, call.end_ns)
    message.flags = _SAMPLED | _HAS_IS_REMOTE
    _put(message.attributes, {"gen_ai.usage.input_tokens": call.tokens})
    return message.SerializeToString() + shared


@lru_cache(maxsize=1024)
def _call_facts(
    deployment: str,
    upstream_name: str,
    provider: str,
    address: ProviderAddress | None,
    number: int,
    is_probe: bool,  # noqa: FBT001  # a part of the cache's key
    error: str,
    status: int | None,
    model: str | None,
    items: int | None,
    width: int | None,
) -> bytes:
    """Return the part of a call's span that many calls share."""
    name = redact(clients_name(upstream_name))
    is_local = provider == LOCAL
    span = OtlpSpan(
        name=f"{_EMBEDDINGS} {name}",
        kind=OtlpSpan.SPAN_KIND_INTERNAL if is_local else OtlpSpan.SPAN_KIND_CLIENT,
    )
    if error:
        span.status.code = Status.STATUS_CODE_ERROR
    reported = clients_name(model or "")
    _put(
        span.attributes,
        {
            "gen_ai.operation.name": _EMBEDDINGS,
            "gen_ai.request.model": name,
            "gen_ai.response.model": reported if _MODEL_NAME.fullmatch(reported) else None,
            "gen_ai.embeddings.dimension.count": width,
            "http.response.status_code": status,
            "error.type": error,
            "embedway.deployment": redact(deployment),
            "embedway.call": number,
            "embedway.items": items,
            **_server(provider, address),
        },
    )
    if is_probe:
        span.attributes.add(key="embedway.probe").value.bool_value = True
    return span.SerializeToString()


def _server(provider: str, address: ProviderAddress | None) -> Mapping[str, Value]:
    """Return the attributes of a provider and of its server."""
    if address is None:
        return {"gen_ai.provider.name": provider}
    return {
        "gen_ai.provider.name": PROVIDERS.get(address.kind, address.kind),
        "server.address": address.host,
        "server.port": address.port,
    }


def _place(
    trace: RequestTrace, span_id: bytes, parent: bytes, start_ns: int, end_ns: int
) -> OtlpSpan:
    """Return a span that says only where and when it belongs."""
    return OtlpSpan(
        trace_id=trace.trace_id,
        span_id=span_id,
        parent_span_id=parent,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=end_ns,
        trace_state=trace.state,
    )


def _write_histogram(sink: Histogram, metric: Metric, *, start_ns: int, now_ns: int) -> None:
    """Write the points of a histogram. Prometheus adds each bucket to the next; OTLP does not."""
    sink.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    points: dict[tuple[str, ...], HistogramDataPoint] = {}
    below = 0.0
    for sample in metric.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        point = points.get(tuple(labels.values()))
        if point is None:
            point = sink.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=now_ns)
            points[tuple(labels.values())] = point
            _put(point.attributes, labels)
            below = 0.0
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            if bound < math.inf:
                point.explicit_bounds.append(bound)
            point.bucket_counts.append(round(sample.value - below))
            below = sample.value
        elif sample.name.endswith("_count"):
            point.count = round(sample.value)
        elif sample.name.endswith("_sum"):
            point.sum = sample.value


def _rename_provider(sink: Histogram, addresses: Mapping[str, ProviderAddress]) -> None:
    """Name the provider of each point as OpenTelemetry does."""
    for point in sink.data_points:
        provider = point.attributes[0].value.string_value
        point.attributes[0].key = "embedway.provider"
        _put(
            point.attributes,
            {
                "gen_ai.operation.name": _EMBEDDINGS,
                **_server(provider, addresses.get(provider)),
            },
        )
