"""Moves the gateway's clock."""

import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
from benchmarks.gateway import ADMIN, EMBEDWAY, GatewayProcess, post
from sqlalchemy import func, select
from tests.servers import lack

from chaos.processes.check import Check, at_least, at_most, none_of
from chaos.processes.clients import Clients, wait_until
from chaos.processes.scenarios.redis import ALMOST_A_MINUTE_S, most_within
from chaos.processes.stage import Stage
from embedway.core.budget import Budget
from embedway.core.limit import Limit
from embedway.core.project import DEFAULT_PROJECT
from embedway.storage.tables import usage

HOUR_S = 3600
OFFSETS_S = (26 * HOUR_S, -50 * HOUR_S, HOUR_S, -HOUR_S, 0)
"""How far the clock is off after each jump; the longest goes back more than three days."""
SHORT = 2
"""How many of these jumps the short form has."""
STEP_S = 8
PER_S = 2
"""How many requests each client sends a second; libfaketime makes a gateway slow."""
LIMIT = 5
BUDGET_NANO_USD = 100
"""Enough for some five of the requests."""
TOKEN_S = 600
REVOKED_S = 2
DAY_MS = 86_400_000


def run(stage: Stage) -> Sequence[Check]:
    """Move the gateway's clock by hours and days, forward and back, under load."""
    step_s = 0.5 if stage.is_short else STEP_S
    clock = _Clock(stage.folder / "clock")
    gateway = stage.gateway(**clock.variables)
    free, shown = gateway.new_key(), gateway.new_key()
    limited = gateway.new_key(Limit(of="requests", amount=LIMIT, per="minute"))
    per_day, total = (
        gateway.new_key(budgets=(Budget(amount_nano_usd=BUDGET_NANO_USD, per=per),))
        for per in ("day", "total")
    )
    tokens = _Tokens(gateway)
    revoked_s: list[float] = []
    with (
        Clients(gateway.url, free.secret, per_s=PER_S) as unlimited,
        Clients(gateway.url, limited.secret, per_s=PER_S) as within_limit,
        Clients(gateway.url, per_day.secret, per_s=PER_S) as within_day,
        Clients(gateway.url, total.secret, per_s=PER_S) as within_total,
    ):
        wait_until(unlimited.ids, "there are no answers.")
        tokens.issue()
        for offset_s in OFFSETS_S[: SHORT if stage.is_short else None]:
            stage.say("moving the clock")
            clock.set(offset_s)
            wait_until(lambda: _is_off(gateway, free.secret, offset_s), "the clock stays.")  # noqa: B023
            stage.wait(step_s, f"the clock is {offset_s / HOUR_S:+.0f} h off")
            tokens.try_all(offset_s)
            if offset_s < 0 and not revoked_s:
                revoked_s.append(_revoke(gateway, shown.id, shown.secret))
    let_in = most_within(
        [each.sent_s for each in within_limit.answers if each.status == 200], ALMOST_A_MINUTE_S
    )
    limited_clients = (within_limit, within_day, within_total)
    everything = [each for clients in limited_clients for each in clients.answers]
    spent = _spent(gateway, total.id).total()
    most_per_day = max(_spent(gateway, per_day.id).values())
    checked = subprocess.run(
        [EMBEDWAY, "ledger", "check"], env=clock.unmoved(gateway.env), cwd=gateway.folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [
        none_of(
            "failed requests without a limit",
            len(unlimited.answers) - len(unlimited.ids()),
            out_of=len(unlimited.answers),
            found=unlimited.failures(),
        ),
        none_of(
            "answers of another kind than 200 and 429 where a limit or budget applies",
            sum(each.status not in {200, 429} for each in everything),
            out_of=len(everything),
        ),
        at_most("requests let in by a limit per minute", LIMIT, let_in, ""),
        at_least("the same, at least", LIMIT, let_in, ""),
        at_most("spent of a budget in total", BUDGET_NANO_USD, spent, " nano-USD"),
        at_most(
            "most spent of a budget per day, in any day", BUDGET_NANO_USD, most_per_day, " nano-USD"
        ),
        at_most(
            "time until a revoked key is refused", REVOKED_S, revoked_s[0], " s", is_timing=True
        ),
        none_of(
            "tokens judged by another time than the clock's", tokens.wrong, out_of=tokens.tried
        ),
        none_of(
            "sums by hour and day that differ from the records",
            int(checked.returncode != 0),
            out_of=1,
            found=checked.stdout.strip() if checked.returncode else "",
        ),
    ]


class _Clock:
    """The clock that a gateway sees, by libfaketime. Intervals run on as they are."""

    def __init__(self, file: Path) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            lack("libfaketime is not installed: apt-get install faketime")
        self._file = file
        self.set(0)
        self.variables = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": file,
            "FAKETIME_CACHE_DURATION": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "DONT_FAKE_MONOTONIC": 1,
        }

    def set(self, offset_s: float) -> None:
        """Move the clock to so many seconds off the machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+.0f}\n")
        new.replace(self._file)

    def unmoved(self, env: dict[str, str]) -> dict[str, str]:
        """Return an environment without the moved clock."""
        return {name: value for name, value in env.items() if name not in self.variables}


class _Tokens:
    """One token, tried again and again."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        with gateway.administration() as service:
            self._secret, _ = service.create_key(
                ADMIN,
                project_id=DEFAULT_PROJECT,
                changes={"name": "issuer", "scopes": ("embeddings", "on_behalf_of", "tokens")},
            )
        self.tried = self.wrong = 0

    def issue(self) -> None:
        """Get a token of `TOKEN_S` for an end user."""
        reply = post(
            f"{self._gateway.url}/api/v1/authentication/api-key/exchange-token",
            json={"audience": "embedway", "externalUserId": "ada", "expiresIn": TOKEN_S},
            headers={"authorization": f"Bearer {self._secret}"},
            timeout=60,
        )
        reply.raise_for_status()
        self._token = reply.json()["token"]

    def try_all(self, offset_s: float) -> None:
        """Use the token: it works unless the clock says that it has expired."""
        status = _status(self._gateway, self._token)
        self.tried += 1
        self.wrong += status != (401 if offset_s > TOKEN_S else 200)


def _ask(gateway: GatewayProcess, secret: str) -> httpx.Response:
    return gateway.post(secret, model="openai:text-embedding-3-small", input="Hello world")


def _is_off(gateway: GatewayProcess, secret: str, offset_s: float) -> bool:
    """Whether the gateway's clock, which its answers tell, is so many seconds off."""
    created_s = _ask(gateway, secret).raise_for_status().json()["created"]
    return abs(created_s - time.time() - offset_s) < TOKEN_S / 2


def _status(gateway: GatewayProcess, secret: str) -> int:
    return _ask(gateway, secret).status_code


def _revoke(gateway: GatewayProcess, id: str, secret: str) -> float:
    """Revoke a key that has just been used; return how long it still works, in seconds."""
    assert _status(gateway, secret) == 200
    with gateway.administration() as service:
        service.revoke_key(ADMIN, id, project_id=DEFAULT_PROJECT)
    began_s = time.monotonic()
    wait_until(lambda: _status(gateway, secret) == 401, "a revoked key goes on working.")
    return time.monotonic() - began_s


def _spent(gateway: GatewayProcess, key_id: str) -> Counter[int]:
    """Return what a key spent by day, in nano-USD."""
    day = (usage.c.at_ms - usage.c.at_ms % DAY_MS) / DAY_MS
    sums = select(day, func.sum(usage.c.cost_nano_usd)).where(usage.c.key_id == key_id)
    with gateway.open_store() as store, store.database.connect() as connection:
        return Counter({int(at): int(cost) for at, cost in connection.execute(sums.group_by(day))})
