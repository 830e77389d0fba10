"""Defines what the catalog knows of a model: its vectors, limits, files and deployments."""

import hashlib
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import msgspec

from embedway.core.request import InputType

LOCAL = "embedway"
"""The name of the provider of local models, which run in this process."""
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
    """The files to unpack, by their names after unpacking."""


class BertShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The properties of a BERT encoder that its weights do not show."""

    layers: int
    heads: int
    layer_norm_eps: float


class ModelWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of a local model. `local/bert.py` builds the model, with mean pooling."""

    bert: BertShape
    wheel: WheelSource


class DeploymentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deployment of a model, as the catalog describes it."""

    provider: str
    name: str = ""
    """The provider's name for the model; empty if it is the model's id."""
    base_model: str = ""
    """The provider's own name for the model if `name` is one that the operator gave it. The
    protocol may depend on it."""
    price_per_mtok_usd: Decimal | None = None
    """The price of a million input tokens in USD; None if unknown."""
    price_date: date | None = None
    """When the price was read; None if unknown."""
    batch_price_factor: Decimal = Decimal(1)
    """What callers are charged for a line of a batch, as a share of the price."""
    quantisation: Quantisation = "unknown"
    zero_data_retention: bool = False
    eu_native: bool = False
    hq_country: str = ""
    """The country of the provider's headquarters, by ISO 3166-1 alpha-2; empty if unknown."""
    region: str = ""
    """Where it runs, in the provider's words; empty if unknown."""
    max_items: int | None = None
    """The most items in a call; None for the provider's limit."""
    max_batch_tokens: int | None = None
    """The most tokens in a call; None for the provider's limit."""
    released: date | None = None
    """When the provider began to serve the model; None if unknown."""
    deprecated: date | None = None
    """When the provider began, or begins, to advise against it; None if unknown."""
    retires: date | None = None
    """The first day, in UTC, on which the provider no longer serves it; None if unknown."""
    successor: str = ""
    """The model that the provider recommends in its place; empty if unknown."""
    source: str = ""
    """Where the provider publishes these dates and the successor."""
    parameters: dict[str, Any] = {}
    """Fields to send with every call, which the model's usual vectors need."""
    input_types: dict[InputType, str] | None = None
    """The provider's words for the input types that change vectors; None for those of the
    provider's row."""
    apply_prompts: bool = False
    """Whether the gateway puts the model's prompts before texts, because the provider does not."""

    def at_provider(self, place: "DeploymentSpec") -> "DeploymentSpec":
        """Return this deployment at the provider of `place`, with that provider's properties."""
        return msgspec.structs.replace(
            self,
            provider=place.provider,
            zero_data_retention=place.zero_data_retention,
            eu_native=place.eu_native,
            hq_country=place.hq_country,
            region=self.region or place.region,
        )

    def undated(self) -> "DeploymentSpec":
        """Return this deployment without the dates that its provider announced."""
        return msgspec.structs.replace(
            self, released=None, deprecated=None, retires=None, successor="", source=""
        )


class Model(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """A model and its deployments, as its maker describes it."""

    id: str
    owned_by: str = "unknown"
    description: str = ""
    licence: str = "unknown"
    """The licence of its weights, as an SPDX identifier; `proprietary` if they are unpublished."""
    created: date = date(1970, 1, 1)
    dimensions: int | None = None
    """The default width of its vectors; None if unknown."""
    native_dimensions: int | None = None
    """The width of its widest vectors, if that is not the default."""
    trained_dimensions: list[int] | Literal["any", "unknown"] = []
    """Other widths that it was trained for (Matryoshka); `any` for all up to its own."""
    max_item_tokens: int | None = None
    """The most tokens of an item, special tokens included; None if unknown."""
    max_request_tokens: int = 300_000
    """The most tokens of all items of a request."""
    tokenizer: Literal["own", "cl100k_base", "unknown"] = "unknown"
    """The tokenizer that counts its tokens here: the local model's own, OpenAI's, or none."""
    token_ids: Literal["cl100k_base", "native"] = "cl100k_base"
    """The vocabulary of token ids in requests: OpenAI's, decoded to text, or the model's own."""
    pooling: str = "unstated"
    """How the vectors of the tokens become one vector: `mean`, `cls` or `last_token`."""
    normalised: bool | None = None
    """Whether its vectors have length one; if true, the gateway ensures it."""
    same_space_as: str = ""
    """The id of another model whose vectors its maker says these can be compared with."""
    prompts: dict[InputType, str] = {}
    """The prefix for texts of each input type. The provider adds it, unless the deployment has
    `apply_prompts`."""
    tags: list[str] = msgspec.field(default_factory=lambda: ["embedding"])
    deployments: list[DeploymentSpec] = []
    weights: ModelWeights | None = None
    """The weights of a local model; None for others."""

    declared: bool = True
    """Whether catalog or settings describe it; False for a model known only by a client's name."""

    def trained_for(self, dimensions: int) -> bool:
        """Return whether the model was trained for vectors of this width."""
        if self.trained_dimensions == "any":
            return self.dimensions is None or dimensions <= self.dimensions
        return self.trained_dimensions != "unknown" and dimensions in self.trained_dimensions

    def can_shorten(self, dimensions: int) -> bool:
        """Return whether this gateway may cut the model's vectors to `dimensions`."""
        width = self.dimensions or 0
        return dimensions == width or (self.trained_for(dimensions) and dimensions <= width)

    @cached_property
    def digest(self) -> str | None:
        """12 hex digits for weights and tokenizer of a local model; None for others."""
        if self.weights is None:
            return None
        digests = (file.sha256 for _, file in sorted(self.weights.wheel.files.items()))
        return digest("".join(digests).encode())


def digest(content: bytes) -> str:
    """Return the first 12 hex digits of the SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:12]
