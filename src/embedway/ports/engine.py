"""What the pipeline needs of whoever embeds: a model that runs here, or a provider."""

from collections.abc import Sequence
from typing import Protocol

from embedway.core.batch import Abilities, Batch, Limits, Result


class Engine(Protocol):
    """Turns batches into vectors, shared by all requests."""

    @property
    def limits(self) -> Limits:
        """Of a batch."""
        ...

    @property
    def abilities(self) -> Abilities:
        """What a batch may ask for."""
        ...

    async def embed(self, batch: Batch) -> Result:
        """The vectors of the items of `batch`, in order.

        Raises:
            ProviderError: It failed.
            InvalidRequest: The batch asks for something that it cannot be asked.
            Overloaded: Too much is waiting already.
        """
        ...


class Tokenizer(Protocol):
    """Turns texts into a model's token ids, shared by all requests."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens included, however long.

        Raises:
            Overloaded: Too much is waiting already.
        """
        ...


class Codec(Tokenizer, Protocol):
    """A tokenizer whose ids clients may send."""

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids, exactly.

        Raises:
            InvalidRequest: Ids that are of no text.
            Overloaded: Too much is waiting already.
        """
        ...
