"""A batch: the items of one call to whoever embeds them, and what comes back."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.request import InputType, Truncate
from embedway.core.vectors import Vectors

Items = list[str] | list[list[int]]
"""Texts, or the token ids of each."""

MAX_PROMPT_TOKENS = 64
"""The most tokens that a provider may put before each item."""
MAX_TOKENS_PER_TOKEN = 4
"""The most tokens of one vocabulary that a token of another becomes."""


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may hold, and how many calls may run."""

    max_items: int = 2048
    max_tokens: int | None = None
    """Of all items together; None where there is no such limit."""
    max_parallel: int = 8
    """Calls of one request at a time."""


class EngineAbilities(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever embeds can be asked for beyond the vectors of texts."""

    token_ids: bool = False
    """Whether items may be token ids of the model's own vocabulary."""
    dimensions: bool = False
    input_types: frozenset[InputType] = frozenset()
    """That make a difference."""
    truncations: frozenset[Truncate] = frozenset()
    """What it can be told about items that are too long."""


def clients_name(model: str) -> str:
    """A provider's name for a model as clients may read it: without an account or a project."""
    if not re.search(r"^arn:|(^|/)(accounts|projects)/", model):
        return model
    end = model.rpartition("/")[2]
    return end.rpartition(":")[2] if end.startswith("arn:") else end


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one call asks for."""

    model: str
    """By the name it has where it is served."""
    base_model: str = ""
    """The provider's own name for the model where `model` does not say it; empty if it does."""
    items: Items
    tokens: list[int]
    """Of each item."""
    exact: bool = True
    """Whether `tokens` are counted with the model's own tokenizer; estimates otherwise."""
    dimensions: int | None = None
    """Vectors of this width are to be asked for; None for the model's own."""
    width: int | None = None
    """Of the vectors that must come back; None if it is not known."""
    normalised: bool = False
    """Whether the vectors must have length one; if they come back at another, they are scaled."""
    input_type: InputType | None = None
    """What the provider is told that the vectors are for; None for nothing."""
    input_types: Mapping[InputType, str] | None = None
    """The provider's words for input types of this model, if other than its usual ones."""
    truncate: Truncate = "none"
    user: str | None = None
    extra: Mapping[str, Any] = {}
    """Fields of the provider's own: those of the deployment, and those that the client sent."""
    fixed: frozenset[str] = frozenset()
    """The names of those of `extra` that the operator fixed."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that any tokenizer counts in it: one for each byte, and a prompt."""
        return sum(map(_max_tokens, self.items))

    @property
    def max_billed_tokens(self) -> int:
        """The most tokens that are billed for it, whatever the provider reports."""
        return sum(self.tokens) if self.exact else self.max_tokens

    def slice(self, start: int, end: int) -> "Batch":
        """Items `start` up to but without `end`."""
        return msgspec.structs.replace(
            self, items=self.items[start:end], tokens=self.tokens[start:end]
        )


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one call answered."""

    vectors: Vectors
    """Shape (items, width), float32, in the order of the items."""
    tokens: int | None = None
    """As counted by whoever embedded them; None if they did not say, negative if what they said is
    no count."""
    model: str | None = None
    """What whoever embedded them says that its model is."""
    rate_limit_rest_s: float | None = None
    """How long nothing is left of a rate limit, if the answer says so."""

    def tokens_up_to(self, most: int) -> int | None:
        """The reported tokens; None if there are none, or more than `most`."""
        tokens = self.tokens
        return tokens if tokens is not None and 0 < tokens <= most else None


def _max_tokens(item: str | list[int]) -> int:
    if not isinstance(item, str):
        return MAX_TOKENS_PER_TOKEN * len(item) + MAX_PROMPT_TOKENS
    return MAX_PROMPT_TOKENS + (len(item) if item.isascii() else len(item.encode()))
