"""Defines a batch, the items of one call to an engine, and its result."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.request import InputType, Truncate
from embedway.core.vectors import Vectors

Items = list[str] | list[list[int]]
"""The texts of a batch, or the token ids of each text."""

MAX_PROMPT_TOKENS = 64
"""The most tokens a provider may add before each item."""
MAX_TOKENS_PER_TOKEN = 4
"""The most tokens that one token can become in another vocabulary."""


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The largest batch an engine accepts, and how many calls may run in parallel."""

    max_items: int = 2048
    max_tokens: int | None = None
    """The most tokens of all items together; None for no limit."""
    max_parallel: int = 8
    """The most calls that one request runs at a time."""


class EngineAbilities(msgspec.Struct, frozen=True, kw_only=True):
    """The optional features an engine supports."""

    token_ids: bool = False
    """Whether items may be token ids of the model's own vocabulary."""
    dimensions: bool = False
    """Whether it can return shortened vectors."""
    input_types: frozenset[InputType] = frozenset()
    """The input types that change its vectors."""
    truncations: frozenset[Truncate] = frozenset()
    """The ways it can truncate an item that is too long."""


def clients_name(model: str) -> str:
    """Return a provider's name for a model without the operator's account or project."""
    if not re.search(r"^arn:|(^|/)(accounts|projects)/", model):
        return model
    end = model.rpartition("/")[2]
    return end.rpartition(":")[2] if end.startswith("arn:") else end


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The input and the parameters of one call to an engine."""

    model: str
    """The provider's name for the model."""
    base_model: str = ""
    """The provider's own name for the model if `model` is a name the operator gave it."""
    items: Items
    tokens: list[int]
    """The token count of each item."""
    exact: bool = True
    """Whether the model's own tokenizer counted `tokens`; otherwise they are estimates."""
    dimensions: int | None = None
    """The width to request; None for the model's own."""
    width: int | None = None
    """The width that the vectors must have; None if unknown."""
    normalised: bool = False
    """Whether to scale vectors to length one if the provider did not."""
    input_type: InputType | None = None
    """The purpose of the vectors to send to the provider; None to send none."""
    input_types: Mapping[InputType, str] | None = None
    """The provider's words for this model's input types, if not the provider's usual ones."""
    truncate: Truncate = "none"
    user: str | None = None
    tenant: str = ""
    """Who sent the request. Engines in this process share their time equally between tenants."""
    extra: Mapping[str, Any] = {}
    """Provider-specific fields, from the deployment and from the client."""
    fixed: frozenset[str] = frozenset()
    """The names in `extra` that the operator fixed."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that any tokenizer can count: one per byte, and a prompt per item."""
        return sum(map(_max_tokens, self.items))

    @property
    def max_billed_tokens(self) -> int:
        """The most tokens to bill, whatever the provider reports."""
        return sum(self.tokens) if self.exact else self.max_tokens

    def slice(self, start: int, end: int) -> "Batch":
        """Return a batch of the items from `start` up to, but not including, `end`."""
        return msgspec.structs.replace(
            self, items=self.items[start:end], tokens=self.tokens[start:end]
        )


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors and the usage that one call returned."""

    vectors: Vectors
    """Shape (items, width), float32, in the order of the items."""
    tokens: int | None = None
    """The token count that the engine reports; None if it reports none, negative if its report is
    not a count."""
    model: str | None = None
    """The model's name according to the engine."""
    rate_limit_rest_s: float | None = None
    """How long to send nothing because a rate limit is used up, in seconds; None if it is not."""

    def tokens_up_to(self, most: int) -> int | None:
        """Return the reported tokens; None if none were reported, or more than `most`."""
        tokens = self.tokens
        return tokens if tokens is not None and 0 < tokens <= most else None


def _max_tokens(item: str | list[int]) -> int:
    if not isinstance(item, str):
        return MAX_TOKENS_PER_TOKEN * len(item) + MAX_PROMPT_TOKENS
    return MAX_PROMPT_TOKENS + (len(item) if item.isascii() else len(item.encode()))
