"""Sends ten times what a gateway can answer."""

from collections.abc import Sequence

from chaos.processes.check import Check, at_least, at_most, none_of
from chaos.processes.clients import Clients
from chaos.processes.stage import BUSY_PLACES, Stage, memory_bytes

TIMES = 10
MEASURE_S = 15
LEAST_GOODPUT_PERCENT = 80
MOST_MEMORY = 1.3


def run(stage: Stage) -> Sequence[Check]:
    """Send ten times the requests that the gateway has just answered per second.

    Clients that are refused are followed by others at once, whatever `Retry-After` says.
    """
    measure_s = 1 if stage.is_short else MEASURE_S
    gateway = stage.busy()
    key = gateway.new_key()
    with Clients(gateway.url, key.secret, connections=BUSY_PLACES, is_patient=True) as usual:
        stage.wait(measure_s, "measuring what it can do")
    capacity = usual.rate_per_s()
    memory = memory_bytes(gateway)
    with Clients(gateway.url, key.secret, per_s=TIMES * capacity) as overload:
        stage.wait(measure_s, f"{TIMES * capacity:,.0f} requests a second")
        most = memory_bytes(gateway)
    most = max(most, memory_bytes(gateway))
    refused = [each for each in overload.answers if each.status != 200]
    return [
        at_least(
            "requests sent, in times of the capacity",
            TIMES / 2,
            _offered(overload) / capacity,
            " times",
            is_timing=True,
        ),
        at_least(
            "answers per second, as a share of the capacity",
            LEAST_GOODPUT_PERCENT,
            100 * overload.rate_per_s() / capacity,
            "%",
            is_timing=True,
        ),
        at_most("memory, in times of what it was", MOST_MEMORY, most / memory, " times"),
        none_of(
            "other requests without a 429 or 503 with `Retry-After`",
            sum(each.status not in {429, 503} or each.wait_s is None for each in refused),
            out_of=len(refused),
        ),
        at_most(
            "slowest 1% of refusals, in times of a usual answer",
            1,
            overload.latency_ms(0.99, status=None) / usual.latency_ms(0.5),
            " times",
            is_timing=True,
        ),
        at_most(
            "slowest 1% of answers, in times of those before",
            2,
            overload.latency_ms(0.99) / usual.latency_ms(0.99),
            " times",
            is_timing=True,
        ),
    ]


def _offered(clients: Clients) -> float:
    """Return how many requests were sent per second."""
    times = [each.sent_s for each in clients.answers]
    return len(times) / (max(times) - min(times))
