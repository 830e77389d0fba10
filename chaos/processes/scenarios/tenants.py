"""Lets one tenant take all that it can get."""

from collections.abc import Sequence

from benchmarks.gateway import ADMIN

from chaos.processes.check import Check, at_least, at_most
from chaos.processes.clients import Clients
from chaos.processes.stage import BUSY_PLACES, Stage

TENANTS = 2
TIMES = 50
CROWD = TIMES * BUSY_PLACES // TENANTS
USUAL = BUSY_PLACES // 8
"""What a project finds free when another one has taken all that it can."""
MEASURE_S = 20
MOST_LATENCY = 2
MOST_REFUSED_PERCENT = 1


def run(stage: Stage) -> Sequence[Check]:
    """Let one tenant ask for fifty times its equal share of the gateway, beside a usual one.

    The crowd's clients wait as long as `Retry-After` says before they try again.
    """
    measure_s = 1 if stage.is_short else MEASURE_S
    gateway = stage.busy()
    with gateway.administration() as service:
        projects = [service.create_project(ADMIN, {"name": each}).id for each in ("usual", "crowd")]
    usual, crowd = (gateway.new_key(project_id=each) for each in projects)
    with Clients(gateway.url, usual.secret, connections=USUAL) as alone:
        stage.wait(measure_s, "a tenant alone")
    with (
        Clients(gateway.url, usual.secret, connections=USUAL) as beside,
        Clients(gateway.url, crowd.secret, connections=CROWD, is_patient=True) as crowding,
    ):
        stage.wait(measure_s, f"{CROWD:,} clients of another tenant")
    refused = 100 * (1 - len(beside.ids()) / len(beside.answers))
    return [
        at_least("refusals of the crowd", 1, crowding.statuses()[503], ""),
        at_most(
            "the usual tenant's slowest 1%, in times of alone",
            MOST_LATENCY,
            beside.latency_ms(0.99) / alone.latency_ms(0.99),
            " times",
            is_timing=True,
        ),
        at_most("the usual tenant's refused requests", MOST_REFUSED_PERCENT, refused, "%"),
    ]
