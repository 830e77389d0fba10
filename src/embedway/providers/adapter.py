"""Describes kinds of providers as data, and defines the adapters that speak their protocols."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from embedway.core.batch import Batch, BatchLimits, BatchResult
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import FailureKind, ProviderError
from embedway.core.request import InputType, Truncate, normalise_name
from embedway.http.call import HttpCall, HttpReply


class ProtocolFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a provider's protocol by the provider's names; None for those that it lacks."""

    dimensions: str | None = None
    base64: tuple[str, str] | None = None
    """The field and the value that ask for little-endian float32 in base64."""
    token_ids: bool = False
    """Whether items may be token ids of the model's own vocabulary."""
    user: str | None = None
    input_type: str | None = None
    input_types: Mapping[InputType, str] = {}
    default_input_type: str | None = None
    """The word to send for clients that name no input type; None to leave out the field."""
    words_are_fields: bool = False
    """Whether the word for an input type is the name of a field that holds the texts instead."""
    truncate: str | None = None
    truncations: Mapping[Truncate, Any] = {}
    """The value for each way to treat an item that is too long; `none` refuses it."""

    def purpose(self, batch: Batch) -> str | None:
        """Return the provider's word for the input type of `batch`, or None."""
        if batch.input_type is None:
            return None
        words = self.input_types if batch.input_types is None else batch.input_types
        return words.get(batch.input_type)


class Adapter(Protocol):
    """Speaks one protocol. Pure: the same arguments give the same result, and nothing is sent."""

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`.

        Raises:
            InvalidRequest: The protocol cannot express what the batch asks for.
        """
        ...

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx `reply`, one per item of `batch` and in their order.

        Raises:
            ProviderError: The reply has no such vectors.
        """
        ...

    def decode_error(self, reply: HttpReply) -> ProviderError:
        """Read the failure that any other `reply` reports."""
        ...


def strip_slashes(address: str, ends: Iterable[str]) -> str:
    """Return `address` without trailing slashes, and without the first of `ends` that it has."""
    address = address.rstrip("/")
    return address.removesuffix(next((each for each in ends if address.endswith(each)), ""))


class AddressTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """Turns the environment variables of a provider's own SDK into a base URL."""

    variables: tuple[str, ...]
    """Environment variables with the address. The first that is set is used."""
    strip: tuple[str, ...] = ()
    """Suffixes to remove from the address."""
    path: str = ""
    """The path to add after it; may contain `{variables}`."""
    ignored_if: str = ""
    """A variable that disables the others when it is `true`."""

    def variable(self, environment: Mapping[str, str]) -> str | None:
        """Return which of `variables` has the address, or None."""
        if environment.get(self.ignored_if, "").lower() == "true":
            return None
        return next((each for each in self.variables if each in environment), None)

    def base_url(self, address: str) -> str:
        """Return the base URL for an address; may contain the `{variables}` of `path`."""
        # Braces in the address itself are not variables.
        base, mark, query = address.replace("{", "{{").replace("}", "}}").partition("?")
        return strip_slashes(base, self.strip) + self.path + mark + query


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of provider as data: all facts about it that need no code."""

    name: str
    """The name in `provider:model` and in settings."""
    title: str
    """The name to show to people."""
    adapter: str = "embedway.providers.adapters.openai:OpenAi"
    """The adapter's class as `module:class`. It is called with the row and the variables."""
    base_url: str
    """The base URL; may contain `{variables}`. If empty, `base_url` must be declared."""
    other_path: str = ""
    """The end of the host's address for another protocol, which the adapter does not speak."""
    path: str = "/embeddings"
    regional: Mapping[str, str] = {}
    """Base URLs of regions, by the variable `region`, that differ from `base_url`."""
    by_key: Mapping[str, str] = {}
    """Base URLs by the beginning of a key."""
    address: AddressTemplate | None = None
    """The address in the environment. It overrides all of the above."""
    key_variables: tuple[str, ...] = ()
    """Environment variables with the key. The first that is set enables the provider."""
    key_files: tuple[str, ...] = ()
    """Those of `key_variables` that contain the path of a file with the key."""
    key_elsewhere: Mapping[str, tuple[str, ...]] = {}
    """Variables with the values, in lower case, that mean the key is for another service."""
    headers: Mapping[str, str] = {}
    """Headers to send with a key from the environment, by the variables that contain them."""
    variables: Mapping[str, str | tuple[str, ...]] = {}
    """The `{variables}` of addresses and of the adapter, each with its environment variables. The
    first that is set is used."""
    strip: tuple[str, ...] = ()
    """Suffixes to remove from addresses among `variables`."""
    defaults: Mapping[str, str] = {}
    """Default values of variables. The others must be set."""
    credentials: str = "bearer"
    """`bearer`, `none`, `header:NAME`, or a class of credentials as `module:class`."""
    fields: ProtocolFields = ProtocolFields()
    failures: tuple[tuple[str, FailureKind], ...] = ()
    """Patterns for words that mean something else at this provider, each with its kind of failure.
    They are searched in the code and the message in lower case. The first match wins."""
    limits: BatchLimits = BatchLimits()
    max_in_flight: int = 64
    """The most calls to one such provider at a time."""
    key_parts: tuple[str, ...] = ()
    """Variables to append to the last of `key_variables`, separated by colons."""
    key_optional: bool = False
    """Whether it may be declared without a key, because the machine may have credentials."""
    own_server: bool = False
    """Whether users run such servers themselves: it needs no key, and its models are theirs."""
    port: int | None = None
    """The default port, if servers of this kind can be recognised there."""
    eu_native: bool = False
    """Whether the company is based and regulated in the EU."""
    hq_country: str = ""
    """The country of the company's headquarters (ISO 3166-1 alpha-2); empty if none or unknown."""
    region: str = ""
    """The place where it computes, if `base_url` has only one."""
    zero_data_retention: bool = False
    source: str
    """The source of these facts, for people."""
    notes: str = ""
    """A few sentences that a user should know."""

    def without_base64(self) -> "ProviderRow":
        """Return a copy of the row that asks for vectors as numbers."""
        fields = msgspec.structs.replace(self.fields, base64=None)
        return msgspec.structs.replace(self, fields=fields)

    def sources(self, variable: str) -> tuple[str, ...]:
        """Return the environment variables for one of `variables`."""
        names = self.variables[variable]
        return (names,) if isinstance(names, str) else names

    def environment(self) -> frozenset[str]:
        """Return every environment variable that this kind of provider reads."""
        names = frozenset(
            (
                *(*self.key_variables, *self.key_parts, *self.key_elsewhere),
                *((*self.address.variables, self.address.ignored_if) if self.address else ()),
                *self.headers.values(),
                *(name for variable in self.variables for name in self.sources(variable)),
            )
        )
        return names - {""}

    def template(self, keys: Sequence[str], region: str) -> str:
        """Return the base URL for these keys and this region; may contain `{variables}`.

        Raises:
            ValueError: The keys need different base URLs.
        """
        urls = {
            next((url for start, url in self.by_key.items() if key.startswith(start)), "")
            for key in keys
        } or {""}
        if len(urls) > 1:
            starts = " or ".join(map(repr, self.by_key))
            raise ValueError(
                f"keys that begin with {starts} need another base_url than the others: declare a "
                "provider for each"
            )
        return urls.pop() or self.regional.get(region, self.base_url)


# All protocols' names for what the gateway decides. A client that set one would get vectors of
# another kind than the gateway states, or replies that cannot be checked.
GATEWAY_FIELDS = frozenset(
    {
        "contexts", "input", "inputs", "texts", "text", "images", "content", "contents", "requests",
        "instances", "inputtext", "inputimage", "model", "modelid", "messages", "queries",
        "documents", "encodingformat", "embeddingtype", "embeddingtypes", "outputdtype",
        "embeddtype", "dimensions", "outputdimension", "outputdimensionality", "dimensionality",
        "embedcontentconfig", "outputtype", "parameters", "endianness", "returnmultivector",
        "stream",
    }
)  # fmt: skip


def merge_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> bytes:
    """Encode `body` with the client's own fields as JSON.

    Raises:
        InvalidRequest: A field would replace one of the gateway's, or is nested too deeply.
    """
    if extra:
        reserved = GATEWAY_FIELDS.union(map(normalise_name, body))
        for name in extra:
            if normalise_name(name) in reserved:
                raise InvalidRequest(
                    f"The gateway sets {name!r} for this provider. Leave it out, or use the field "
                    "of this API with the same meaning.",
                    param=name,
                )
        body = {**body, **extra}
    try:
        return msgspec.json.encode(body)
    except RecursionError:
        raise InvalidRequest(
            "A parameter for the provider is nested too deeply. Send fewer levels."
        ) from None


def model_path(path: str, model: str) -> str:
    """Return `path` with `model` in its place.

    Raises:
        InvalidRequest: The model's name would change the path.
    """
    if not {"", ".", ".."}.isdisjoint(model.split("/")):
        raise InvalidRequest(
            f"{model!r} is not the name of a model there. Write it as its provider does.",
            param="model",
        )
    return path.format(model=quote(model, safe="/@"))
