"""Reads where traces and metrics go: `otlp_endpoint` and OpenTelemetry's own variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ define the variables.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from urllib.parse import unquote, urlsplit

import embedway
from embedway.config.schema import ConfigError
from embedway.config.settings import LoadedSettings, check_collector
from embedway.core.extras import MissingExtra
from embedway.observe.otlp_options import OtlpOptions
from embedway.observe.trace_context import Sampler
from embedway.observe.tracing import ProviderAddress
from embedway.providers.provider_config import ProviderConfig

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
SAMPLER, SAMPLER_ARG = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
METRICS_EVERY_MS = "OTEL_METRIC_EXPORT_INTERVAL"

RATIOS: Mapping[str, float | None] = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": None,
    "parentbased_always_on": 1.0,
    "parentbased_always_off": 0.0,
    "parentbased_traceidratio": None,
}
"""The share of traces that each sampler samples; None for the share in `SAMPLER_ARG`."""
USUAL_SAMPLER = "parentbased_always_on"
LONGEST_MS = 3_600_000


def read_telemetry(loaded: LoadedSettings) -> OtlpOptions | None:
    """Return where to send traces and metrics, or None if no collector is set.

    Raises:
        ConfigError: A variable cannot be used, or the package of the extra is missing.
    """
    variables = loaded.variables
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    base = loaded.settings.otlp_endpoint or _address(variables, ENDPOINT)
    traces_url = _signal_url(variables, "traces", base)
    metrics_url = _signal_url(variables, "metrics", base)
    if not (traces_url or metrics_url):
        return None
    if variables.get(PROTOCOL, "http/protobuf") != "http/protobuf":
        raise _error(variables, PROTOCOL, "this gateway speaks http/protobuf, usually on port 4318")
    try:
        import_module("opentelemetry.proto.trace.v1.trace_pb2")
    except ImportError:
        raise ConfigError(str(MissingExtra("otel", "OpenTelemetry (otlp_endpoint)"))) from None
    resource = dict(_pairs(variables, RESOURCE))
    return OtlpOptions(
        traces_url=traces_url,
        metrics_url=metrics_url,
        headers=dict(_pairs(variables, HEADERS)),
        resource={
            "service.name": "embedway",
            "service.version": embedway.__version__,
            # Two replicas must not write the same series.
            "service.instance.id": str(uuid.uuid4()),
            **resource,
            **({"service.name": name} if (name := variables.get("OTEL_SERVICE_NAME")) else {}),
        },
        sampler=_sampler(variables),
        metrics_every_s=_number(variables, METRICS_EVERY_MS, 60_000, least=100, most=LONGEST_MS)
        / 1000,
    )


def find_addresses(providers: Sequence[ProviderConfig]) -> Mapping[str, ProviderAddress]:
    """Return the address of each provider by its name."""
    addresses: dict[str, ProviderAddress] = {}
    for each in providers:
        parts = urlsplit(each.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses[each.name] = ProviderAddress(each.row.name, parts.hostname or "", port)
    return addresses


def _signal_url(variables: Mapping[str, str], signal: str, base: str | None) -> str | None:
    """Return the URL that takes a signal; None if it is not sent."""
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    chosen = variables.get(exporter, "otlp")
    if chosen not in {"otlp", "none"}:
        raise _error(variables, exporter, "use 'otlp' or 'none'")
    if chosen == "none":
        return None
    own = _address(variables, f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return own or (f"{base}/v1/{signal}" if base else None)


def _address(variables: Mapping[str, str], name: str) -> str | None:
    try:
        return check_collector(variables[name]) if name in variables else None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}. Correct it, or remove it.") from None


def _sampler(variables: Mapping[str, str]) -> Sampler:
    name = variables.get(SAMPLER, USUAL_SAMPLER)
    if name not in RATIOS:
        raise _error(variables, SAMPLER, f"use one of {', '.join(RATIOS)}")
    ratio = RATIOS[name]
    if ratio is None:
        ratio = _number(variables, SAMPLER_ARG, 1, least=0, most=1)
    return Sampler(ratio=ratio, follows_parent=name.startswith("parentbased_"))


def _number(
    variables: Mapping[str, str], name: str, default: float, *, least: float, most: float
) -> float:
    try:
        value = float(variables.get(name, default))
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise _error(variables, name, f"use a number from {least:g} to {most:g}")
    return value


def _pairs(variables: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a list such as `name=value,name=value`."""
    for pair in filter(None, map(str.strip, variables.get(name, "").split(","))):
        key, equals, value = (unquote(each.strip()) for each in pair.partition("="))
        if not (key and equals) or not (key + value).isprintable() or not key.isascii():
            # The value may be a secret, so it is not quoted.
            raise ConfigError(
                f"{name}: write it as 'name=value,name=value', with special characters as %XX. "
                "Correct it, or remove it."
            )
        yield key, value


def _error(variables: Mapping[str, str], name: str, cure: str) -> ConfigError:
    return ConfigError(f"{name} = {variables[name]!r}: {cure}. Correct it, or remove it.")
