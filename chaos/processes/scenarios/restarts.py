"""Restarts replicas one after another."""

from collections.abc import Sequence

from chaos.processes.check import Check, none_of
from chaos.processes.clients import Clients
from chaos.processes.stage import Stage, records

ROUNDS = 20
CONNECTIONS = 16


def run(stage: Stage) -> Sequence[Check]:
    """Restart two replicas behind nginx under load, one after the other, again and again.

    Clients keep their connections to nginx and send nothing twice.
    """
    rounds = 1 if stage.is_short else ROUNDS
    replicas = stage.replicas(stage.provider(0.01), drain_s=0.5 if stage.is_short else 2)
    key = replicas.gateways[0].new_key()
    url = stage.nginx(replicas.gateways)
    unclean = 0
    with Clients(url, key.secret, connections=CONNECTIONS) as clients:
        for number in range(rounds):
            for at, each in enumerate(replicas.gateways):
                stage.say(f"restart {number * 2 + at + 1} of {rounds * 2}")
                unclean += each.stop() != 0
                each.start()
                each.wait_until_ready()
    failed = len(clients.answers) - clients.statuses()[200]
    recorded = records(replicas.gateways[0])
    return [
        none_of("failed requests", failed, out_of=len(clients.answers)),
        none_of("restarts that ended with another status than 0", unclean, out_of=rounds * 2),
        *one_record_each(clients.ids(), recorded),
        none_of(
            "records of answers that nobody got",
            len(set(recorded) - set(clients.ids())),
            out_of=len(recorded),
        ),
    ]


def one_record_each(ids: Sequence[str], recorded: dict[str, int]) -> Sequence[Check]:
    """Return the checks that every answer has its usage record, and once."""
    return [
        none_of("answers without a record", sum(each not in recorded for each in ids), out_of=len(ids)),
        none_of(
            "answers with two records or an id twice",
            sum(count > 1 for count in recorded.values()) + len(ids) - len(set(ids)),
            out_of=len(ids),
        ),
    ]
