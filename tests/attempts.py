"""Makes attempts for tests of the sender: real ones, with a function in place of an engine."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest
from embedway.core.vectors import Vectors
from embedway.health.health import HealthRegistry
from embedway.sending.attempt import Attempt
from embedway.sending.engine import Engine, EngineRegistry
from embedway.sending.outcome import CallEvents, Cancellation, Failure, NotSent, Outcome, Success
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.tokenizing.tokenizer import Tokenizer


class FunctionEngine:
    """An engine that calls a function."""

    abilities = EngineAbilities()

    def __init__(
        self, call: Callable[[Batch], Awaitable[BatchResult]], limits: BatchLimits
    ) -> None:
        self.limits = limits
        self._call = call

    async def embed(self, batch: Batch) -> BatchResult:
        return await self._call(batch)


class GivenBatch:
    """Prepares the same batch for every request, or refuses it."""

    def __init__(self, batch: Batch | InvalidRequest) -> None:
        self._batch = batch

    async def prepare(self, *_: object) -> Batch:
        if isinstance(self._batch, InvalidRequest):
            raise self._batch
        return self._batch


class FunctionAttempt:
    """An attempt on a function, which keeps how each call ended."""

    def __init__(
        self,
        call: Callable[[Batch], Awaitable[BatchResult]],
        batch: Batch | InvalidRequest,
        *,
        limits: BatchLimits | None = None,
        provider: str = "p",
    ) -> None:
        self.told: list[str] = []
        """How each call ended: `ok`, the kind of failure, `not sent` or `cancelled`."""
        self._deployment = Deployment(Model(id="m"), DeploymentSpec(provider=provider))
        self._healths = HealthRegistry(now_s=time.monotonic)
        sender = Sender(
            EngineRegistry({provider: FunctionEngine(call, limits or BatchLimits())}),
            healths=self._healths,
            preparer=GivenBatch(batch),
            events=CallEvents(on_outcome=self._on_outcome),
        )
        request = EmbedRequest(input="", model="m")
        self.attempt: Attempt = sender.attempt(
            request, self._deployment, request_id="req", counts={}
        )

    @property
    def running(self) -> int:
        return self._healths.get(self._deployment).in_flight

    def _on_outcome(self, _id: str, _served: Deployment, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        match outcome:
            case NotSent():
                self.told.append("not sent")
            case Cancellation():
                self.told.append("cancelled")
            case Failure():
                self.told.append(outcome.error.kind)
            case Success():
                self.told.append("ok")


async def send_to(functions: Sequence[FunctionAttempt], *, deadline_s: float) -> Vectors:
    """Send a request to these, the first preferred."""
    sender = Sender(
        EngineRegistry({}),
        healths=HealthRegistry(now_s=time.monotonic),
        preparer=GivenBatch(InvalidRequest("unused")),
    )
    return await sender.send([each.attempt for each in functions], deadline_s=deadline_s)


def answered_by(functions: Sequence[FunctionAttempt]) -> list[int]:
    """Return the indices of the attempts that answered, in the order of the items."""
    answered = [at for at, each in enumerate(functions) if each.attempt.items]
    return sorted(answered, key=lambda at: functions[at].attempt.first_item or 0)


class ByCharacters:
    """Replaces a tokenizer; three characters are a token."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(range(len(text) // 3 + 1)) for text in texts]

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        raise NotImplementedError


def sender_to(
    engines: Mapping[str, Engine],
    *,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    now_s: Callable[[], float] = lambda: 0.0,
) -> Sender:
    """Return a sender to these engines, given by name."""
    return Sender(
        EngineRegistry(engines),
        healths=HealthRegistry(now_s=now_s),
        preparer=InputPreparer(tokenizers=tokenizers or {}, cl100k=ByCharacters()),
    )
