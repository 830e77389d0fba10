"""Encodes spans and metrics as OTLP messages, with the names of OpenTelemetry's conventions.

Imported only if a collector is configured, because the protobuf messages are an extra. Requests
wait for the time that encoding takes, so the parts that many spans share are encoded once.
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
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Histogram,
    HistogramDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client.core import Metric

import embedway
from embedway.catalog.model import LOCAL
from embedway.core.batch import clients_name
from embedway.core.redaction import redact
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
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add(resource=_resource(resource))
    sink = group.scope_spans.add(scope=_SCOPE).spans
    for span in spans:
        if isinstance(span, CallSpan):
            _write_call(sink.add(), span, addresses.get(span.deployment.provider))
        else:
            _write_request(sink.add(), span)
    return message.SerializeToString()


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


def _write_request(message: OtlpSpan, trace: RequestTrace) -> None:
    facts, answer = trace.facts, trace.answer
    message.MergeFromString(
        _request_facts(
            trace.method,
            trace.path,
            trace.status,
            facts.get("model", ""),
            facts.get("project"),
            facts.get("key"),
            facts.get("reason"),
            answer and answer.encoding_format,
            answer and answer.width,
        )
    )
    _place(message, trace, trace.span_id, trace.parent_id, trace.start_ns, trace.end_ns)
    message.flags = _SAMPLED | _HAS_IS_REMOTE | (_IS_REMOTE if trace.parent_id else 0)
    values: dict[str, Value] = {"embedway.request_id": trace.request_id}
    if answer is not None:
        values |= {
            "embedway.items": answer.items,
            "embedway.tokens": answer.tokens,
            "embedway.cost_usd": answer.cost_nano_usd / 1e9,
            "embedway.space": str(answer.space),
        }
    _put(message.attributes, values)


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
    width: int | None,
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
            "gen_ai.embeddings.dimension.count": width,
            "embedway.project_id": project,
            "embedway.key_id": key,
        },
    )
    if encoding_format:
        formats = span.attributes.add(key="gen_ai.request.encoding_formats").value.array_value
        formats.values.add(string_value=encoding_format)
    return span.SerializeToString()


def _write_call(message: OtlpSpan, call: CallSpan, address: ProviderAddress | None) -> None:
    deployment = call.deployment
    message.MergeFromString(
        _call_facts(
            deployment.id,
            deployment.upstream_name,
            deployment.provider,
            address,
            call.number,
            call.is_probe,
            call.error,
            call.status,
            call.model,
            call.width,
        )
    )
    trace = call.trace
    _place(message, trace, call.span_id, trace.span_id, call.start_ns, call.end_ns)
    message.flags = _SAMPLED | _HAS_IS_REMOTE
    _put(
        message.attributes,
        {"embedway.items": call.items, "gen_ai.usage.input_tokens": call.tokens},
    )


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
    message: OtlpSpan, trace: RequestTrace, span_id: bytes, parent: bytes, start: int, end: int
) -> None:
    """Write where and when a span belongs."""
    message.trace_id = trace.trace_id
    message.span_id = span_id
    message.parent_span_id = parent
    message.start_time_unix_nano, message.end_time_unix_nano = start, end
    if trace.state:
        message.trace_state = trace.state


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
