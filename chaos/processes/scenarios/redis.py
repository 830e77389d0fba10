"""Takes Redis away, and brings it back."""

import bisect
import signal
from collections.abc import Sequence

from chaos.processes.check import Check, at_least, at_most, none_of
from chaos.processes.clients import Clients, wait_until
from chaos.processes.stage import Stage, metric
from embedway.core.limit import Limit

PER_S = 20
"""How many requests clients send a second, to both replicas together."""
STEP_S = 25
ALMOST_A_MINUTE_S = 59
"""A second less than the limit's period, because clients see a request a little later than the
gateway that counts it."""
REDIS_TIMEOUT_MS = 100


def run(stage: Stage) -> Sequence[Check]:
    """Kill Redis, start it, freeze it and let it go on, while clients exceed a rate limit."""
    step_s = 0.5 if stage.is_short else STEP_S
    amount = PER_S * (1 if stage.is_short else 30)  # half of what is sent
    replicas = stage.replicas()
    first, second = replicas.gateways
    key = first.new_key(Limit(of="requests", amount=amount, per="minute"))
    roomy = first.new_key(Limit(of="requests", amount=10**9, per="minute"))
    with (
        Clients(first.url, key.secret, per_s=PER_S / 2) as one,
        Clients(second.url, key.secret, per_s=PER_S / 2) as two,
    ):
        with Clients(first.url, roomy.secret, per_s=PER_S) as before:
            stage.wait(step_s, "Redis works")
        with Clients(first.url, roomy.secret, per_s=PER_S) as meanwhile:
            replicas.redis.stop(signal.SIGKILL)
            stage.wait(step_s, "Redis is killed")
            replicas.redis.start()
            stage.wait(step_s, "Redis is back, without its data")
            replicas.redis.pause()
            stage.wait(step_s, "Redis is frozen")
            replicas.redis.resume()
            stage.wait(step_s, "Redis goes on")
    back_s = wait_until(
        lambda: all(metric(each, "embedway_limits_shared") for each in replicas.gateways),
        "limits are not counted together again.",
    )
    limited = [*one.answers, *two.answers]
    served = [*before.answers, *meanwhile.answers]
    most = most_within([each.sent_s for each in limited if each.status == 200], ALMOST_A_MINUTE_S)
    return [
        at_most("requests let in within a minute", amount, most, ""),
        at_least("the same, as a share of the limit", 95, 100 * most / amount, "%", is_timing=True),
        none_of(
            "failed requests that the limit lets in",
            sum(each.status != 200 for each in served)
            + sum(each.status not in {200, 429} for each in limited),
            out_of=len(served) + len(limited),
        ),
        at_most(
            "what the slowest 1% wait longer than before",
            REDIS_TIMEOUT_MS,
            meanwhile.latency_ms(0.99) - before.latency_ms(0.99),
            " ms",
            is_timing=True,
        ),
        at_most("time until limits are counted together again", 5, back_s, " s", is_timing=True),
    ]


def most_within(times_s: Sequence[float], interval_s: float) -> int:
    """Return the most times in any interval of this length."""
    ordered = sorted(times_s)
    return max(
        (bisect.bisect_left(ordered, each + interval_s) - at for at, each in enumerate(ordered)),
        default=0,
    )
