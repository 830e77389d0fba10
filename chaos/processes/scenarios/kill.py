"""Kills a replica under load."""

import signal
from collections.abc import Sequence

from chaos.processes.check import Check, at_least, at_most, none_of
from chaos.processes.clients import NO_ANSWER, Clients, wait_until
from chaos.processes.scenarios.restarts import one_record_each
from chaos.processes.stage import Stage, records, start

KILLS = 10
CONNECTIONS = 16
BETWEEN = 100
"""How many answers there are at least between two kills."""


def run(stage: Stage) -> Sequence[Check]:
    """Kill a replica by SIGKILL under load, ten times, while the other one serves."""
    kills = 1 if stage.is_short else KILLS
    first, second = stage.replicas().gateways
    key = first.new_key()
    with (
        Clients(first.url, key.secret, connections=CONNECTIONS) as killed,
        Clients(second.url, key.secret, per_s=20) as spared,
    ):
        for number in range(kills):
            stage.say(f"kill {number + 1} of {kills}")
            enough = len(killed.ids()) + BETWEEN
            wait_until(lambda: len(killed.ids()) > enough, "there are too few answers.")  # noqa: B023
            first.signal(signal.SIGKILL)
            assert first.process is not None
            first.process.wait()
            start(first)
        wait_until(lambda: killed.answers[-1].status == 200, "the replica does not answer.")
    ids = killed.ids() + spared.ids()
    recorded = records(second, key)
    return [
        *one_record_each(ids, recorded),
        at_least("requests that kills broke off", 1, killed.statuses()[NO_ANSWER], ""),
        at_most(
            "of those, charged because they were recorded before the kill, for each kill",
            CONNECTIONS,
            (len(recorded) - len(set(ids))) / kills,
            "",
        ),
        none_of(
            "failed requests at the other replica",
            len(spared.answers) - len(spared.ids()),
            out_of=len(spared.answers),
        ),
    ]
