"""Defines every metric of the gateway, in one registry that `/metrics` prints.

Labels have few values: routes, statuses and models of this gateway, never what a client sent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import partial
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from embedway.catalog.deployment import Deployment
from embedway.core.money import NANO_PER_USD, NanoUsd
from embedway.observe.metric_sums import PROCESS_GAUGES, Combine, Snapshot, Sums
from embedway.observe.tallies import CounterTally, HistogramTally

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        disable_created_metrics()  # they would double the page
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.collect_all: Callable[[], Awaitable[Sequence[Snapshot]]] | None = None
        """Returns the metrics of all processes that serve this address, this one among them; None
        if there is only this one."""
        self._gauges: dict[str, Combine] = {}
        counter = partial(Counter, registry=self.registry)
        tally = partial(CounterTally, registry=self.registry)
        seconds = partial(HistogramTally, buckets=SECONDS, registry=self.registry)
        self.requests = tally(
            "embedway_requests", "Answers, by route and HTTP status.", ["route", "status"]
        )
        self.latency = seconds(
            "embedway_request_seconds", "From the head of an embeddings request to its answer."
        )
        self.items = tally("embedway_items", "Items embedded and answered.", ["model"])
        self.tokens = tally("embedway_tokens", "Tokens embedded and answered.", ["model"])
        self.cost = tally("embedway_cost_usd", "USD charged for answers.", ["provider", "model"])
        self.batch_items = Histogram(
            "embedway_batch_items",
            "Items in one run of a local model.",
            ["model"],
            buckets=SIZES,
            registry=self.registry,
        )
        self.provider_calls = tally(
            "embedway_provider_calls",
            "Calls to providers, retries included, by what became of them.",
            ["provider", "outcome"],
        )
        self.provider_latency = seconds(
            "embedway_provider_seconds",
            "Of a call to a provider, until its vectors were checked or it failed.",
            ["provider"],
        )
        self.overcounts = counter(
            "embedway_provider_overcounts",
            "Answers whose reported tokens are more than the input can have. The excess is not "
            "billed to the caller.",
            ["deployment"],
        )
        self.unreadable_usages = counter(
            "embedway_provider_unreadable_usages",
            "Answers whose reported tokens are no whole number. They are billed by an estimate.",
            ["deployment"],
        )
        self.refusals = counter(
            "embedway_refusals",
            "Embeddings requests that were answered with an error, by its reason.",
            ["reason"],
        )
        self.budget_alerts = counter(
            "embedway_budget_alerts",
            "Times that a budget reached a share at which its owner wants to know.",
            ["of", "percent"],
        )
        self.ejections = counter(
            "embedway_ejections",
            "Times that a deployment was left alone after failures.",
            ["deployment"],
        )
        self.space_events = counter(
            "embedway_space_events",
            "What canaries found out about a deployment's vectors.",
            ["deployment", "event"],
        )
        self.loop_lag = seconds(
            "embedway_event_loop_lag_seconds",
            "How late a timer of the event loop ran, which delays every request as much.",
        )
        self.deliveries = counter(
            "embedway_webhook_deliveries",
            "Tries to deliver an event to a webhook, by what became of them.",
            ["webhook", "outcome"],
        )
        self._retires = Gauge(
            "embedway_deployment_retires_timestamp_seconds",
            "When a deployment's provider retires it, in seconds since 1970-01-01 UTC.",
            ["deployment"],
            registry=self.registry,
        )
        self._gauges["embedway_deployment_retires_timestamp_seconds"] = "max"

    def set_retirements(self, dates: Mapping[str, date]) -> None:
        """Replace the days on which deployments retire."""
        self._retires.clear()
        for deployment, day in dates.items():
            midnight = datetime.combine(day, time.min, UTC)
            self._retires.labels(deployment).set(midnight.timestamp())

    def count_request(self, route: str, status: int) -> None:
        """Count an answer."""
        self.requests.add(1, route, str(status))

    def count_answer(
        self,
        deployments: Sequence[Deployment],
        *,
        costs_nano_usd: Sequence[NanoUsd],
        items: int,
        tokens: int,
    ) -> None:
        """Count an answered request, and what each deployment charges for its part of it."""
        self.items.add(items, deployments[0].label)
        self.tokens.add(tokens, deployments[0].label)
        for each, cost in zip(deployments, costs_nano_usd, strict=True):
            self.cost.add(cost / NANO_PER_USD, each.provider, each.label)

    def count_call(self, provider: str, seconds: float, outcome: str) -> None:
        """Count a call to a provider; `outcome` is `ok` or the kind of its failure."""
        self.provider_calls.add(1, provider, outcome)
        self.provider_latency.observe(seconds, provider)

    def count_delivery(self, webhook: str, outcome: str) -> None:
        """Count a try to deliver an event."""
        self.deliveries.labels(webhook, outcome).inc()

    def add_gauge(
        self,
        name: str,
        documentation: str,
        read: Callable[[], float],
        *,
        combine: Combine = "sum",
    ) -> None:
        """Add a gauge whose value is what `read` returns at each scrape.

        Of several processes that serve one address, `combine` makes one value.
        """
        Gauge(name, documentation, registry=self.registry).set_function(read)
        self._gauges[name] = combine

    def add_counter(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        """Add a counter whose value is what `read` returns at each scrape."""
        self.registry.register(_ReadCounter(name, documentation, read))

    async def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        collector = await self._collector()
        return generate_latest(cast("CollectorRegistry", collector))

    async def read_gauges(self) -> dict[str, float]:
        """Return the present value of each gauge of this gateway that has no labels."""
        return {
            family.name: family.samples[0].value
            for family in (await self._collector()).collect()
            if family.type == "gauge"
            and family.name.startswith("embedway_")
            and family.samples
            and not family.samples[0].labels
        }

    def snapshot(self) -> Snapshot:
        """Return all metrics of this process as they are now."""
        return list(self.registry.collect())

    async def _collector(self) -> "CollectorRegistry | Sums":
        if self.collect_all is None:
            return self.registry
        return Sums(await self.collect_all(), {**PROCESS_GAUGES, **self._gauges})


class _ReadCounter(Collector):
    """A counter whose value is kept elsewhere."""

    def __init__(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        self._name, self._documentation, self._read = name, documentation, read

    def collect(self) -> list[CounterMetricFamily]:
        """Return the value now."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._read())]
