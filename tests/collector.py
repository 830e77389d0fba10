"""Runs a collector: a real server that takes OTLP over HTTP, as Jaeger or Tempo do."""

import contextlib
import http.server
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from raw_http import until


@dataclass
class ReceivedSpan:
    """A span as the collector received it."""

    span: OtlpSpan
    attributes: dict[str, Any]

    @property
    def id(self) -> str:
        """The span's id."""
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        """The id of its parent; empty for none."""
        return self.span.parent_span_id.hex()

    @property
    def is_request(self) -> bool:
        """Whether it is the span of a request, not of a call."""
        return self.span.kind == OtlpSpan.SPAN_KIND_SERVER

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str) -> Any:
        """Return an attribute, or None."""
        return self.attributes.get(name)


class Collector:
    """A collector on a free local port while the context is open.

    It answers `status`; while `held` is not set, it answers nothing at all.
    """

    def __init__(self) -> None:
        self.status, self.rejected = 200, 0
        self.reply = b""
        """What it replies in place of a proper message."""
        self.received: list[tuple[str, Mapping[str, str], bytes]] = []
        """The path, the headers and the body of each message that it took."""
        self.refused = 0
        self.resource: dict[str, Any] = {}
        """The attributes of the gateway."""
        self.spans: list[ReceivedSpan] = []
        self.free = threading.Event()
        self.free.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.free.wait()
                status = collector.status
                if status == 200:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    collector.take(self.path, headers, body)
                else:
                    collector.refused += 1
                reply = ExportTraceServiceResponse()
                if collector.rejected:
                    reply.partial_success.rejected_spans = collector.rejected
                content = collector.reply or reply.SerializeToString()
                with contextlib.suppress(OSError):  # the gateway has ended
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Keep a message."""
        if path == "/v1/traces":
            [group] = ExportTraceServiceRequest.FromString(body).resource_spans
            [scope] = group.scope_spans
            self.resource = attributes(group.resource.attributes)
            self.spans += [ReceivedSpan(each, attributes(each.attributes)) for each in scope.spans]
        self.received.append((path, headers, body))

    def trace(self, request_id: str) -> tuple[ReceivedSpan, list[ReceivedSpan]]:
        """Wait for the span of a request; return it, and those of its calls."""
        until(lambda: self._request(request_id))
        [request] = self._request(request_id)
        calls = [
            each
            for each in self.spans
            if each.span.trace_id == request.span.trace_id and not each.is_request
        ]
        return request, sorted(calls, key=lambda each: each["embedway.call"])

    def _request(self, request_id: str) -> list[ReceivedSpan]:
        return [each for each in list(self.spans) if each.get("embedway.request_id") == request_id]

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return the points of the last message with metrics: by name, and then by labels."""
        *_, last = [body for path, _, body in self.received if path == "/v1/metrics"]
        [resource] = ExportMetricsServiceRequest.FromString(last).resource_metrics
        [scope] = resource.scope_metrics
        assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
        return {
            metric.name: {
                str(sorted(attributes(point.attributes).items())): point
                for point in getattr(metric, metric.WhichOneof("data")).data_points
            }
            for metric in scope.metrics
        }


def attributes(pairs: list[KeyValue]) -> dict[str, Any]:
    """Return attributes as a dictionary. Each name is there once, and has a value."""
    named = {pair.key: value(pair.value) for pair in pairs}
    assert len(named) == len(pairs)
    return named


def value(given: AnyValue) -> Any:
    """Return the value that a message holds."""
    kind = given.WhichOneof("value")
    assert kind is not None
    held = getattr(given, kind)
    return [value(each) for each in held.values] if kind == "array_value" else held
