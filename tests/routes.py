"""Routes for tests of the sender: real ones lead to engines, these to a function."""

from collections.abc import Awaitable, Callable

from embedway.core.batch import Batch, Limits, Result
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import ProviderError
from embedway.sending.sender import Outcome


class FunctionRoute:
    """A route to a function, which keeps what it was told."""

    def __init__(
        self,
        call: Callable[[Batch], Awaitable[Result]],
        batch: Batch | InvalidRequest,
        *,
        limits: Limits | None = None,
        provider: str = "p",
    ) -> None:
        self.limits = limits or Limits()
        self.provider = provider
        self.running = 0
        self.told: list[str] = []
        self._call = call
        self._batch = batch

    async def prepared(self) -> Batch:
        if isinstance(self._batch, InvalidRequest):
            raise self._batch
        return self._batch

    async def embed(self, batch: Batch) -> Result:
        return await self._call(batch)

    async def finished(self, batch: Batch, result: Result) -> Result:
        return result

    def began(self, *, others: bool) -> None:
        self.running += 1

    def ended(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        self.running -= 1
        assert seconds >= 0
        match outcome:
            case str():
                self.told.append(outcome)
            case ProviderError():
                self.told.append(outcome.kind)
            case Result():
                self.told.append("ok")
