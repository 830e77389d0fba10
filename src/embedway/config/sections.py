"""Reads sections `[providers.NAME]` of `embedway.toml`."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from embedway.catalog.catalog import AUTO, LOCAL
from embedway.catalog.model import Quantisation
from embedway.config.schema import (
    ConfigError,
    Count,
    SettingsSection,
    check_name,
    read_section,
    split_url,
)
from embedway.core.request import InputType

_KEY_IN_QUERY = re.compile(
    r"(?:^|[&;])[^=&;]*(?:key|token|secret|signature|sig|code|password|auth|authorization)=",
    re.IGNORECASE,
)


def address(value: str) -> str:
    """Return `value` if it is a valid base URL of a provider.

    Raises:
        ValueError: It is not a URL, has a fragment, or shows a password or key.
    """
    parts = split_url(value)
    whole = parts and parts.scheme in {"http", "https"} and parts.hostname
    if not parts or not whole or re.search(r"[\s{}]", value):
        raise ValueError("it must begin with https:// or http:// and a host, as https://host/v1")
    if "@" in parts.netloc:
        raise ValueError("an address with a user in it shows their password: use api_key")
    if "#" in value:
        raise ValueError("the part after # is never sent: remove it")
    if _KEY_IN_QUERY.search(parts.query):
        raise ValueError("an address with a key in its query shows the key: use api_key")
    return value


class ModelSettings(SettingsSection):
    """A model at a provider. The catalog fills in what is left out, if it knows the id."""

    id: str = Field(min_length=1, max_length=256)
    """The name that clients ask for."""
    name: str | None = None
    """The provider's own name for it, if that differs."""
    base_model: str | None = None
    """The provider's name of the model behind `name`, if `name` is one of your own, such as an
    inference profile of Bedrock; the catalog's if not set."""
    dimensions: Count | None = None
    """The width of its vectors."""
    native_dimensions: Count | None = None
    """The width of its widest vectors, if that is not its default."""
    trained_dimensions: list[Count] | Literal["any", "unknown"] | None = None
    """Other widths it was trained for (Matryoshka)."""
    max_item_tokens: Count | None = None
    """The most tokens that one text may have."""
    pooling: Literal["mean", "cls", "last_token", "unstated"] | None = None
    """How the vectors of the tokens become one vector."""
    normalised: bool | None = None
    """Whether its vectors have length one; if true, the gateway ensures it."""
    same_space_as: str | None = None
    """The id of another model whose vectors its maker says these can be compared with."""
    prompts: dict[InputType, str] | None = None
    """The prefix that its maker prescribes for texts of each input type."""
    licence: str | None = None
    """The licence of its weights, as an SPDX identifier."""
    price_per_mtok_usd: Annotated[Decimal, Ge(0)] | None = None
    """USD per million input tokens."""
    price_date: date | None = None
    """When that price was read."""
    batch_price_factor: Annotated[Decimal, Ge(0), Le(1)] | None = None
    """What a line of a batch is charged, as a share of that price, such as 0.5."""
    quantisation: Quantisation | None = None
    """The quantisation of its weights there."""
    region: str | None = None
    """Where it runs, if not where its provider does."""
    tokenizer: Literal["cl100k_base", "unknown"] | None = None
    """cl100k_base for OpenAI's models: their tokens are counted exactly."""
    token_ids: Literal["cl100k_base", "native"] | None = None
    """native: token ids in requests are this model's own."""
    max_items: Count | None = None
    """The most texts in a call."""
    max_batch_tokens: Count | None = None
    """The most tokens in a call."""
    released: date | None = None
    """When the provider began to serve it."""
    deprecated: date | None = None
    """From when the provider advises against it."""
    retires: date | None = None
    """The first day, in UTC, on which the provider no longer serves it."""
    successor: str | None = None
    """The model that the provider recommends in its place."""
    source: str | None = None
    """Where these dates are published."""
    parameters: dict[str, Any] | None = None
    """Fields of its provider's API that every call for it carries."""
    input_types: dict[InputType, str] | None = None
    """The input types that its provider tells apart, each with its provider's word."""
    apply_prompts: bool | None = None
    """Whether the gateway puts its prompts before texts. Set it where the provider does not."""


class ProviderSettings(SettingsSection):
    """A provider. The variables of its row, such as `resource`, are settings here too."""

    model_config = ConfigDict(extra="allow")

    kind: str | None = None
    """A row of `embedway providers list --all`; the section's name if not set."""
    enabled: bool = True
    """If false, it is never used."""
    base_url: Annotated[str, AfterValidator(address)] | None = None
    """The address of its API; a private address is allowed here. A query, such as
    ?api-version=1, is sent with each call."""
    api_key: SecretStr | None = None
    """Its key, or $NAME for that variable; its usual variable if not set."""
    api_keys: list[SecretStr] = Field([])
    """Several keys, used in turn."""
    api_key_file: Annotated[str, MinLen(1)] | None = None
    """A file that holds its key, such as a mounted secret; it is read again whenever it changes. A
    relative path starts at the settings file's folder."""
    api_key_files: list[Annotated[str, MinLen(1)]] = Field([])
    """Several such files, whose keys are used in turn."""
    max_items: Count | None = None
    """The most texts in a call."""
    max_batch_tokens: Count | None = None
    """The most tokens in a call."""
    max_in_flight: Count | None = None
    """The most calls at a time."""
    base64: bool | None = None
    """Whether vectors are asked for in base64; false if the server refuses the field. If not
    set, as its kind does."""
    catalog: bool | None = None
    """Whether it has the models that are known of its kind; true if the section has the name of
    the kind or its address is of the same domain."""
    eu_native: bool | None = None
    """Whether it is based and regulated in the EU, if the row is wrong."""
    hq_country: Annotated[str, Field(pattern="^([A-Z]{2})?$")] | None = None
    """The country of its headquarters, such as FR, if the row is wrong."""
    region: str | None = None
    """Where it runs; where its address depends on that, which one is asked."""
    zero_data_retention: bool | None = None
    """Whether it keeps no data."""
    models: list[ModelSettings] = Field([])
    """Models that the catalog does not know, or describes otherwise."""

    @property
    def variables(self) -> dict[str, str]:
        """The values of the row's variables."""
        region = {"region": self.region} if self.region else {}
        return {name: str(value) for name, value in ((self.model_extra or {}) | region).items()}


def read_provider_section(name: str, section: Mapping[str, Any], *, where: str) -> ProviderSettings:
    """Read the section of the provider `name`, which `where` names in messages.

    Raises:
        ConfigError: The name or a setting is invalid. The message shows no value of the section,
            because it may be a key.
    """
    if name == LOCAL:
        raise ConfigError(f"{where}: this name is reserved for local models. Choose another.")
    check_name(name, of="a provider", where=where)
    read = read_section(ProviderSettings, section, where=where, nested={"models": ModelSettings})
    ids = [model.id for model in read.models]
    for id in ids:
        if id == AUTO or ids.count(id) > 1:
            reason = "is reserved" if id == AUTO else "is listed twice"
            raise ConfigError(f"{where}: the model id {id!r} {reason}. Choose another.")
    return read
