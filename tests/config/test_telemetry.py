"""Where traces and metrics go: `otlp_endpoint` and OpenTelemetry's variables."""

from pathlib import Path

import pytest
from conftest import embedway

from embedway.config.settings import ConfigError, LoadedSettings, Settings
from embedway.config.telemetry import read_telemetry
from embedway.observe.otlp_options import OtlpOptions
from embedway.observe.trace_context import begin_trace

SAMPLED = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
UNSAMPLED = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
RECEIVER = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


def read(endpoint: str | None = None, **variables: str) -> OtlpOptions | None:
    """Read the options from a setting and from variables, without their `OTEL_`."""
    settings = Settings.model_validate({"otlp_endpoint": endpoint} if endpoint else {})
    named = {f"OTEL_{name}": value for name, value in variables.items()}
    return read_telemetry(LoadedSettings(settings, {}, [], named))


def urls(endpoint: str | None = None, **variables: str) -> tuple[str | None, str | None] | None:
    """Return where spans and metrics go."""
    options = read(endpoint, **variables)
    return options and (options.traces_url, options.metrics_url)


def test_where_they_go() -> None:
    """Nothing is sent unless asked for. The most specific address wins."""
    assert urls() is None
    both = ("http://a:4318/v1/traces", "http://a:4318/v1/metrics")
    assert urls("http://a:4318") == urls(EXPORTER_OTLP_ENDPOINT="http://a:4318/") == both
    assert urls("http://a:4318", EXPORTER_OTLP_ENDPOINT="http://b:4318") == both
    assert urls("http://a:4318", SDK_DISABLED="true") is None
    assert urls("http://a:4318", METRICS_EXPORTER="none") == (both[0], None)
    assert urls("http://a:4318", TRACES_EXPORTER="none", METRICS_EXPORTER="none") is None
    own = "https://b/traces"
    assert urls("http://a:4318", EXPORTER_OTLP_TRACES_ENDPOINT=own) == (own, both[1])
    assert urls(EXPORTER_OTLP_METRICS_ENDPOINT=own) == (None, own)


def test_headers_and_resource() -> None:
    """Lists are decoded; OTEL_SERVICE_NAME beats the resource's; headers are in no repr."""
    options = read(
        "http://a:4318",
        EXPORTER_OTLP_HEADERS="api-key=s3cret%3D1 , x-scope = two=2",
        RESOURCE_ATTRIBUTES="service.name=x,team=caf%C3%A9",
        SERVICE_NAME="shop",
    )
    assert options.headers == {"api-key": "s3cret=1", "x-scope": "two=2"}
    assert (options.resource["service.name"], options.resource["team"]) == ("shop", "café")
    assert "s3cret" not in repr(options)


@pytest.mark.parametrize(
    ("sampler", "ratio", "new", "sampled", "unsampled"),
    [
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("parentbased_always_on", "", True, True, False),
        ("parentbased_always_off", "", False, True, False),
        ("traceidratio", "0", False, False, False),
        ("traceidratio", "1", True, True, True),
        ("parentbased_traceidratio", "0.0", False, True, False),
    ],
)
def test_samplers(sampler: str, ratio: str, *, new: bool, sampled: bool, unsampled: bool) -> None:
    """Each sampler decides as OpenTelemetry's: with no client's trace, and with either kind."""
    options = read("http://a:4318", TRACES_SAMPLER=sampler, TRACES_SAMPLER_ARG=ratio or "1")
    decided = [
        begin_trace(headers, options.sampler).is_sampled for headers in ([], SAMPLED, UNSAMPLED)
    ]
    assert decided == [new, sampled, unsampled]


def test_a_ratio_samples_that_share() -> None:
    """A ratio samples this share of new traces, and decides the same for the same trace."""
    sampler = read(
        "http://a:4318", TRACES_SAMPLER="traceidratio", TRACES_SAMPLER_ARG="0.25"
    ).sampler
    traces = [begin_trace([], sampler) for _ in range(4000)]
    assert 800 < sum(each.is_sampled for each in traces) < 1200
    assert all(sampler.decide(each.trace_id) == each.is_sampled for each in traces)
    # OpenTelemetry's samplers compare the last eight bytes with the bound.
    assert sampler.decide(bytes(8) + b"\x3f" + b"\xff" * 7)
    assert not sampler.decide(bytes(8) + b"\x40" + bytes(7))


@pytest.mark.parametrize(
    "variables",
    [
        {"TRACES_SAMPLER": "sometimes"},
        {"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "1.5"},
        {"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "half"},
        {"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "nan"},
        {"EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"METRICS_EXPORTER": "prometheus"},
        {"METRIC_EXPORT_INTERVAL": "0"},
    ],
)
def test_wrong_values(variables: dict[str, str]) -> None:
    """A wrong value is refused by name, with the value and the cure."""
    name, value = list(variables.items())[-1]
    with pytest.raises(ConfigError, match=f"OTEL_{name} = '{value}': .*Correct it, or remove it"):
        read("http://a:4318", **variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"EXPORTER_OTLP_HEADERS": "s3cret"},
        {"EXPORTER_OTLP_HEADERS": "=s3cret"},
        {"EXPORTER_OTLP_HEADERS": "key=s3cret%0d%0aHost: x"},
        {"EXPORTER_OTLP_HEADERS": "kéy=s3cret"},
        {"EXPORTER_OTLP_HEADERS": "key=s3cret\u2028."},
        {"EXPORTER_OTLP_ENDPOINT": "http://me:s3cret@collector:4318"},
        {"EXPORTER_OTLP_ENDPOINT": "s3cret:4317"},
        {"EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:99999/s3cret"},
    ],
)
def test_wrong_secrets(variables: dict[str, str]) -> None:
    """What may hold a secret is refused by name alone."""
    with pytest.raises(ConfigError, match=f"OTEL_{next(iter(variables))}: ") as refused:
        read(**{"EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:4318", **variables})
    assert "s3cret" not in str(refused.value)


def test_a_wrong_setting(tmp_path: Path) -> None:
    """A password in `otlp_endpoint` is refused, and not shown."""
    done = embedway(
        "config", "show", env={"EMBEDWAY_OTLP_ENDPOINT": "http://me:s3cret@h:4318"}, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "EMBEDWAY_OTLP_ENDPOINT: it must be an address" in done.stderr
    assert "s3cret" not in done.stderr
