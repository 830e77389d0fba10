"""The scenarios, in the order in which they run."""

from collections.abc import Callable, Mapping, Sequence

from chaos.processes.check import Check
from chaos.processes.scenarios import (
    clock,
    database,
    disk,
    idle,
    kill,
    overload,
    redis,
    restarts,
    tenants,
)
from chaos.processes.stage import Stage

Scenario = Callable[[Stage], Sequence[Check]]

SCENARIOS: Mapping[str, Scenario] = {
    "restarts": restarts.run,
    "kill": kill.run,
    "redis": redis.run,
    "database": database.run,
    "disk": disk.run,
    "clock": clock.run,
    "idle": idle.run,
    "overload": overload.run,
    "tenants": tenants.run,
}
"""By name, what runs it. The first sentence of its docstring says what it does."""


def describe(name: str) -> str:
    """Return what a scenario does, in a sentence."""
    return (SCENARIOS[name].__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
