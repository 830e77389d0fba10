"""Defines what a tokenizer does, for models in this process and for providers alike."""

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Turns texts into a model's token ids, shared by all requests."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens included, however long.

        Raises:
            ServiceOverloaded: Too much is waiting already.
        """
        ...


class TokenCodec(Tokenizer, Protocol):
    """A tokenizer whose ids clients may send."""

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids, exactly.

        Raises:
            InvalidRequest: Ids that are of no text.
            ServiceOverloaded: Too much is waiting already.
        """
        ...
