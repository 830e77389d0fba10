"""Restarts replicas one after another."""

from collections.abc import Mapping, Sequence

from chaos.processes.check import Check, none_of
from chaos.processes.clients import Clients
from chaos.processes.stage import Stage, records, start

ROUNDS = 20
REQUESTS_PER_S = 50


def run(stage: Stage) -> Sequence[Check]:
    """Restart two replicas behind nginx under load, one after the other, twenty times each.

    Clients keep their connections to nginx and send nothing twice.
    """
    rounds = 1 if stage.is_short else ROUNDS
    gateways = stage.replicas().gateways
    key = gateways[0].new_key()
    unclean = 0
    with Clients(stage.nginx(gateways), key.secret, per_s=REQUESTS_PER_S) as clients:
        for number in range(rounds):
            for at, each in enumerate(gateways):
                stage.say(f"restart {number * 2 + at + 1} of {rounds * 2}")
                unclean += each.stop() != 0
                start(each)
    recorded = records(gateways[0], key)
    failed = len(clients.answers) - clients.statuses()[200]
    return [
        none_of("failed requests", failed, out_of=len(clients.answers), found=clients.failures()),
        none_of("restarts that ended with another status than 0", unclean, out_of=rounds * 2),
        *one_record_each(clients.ids(), recorded),
        *no_record_without(clients.ids(), recorded),
    ]


def one_record_each(ids: Sequence[str], recorded: Mapping[str, int]) -> Sequence[Check]:
    """Return the checks that every answer has its usage record, and one."""
    missing = sum(each not in recorded for each in ids)
    twice = sum(count > 1 for count in recorded.values()) + len(ids) - len(set(ids))
    return [
        none_of("answers without a usage record", missing, out_of=len(ids)),
        none_of("answers recorded twice, or with the id of another", twice, out_of=len(ids)),
    ]


def no_record_without(ids: Sequence[str], recorded: Mapping[str, int]) -> Sequence[Check]:
    """Return the check that nothing is charged that was not answered."""
    unseen = len(set(recorded) - set(ids))
    return [none_of("requests charged and not answered", unseen, out_of=len(recorded))]
