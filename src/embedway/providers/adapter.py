"""What an adapter is: a pure translation between a batch and one provider's protocol."""

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
    """What a provider's protocol can be told, by the name it has there; None for not at all."""

    dimensions: str | None = None
    base64: tuple[str, str] | None = None
    """Field and value that ask for little-endian float32 in base64."""
    token_ids: bool = False
    """Whether items may be token ids of the model's own vocabulary."""
    user: str | None = None
    input_type: str | None = None
    input_types: Mapping[InputType, str] = {}
    words_are_fields: bool = False
    """Whether each word for an input type is the name of the field that then holds the texts."""
    truncate: str | None = None
    truncations: Mapping[Truncate, Any] = {}
    """The value for each way of cutting that the provider offers; `none` refuses."""

    def purpose(self, batch: Batch) -> str | None:
        """The provider's word for what the vectors are for, if it has one."""
        if batch.input_type is None:
            return None
        words = self.input_types if batch.input_types is None else batch.input_types
        return words.get(batch.input_type)


class Adapter(Protocol):
    """One protocol. Pure: the same arguments give the same bytes."""

    def encode(self, batch: Batch) -> HttpCall:
        """The call that embeds `batch`.

        Raises:
            InvalidRequest: The batch asks for something that cannot be said in this protocol.
        """
        ...

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """The vectors in a 2xx `reply` to `batch`, as many and in the order of its items.

        Raises:
            ProviderError: It is something else.
        """
        ...

    def error(self, reply: HttpReply) -> ProviderError:
        """The failure that any other `reply` reports."""
        ...


def strip_slashes(address: str, ends: Iterable[str]) -> str:
    """`address` without slashes at its end, and without the first of `ends` that it has."""
    address = address.rstrip("/")
    return address.removesuffix(next((each for each in ends if address.endswith(each)), ""))


class AddressTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider's own SDK is told where to send calls, and what base URL that makes here."""

    variables: tuple[str, ...]
    """Environment variables with the address; the first that is set counts."""
    strip: tuple[str, ...] = ()
    """Ends that such an address may have and our base URL does not."""
    path: str = ""
    """What our base URL has after it; may hold `{variables}`."""
    ignored_if: str = ""
    """A variable that, if it is `true`, has the others ignored."""

    def variable(self, environment: Mapping[str, str]) -> str | None:
        """Which of `variables` says the address, if one does."""
        if environment.get(self.ignored_if, "").lower() == "true":
            return None
        return next((each for each in self.variables if each in environment), None)

    def base_url(self, address: str) -> str:
        """The base URL for what one of `variables` holds, with the `{variables}` of `path`."""
        # Braces of the address are its own; none is the name of a variable.
        place, mark, query = address.replace("{", "{{").replace("}", "}}").partition("?")
        return strip_slashes(place, self.strip) + self.path + mark + query


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of provider, as data: everything that is not code of an adapter."""

    name: str
    """In `provider:model` and in settings."""
    title: str
    """For people."""
    adapter: str = "embedway.providers.adapters.openai:OpenAi"
    """`module:class`, imported when such a provider is declared; called with the row."""
    base_url: str
    """May hold `{variables}`. Without one of a public host, `base_url` must be declared."""
    other_path: str = ""
    """The end of the address at which its host speaks a protocol that the adapter does not."""
    path: str = "/embeddings"
    regional: Mapping[str, str] = {}
    """Base URLs for those values of the variable `region` that have one of their own."""
    by_key: Mapping[str, str] = {}
    """Base URLs for keys that begin with a certain text."""
    address: AddressTemplate | None = None
    """Where the environment says that the provider is; it takes the place of all the above."""
    key_variables: tuple[str, ...] = ()
    """Environment variables with the key; the first that is set enables the provider."""
    key_files: tuple[str, ...] = ()
    """Those of `key_variables` that hold the path of a file with the key."""
    key_elsewhere: Mapping[str, tuple[str, ...]] = {}
    """Variables whose value, in lower case, tells that a key found is for another service."""
    headers: Mapping[str, str] = {}
    """Headers that are sent beside a key found in the environment, each with its variable."""
    variables: Mapping[str, str | tuple[str, ...]] = {}
    """The `{variables}` of addresses and those of the adapter, each with the environment variables
    that it is taken from; the first that is set counts."""
    strip: tuple[str, ...] = ()
    """Ends that an address among `variables` may have and `base_url` does not expect."""
    defaults: Mapping[str, str] = {}
    """Of variables that need not be set."""
    credentials: str = "bearer"
    """`bearer`, `none`, `header:NAME`, or one of `providers/credentials.py`."""
    fields: ProtocolFields = ProtocolFields()
    failures: tuple[tuple[str, FailureKind], ...] = ()
    """What its errors mean where the same words mean something else elsewhere: a pattern for code
    and message in lower case, and the kind of failure. The first that matches wins."""
    limits: BatchLimits = BatchLimits()
    max_in_flight: int = 64
    """Calls to one such provider at a time."""
    key_parts: tuple[str, ...] = ()
    """Variables with what the last of `key_variables` lacks; joined to it by colons."""
    key_optional: bool = False
    """Whether it may be declared without one: its credentials may be had from the machine."""
    own_server: bool = False
    """One runs it oneself: no key is needed, and it has what models one put there."""
    port: int | None = None
    """Where such a server listens by default, if it can be told from others there."""
    eu_native: bool = False
    """Whether it is based and regulated in the EU."""
    hq_country: str = ""
    """Of its company's headquarters, by ISO 3166-1 alpha-2; empty if nobody's or not known."""
    region: str = ""
    """Where it computes, if everything at its `base_url` is in one place."""
    zero_data_retention: bool = False
    source: str
    """Where these facts are from, for people."""
    notes: str = ""
    """What a user should know, one sentence or two."""

    def without_base64(self) -> "ProviderRow":
        """The same, but vectors are asked for as numbers."""
        fields = msgspec.structs.replace(self.fields, base64=None)
        return msgspec.structs.replace(self, fields=fields)

    def sources(self, variable: str) -> tuple[str, ...]:
        """The environment variables that one of `variables` may be taken from."""
        names = self.variables[variable]
        return (names,) if isinstance(names, str) else names

    def environment(self) -> frozenset[str]:
        """Every environment variable that this kind of provider reads."""
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
        """The base URL for these keys and this region; may hold `{variables}`.

        Raises:
            ValueError: The keys belong to several addresses.
        """
        own = {
            next((url for start, url in self.by_key.items() if key.startswith(start)), "")
            for key in keys
        } or {""}
        if len(own) > 1:
            starts = " or ".join(map(repr, self.by_key))
            raise ValueError(
                f"keys that begin with {starts} are for another address than the others: declare "
                "a provider for each"
            )
        return own.pop() or self.regional.get(region, self.base_url)


# What any protocol calls the things that this gateway decides. A client that could set one would
# get other vectors than it is told, or in a shape that no check understands.
DECIDED = frozenset(
    {
        *(
            "contexts",
            "input",
            "inputs",
            "texts",
            "text",
            "images",
            "content",
            "contents",
            "requests",
        ),
        *("instances", "inputtext", "inputimage", "model", "modelid", "messages"),
        *("queries", "documents"),
        *("encodingformat", "embeddingtype", "embeddingtypes", "outputdtype", "embeddtype"),
        *("dimensions", "outputdimension", "outputdimensionality", "dimensionality"),
        *(
            "embedcontentconfig",
            "outputtype",
            "parameters",
            "endianness",
            "returnmultivector",
            "stream",
        ),
    }
)


def merge_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> bytes:
    """The JSON of `body` with the client's own parameters, none of which replaces anything.

    Raises:
        InvalidRequest: One would, or they are nested too deeply to be written.
    """
    if extra:
        taken = DECIDED.union(map(normalise_name, body))
        for name in extra:
            if normalise_name(name) in taken:
                raise InvalidRequest(
                    f"{name!r} is this gateway's to decide for this provider. Take it out, or use "
                    "the field of this API that says the same.",
                    param=name,
                )
        body = {**body, **extra}
    try:
        return msgspec.json.encode(body)
    except RecursionError:
        raise InvalidRequest(
            "A parameter for the provider is nested too deeply. Send flatter ones."
        ) from None


def model_path(path: str, model: str) -> str:
    """`path` with the `model` it has a place for, which cannot lead anywhere else.

    Raises:
        InvalidRequest: It would.
    """
    if not {"", ".", ".."}.isdisjoint(model.split("/")):
        raise InvalidRequest(
            f"{model!r} is no name of a model there. Write it as its provider does.", param="model"
        )
    return path.format(model=quote(model, safe="/@"))
