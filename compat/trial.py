"""Tries one client on the cases, and holds what it gives against the plain answer."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from compat.cases import CASES, MANY, QUESTION, Case
from compat.driver_process import ANSWER_S, Command, Driver, Outcome
from compat.reference import Reference, Refusal, Rows
from compat.registry import Client, Differs
from compat.server import Key, Servers

SAME_COSINE = 0.9999
GIVE_UP_S = 60
"""How long a client may take over a limit per hour before it counts as waiting, in seconds."""
FILLED_TRIES = 20
LIMITED = 429
LACKS = "Not applicable. "
"""Begins what is said of a case that the client cannot do."""


@dataclass(frozen=True)
class Result:
    """What came of one case."""

    case: str
    sees: str
    """What the client's user sees, as `docs/clients.md` says it."""
    wrong: str = ""
    """How it differs from what is expected; empty if it does not."""
    cosine: float = 1.0
    """The lowest cosine between a vector and the plain one."""


@dataclass(frozen=True)
class Trial:
    """What came of all cases of one client."""

    versions: dict[str, str]
    results: list[Result]

    @property
    def tried(self) -> list[str]:
        """The cases that the client can do."""
        return [result.case for result in self.results if not result.sees.startswith(LACKS)]

    @property
    def wrong(self) -> list[str]:
        """The cases that differ from what is expected."""
        return [result.case for result in self.results if result.wrong]

    @property
    def cosine(self) -> float:
        """The lowest cosine between a vector and the plain one, over all cases."""
        return min(result.cosine for result in self.results)


def try_client(
    client: Client,
    command: Command,
    servers: Servers,
    reference: Reference,
    cases: Sequence[Case] = CASES,
    on_result: Callable[[Result], None] = lambda _: None,
) -> Trial:
    """Run the client's driver on the cases, and call `on_result` after each."""
    driver = Driver(command, servers.folder)
    try:
        results: list[Result] = []
        for case in cases:
            results.append(_CaseTrial(client, case, driver, reference).result())
            on_result(results[-1])
        return Trial(driver.versions, results)
    finally:
        driver.stop()


class _CaseTrial:
    """One case of one client."""

    def __init__(self, client: Client, case: Case, driver: Driver, reference: Reference) -> None:
        self._client = client
        self._case = case
        self._driver = driver
        self._reference = reference
        self._gateway = reference.gateway(case)
        self._differs: Differs | None = client.differs.get(case.name)
        self._cosine = 1.0

    def result(self) -> Result:
        """Run the case."""
        if self._case.texts is MANY and self._case.gateway == "prepared" and self._client.cuts:
            return Result(self._case.name, f"{LACKS}It cuts a list itself.")
        key = self._reference.key(self._case)
        outcome, statuses = self._ask_limited(key) if self._case.is_limited else self._ask(key)
        if "lacks" in outcome:
            return Result(self._case.name, f"{LACKS}{outcome['lacks']}")
        faults = "; ".join(self._faults(outcome, key))
        return Result(self._case.name, self._sees(outcome, statuses), faults, self._cosine)

    def _ask(self, key: Key, timeout_s: float = ANSWER_S) -> tuple[Outcome, list[int]]:
        """Return what the client gives, and the statuses of the answers that it got."""
        start = self._gateway.mark()
        question = asdict(self._case) | {
            "input": self._reference.items(self._case),
            "question": QUESTION,
            "base_url": self._gateway.base_url,
            "api_key": key.secret,
        }
        try:
            outcome = self._driver.ask(question, timeout_s)
        except TimeoutError:
            outcome = {"waits": True}
        return outcome, self._gateway.statuses(start, self._gateway.mark())

    def _ask_limited(self, key: Key) -> tuple[Outcome, list[int]]:
        """Ask while the key's limit is full, again if the client came too late to meet it."""
        timeout_s = GIVE_UP_S if self._case.key == "hour" else ANSWER_S
        for _ in range(FILLED_TRIES):
            self._gateway.fill(key)
            outcome, statuses = self._ask(key, timeout_s)
            if LIMITED in statuses or "lacks" in outcome:
                return outcome, statuses
        raise RuntimeError(f"{self._client.title} never met its limit of one request.")

    def _faults(self, outcome: Outcome, key: Key) -> Iterator[str]:
        """Yield how the outcome differs from the plain answer, or from what is known to differ."""
        if self._differs:
            known = self._differs
            if outcome.get("error", "") != known.error or bool(outcome.get("waits")) != known.waits:
                yield f"expected {known}, got {_shown(outcome)}"
            elif known.message not in outcome.get("message", ""):
                yield f"expected the message {known.message!r}, got {_shown(outcome)}"
            elif not known.error and not known.waits:
                yield from self._without_vectors(outcome)
        elif self._case.method == "search":
            nearest = self._reference.nearest(self._case)
            if outcome.get("found") != nearest:
                yield f"expected to find {nearest!r}, got {_shown(outcome)}"
        else:
            # A limit per second ends, and then the answer is that of any other key.
            key = self._gateway.own if self._case.key == "second" else key
            plain = self._reference.answer(
                self._case, key, cut=self._client.cuts, joined=self._client.joins_pieces
            )
            if isinstance(plain, Refusal):
                yield from self._is_refusal(outcome, plain)
            else:
                yield from self._are_same(outcome, plain)

    def _without_vectors(self, outcome: Outcome) -> Iterator[str]:
        if any(outcome.get("vectors", [""])):
            yield f"expected no vectors, got {_shown(outcome)}"

    def _is_refusal(self, outcome: Outcome, plain: Refusal) -> Iterator[str]:
        errors = self._client.errors
        error = errors.get(self._case.name) or errors.get(plain.status)
        if outcome.get("error") != error or plain.constant not in outcome.get("message", ""):
            yield f"expected {error} with {plain.constant!r}, got {_shown(outcome)}"

    def _are_same(self, outcome: Outcome, plain: Rows) -> Iterator[str]:
        if None in outcome.get("vectors", [None]):
            yield f"expected {len(plain)} vectors, got {_shown(outcome)}"
            return
        rows = _unpacked(outcome["vectors"])
        if rows.shape != plain.shape:
            yield f"expected vectors of the shape {plain.shape}, got {rows.shape}"
            return
        self._cosine = _lowest_cosine(rows, plain)
        if self._cosine < SAME_COSINE:
            yield f"the lowest cosine to the plain answer is {self._cosine:.6f}"

    def _sees(self, outcome: Outcome, statuses: list[int]) -> str:
        count = len(statuses)
        requests = f"{count} requests" if count > 1 else "1 request"
        if self._differs:
            return self._differs.sees.format(error=outcome.get("error"), requests=requests)
        if "found" in outcome:
            return "The right text."
        if "error" in outcome:
            tries = f", after {requests}" if LIMITED in statuses or count > 1 else ""
            return f"`{outcome['error']}` with the gateway's message{tries}."
        rows = len(outcome.get("vectors", ()))
        vectors = "The plain vector" if rows == 1 else f"The {rows:,} plain vectors"
        if LIMITED in statuses:
            return f"{vectors}, after the wait that the gateway asks for."
        return f"{vectors}, in {requests}." if count > 1 else f"{vectors}."


def _unpacked(vectors: list[str]) -> Rows:
    return np.array([np.frombuffer(base64.b64decode(each), "<f4") for each in vectors])


def _lowest_cosine(one: Rows, other: Rows) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.min(np.sum(one * other, axis=1) / lengths))


def _shown(outcome: Outcome) -> str:
    if "vectors" in outcome:
        missing = outcome["vectors"].count(None)
        return f"{len(outcome['vectors'])} vectors, {missing} of them missing"
    return repr(outcome)[:500]
