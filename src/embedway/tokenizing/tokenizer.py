"""Defines what a tokenizer does, whether its model runs here or at a provider."""

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Turns texts into a model's token ids. All requests share one instance."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included. Nothing is cut.

        Raises:
            ServiceOverloaded: The queue is full.
        """
        ...


class TokenCodec(Tokenizer, Protocol):
    """A tokenizer whose token ids clients may send instead of texts."""

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """Return the exact text of each list of token ids.

        Raises:
            InvalidRequest: An item's ids are not the ids of a text.
            ServiceOverloaded: The queue is full.
        """
        ...
