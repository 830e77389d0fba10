"""What the pipeline needs of a model that runs here."""

from collections.abc import Sequence
from typing import Protocol

from embedway.core.vectors import Vectors


class Engine(Protocol):
    """A model that turns texts into vectors, shared by all requests."""

    async def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens included, however long.

        Raises:
            Overloaded: Too much is waiting already.
        """
        ...

    async def embed(self, items: Sequence[Sequence[int]]) -> Vectors:
        """The vectors of token-id lists, shape (len(items), dimensions), in order.

        Raises:
            Overloaded: Too much is waiting already.
        """
        ...
