"""Kills a replica under load."""

import signal
from collections.abc import Sequence

from chaos.processes.check import Check, at_least, at_most
from chaos.processes.clients import NO_ANSWER, Clients, wait_until
from chaos.processes.scenarios.restarts import one_record_each
from chaos.processes.stage import Stage, records

KILLS = 10
CONNECTIONS = 16
BETWEEN = 200
"""How many answers there are at least between two kills."""


def run(stage: Stage) -> Sequence[Check]:
    """Kill a replica by SIGKILL under load, again and again, while the other one serves."""
    kills = 1 if stage.is_short else KILLS
    replicas = stage.replicas(stage.provider(0.01))
    first, second = replicas.gateways
    key = first.new_key()
    with (
        Clients(first.url, key.secret, connections=CONNECTIONS) as killed,
        Clients(second.url, key.secret, connections=2) as spared,
    ):
        for number in range(kills):
            stage.say(f"kill {number + 1} of {kills}")
            before = len(killed.ids())
            wait_until(lambda before=before: len(killed.ids()) > before + BETWEEN, "no answers.")
            first.signal(signal.SIGKILL)
            first.process.wait()
            first.start()
            first.wait_until_ready()
    ids = killed.ids() + spared.ids()
    recorded = records(second)
    lost = killed.statuses()[NO_ANSWER]
    return [
        *one_record_each(ids, recorded),
        at_most(
            "records of answers that were under way, for each kill",
            CONNECTIONS,
            (len(recorded) - len(set(ids))) / kills,
            "",
        ),
        at_least("requests that a kill broke off", 1, lost, ""),
        at_most("failed requests at the other replica", 0, len(spared.answers) - len(spared.ids()), ""),
    ]
