"""Defines an embedding request: the fields of every client, with their types and limits.

The annotations are the one source of the rules: `wire.decode` checks bodies against them and
`admin.openapi` publishes them. `wire.decode` holds the rules that no annotation can express.
"""

import re
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

DEFAULT_MAX_ITEMS = 2048
"""The most items of one request, as at OpenAI, unless the operator sets another number."""
MAX_CHARACTERS = 100_000
MAX_ATTRIBUTION_CHARACTERS = 256
MAX_TOKEN_ID = 2**31 - 1

EncodingFormat = Literal["float", "base64"]
InputType = Literal["query", "document", "classification", "clustering"]
Preference = Literal["balanced", "speed", "cost"]
Truncate = Literal["none", "end", "start"]

TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
Input = str | list[str | TokenId | list[TokenId]]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


_SEPARATORS = re.compile(r"[-_. ]")


def normalise_name(name: str) -> str:
    """Return a field's name for comparison: `apiKey`, `api-key` and `api_key` become the same."""
    return _SEPARATORS.sub("", name).casefold()


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to embed one or more items."""

    input: Annotated[
        Input,
        Meta(
            description="The text or texts to embed: a string or a list of strings, each of 1 to "
            "100,000 characters; or token ids, as one list or a list of lists."
        ),
    ]
    model: Annotated[
        Name,
        Meta(
            description="`provider:model`, a bare model id, or `auto`, the model this gateway is "
            "configured for. See `GET /v1/models`."
        ),
    ] = "auto"
    encoding_format: Annotated[
        EncodingFormat,
        Meta(
            description="`float`: arrays of numbers. `base64`: the little-endian float32 bytes of "
            "each vector."
        ),
    ] = "float"
    dimensions: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="Shorten the vectors; only for models that were trained for it. The "
                "model's own width is always possible.",
            ),
        ]
        | None
    ) = None
    user: (
        Annotated[
            str,
            Meta(
                max_length=MAX_ATTRIBUTION_CHARACTERS,
                description="Your end user's id, kept with the usage record.",
            ),
        ]
        | None
    ) = None
    metadata: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
        Meta(
            max_length=16,
            description="Up to 16 pairs kept with the usage record and never forwarded; keys of "
            "at most 64 characters, values of at most 512.",
        ),
    ] = {}
    extra_body: Annotated[
        dict[str, Any],
        Meta(
            description="Parameters for the provider, merged into what it is sent. Any unknown "
            "top-level field is treated the same, unless its name is nearly that of a field here. "
            "Local models take none."
        ),
    ] = {}
    preference: Annotated[
        Preference,
        Meta(description="What to favour where several deployments could serve the request."),
    ] = "balanced"
    allowed_providers: (
        Annotated[
            list[Name],
            Meta(
                min_length=1,
                max_length=64,
                description="Use only these providers; `null` for any.",
            ),
        ]
        | None
    ) = None
    eu_native: Annotated[
        bool, Meta(description="Use only deployments based and regulated in the EU.")
    ] = False
    allow_quantization: Annotated[
        bool, Meta(description="`false`: only deployments that declare unquantised weights.")
    ] = True
    allow_zero_data_retention: Annotated[
        bool, Meta(description="`true`: only deployments that keep none of your data.")
    ] = False
    zdr: Annotated[bool, Meta(description="Short for `allow_zero_data_retention`.")] = False
    enable_model_fallback: Annotated[
        bool, Meta(description="Allow the models in `fallbacks` if the first cannot answer.")
    ] = True
    fallbacks: Annotated[
        list[Name],
        Meta(
            max_length=16,
            description="Models to try next. Each must serve the same vector space as `model`.",
        ),
    ] = []
    input_type: (
        Annotated[
            InputType,
            Meta(description="What the vectors are for, where a model tells these apart."),
        ]
        | None
    ) = None
    truncate: Annotated[
        Truncate,
        Meta(
            description="What to do with an item longer than the model takes: `none` refuses it, "
            "`end` drops tokens from its end, `start` from its start."
        ),
    ] = "none"

    @property
    def items(self) -> list[str] | list[list[int]]:
        """The items in order; a list even if the client sent a single one."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [cast("list[int]", self.input)]
        return cast("list[str] | list[list[int]]", self.input)
