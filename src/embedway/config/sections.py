"""What a section `[providers.NAME]` of `embedway.toml` may say, and what is said of a wrong one."""

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from annotated_types import Ge
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from embedway.catalog.catalog import AUTO, LOCAL
from embedway.catalog.model import Quantisation
from embedway.config.settings import ConfigError
from embedway.core.request import InputType

_KEY_IN_QUERY = re.compile(
    r"(?:^|[&;])[^=&;]*(?:key|token|secret|signature|sig|code|password|auth|authorization)=",
    re.IGNORECASE,
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


def address(value: str) -> str:
    """`value`, if a provider can be at this base URL.

    Raises:
        ValueError: It is none, has a fragment, or shows a password or key.
    """
    try:
        parts = urlsplit(value)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, whole = None, False
    if parts is None or not whole or re.search(r"[\s{}]", value):
        raise ValueError("it must begin with https:// or http:// and a host, as https://host/v1")
    if "@" in parts.netloc:
        raise ValueError("an address with a user in it shows their password: use api_key")
    if "#" in value:
        raise ValueError("what stands behind # is never sent: leave it out")
    if _KEY_IN_QUERY.search(parts.query):
        raise ValueError("an address with a key in its query shows the key: use api_key")
    return value


class ModelSettings(BaseModel):
    """A model at a provider. What is left out is taken from the catalog, if it knows the id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=256, description="The name that clients ask for.")
    name: str | None = Field(None, description="The provider's own name for it, if that differs.")
    base_model: str | None = Field(
        None,
        description="The provider's name of the model behind `name`, if `name` is one of your own, "
        "such as an inference profile of Bedrock; the catalog's if not set.",
    )
    dimensions: Annotated[int, Ge(1)] | None = Field(None, description="The width of its vectors.")
    native_dimensions: Annotated[int, Ge(1)] | None = Field(
        None, description="The width of its widest vectors, if that is not its default."
    )
    trained_dimensions: list[Annotated[int, Ge(1)]] | Literal["any", "unknown"] | None = Field(
        None, description="Other widths it was trained for (Matryoshka)."
    )
    max_item_tokens: Annotated[int, Ge(1)] | None = Field(
        None, description="The most tokens that one text may have."
    )
    pooling: Literal["mean", "cls", "last_token", "unstated"] | None = Field(
        None, description="How the vectors of the tokens become one vector."
    )
    normalised: bool | None = Field(
        None, description="Whether its vectors have length one; if true, the gateway ensures it."
    )
    same_space_as: str | None = Field(
        None,
        description="The id of another model whose vectors its maker says these can be compared "
        "with.",
    )
    prompts: dict[InputType, str] | None = Field(
        None, description="The prefix that its maker prescribes for texts of each input type."
    )
    licence: str | None = Field(
        None, description="The licence of its weights, as an SPDX identifier."
    )
    price_per_mtok_usd: Annotated[Decimal, Ge(0)] | None = Field(
        None, description="USD per million input tokens."
    )
    price_date: date | None = Field(None, description="When that price was read.")
    quantisation: Quantisation | None = Field(
        None, description="The quantisation of its weights there."
    )
    region: str | None = Field(None, description="Where it runs, if not where its provider does.")
    tokenizer: Literal["cl100k_base", "unknown"] | None = Field(
        None, description="cl100k_base for OpenAI's models: their tokens are counted exactly."
    )
    token_ids: Literal["cl100k_base", "native"] | None = Field(
        None, description="native: token ids in requests are this model's own."
    )
    max_items: Annotated[int, Ge(1)] | None = Field(None, description="The most texts in a call.")
    max_batch_tokens: Annotated[int, Ge(1)] | None = Field(
        None, description="The most tokens in a call."
    )
    released: date | None = Field(None, description="When the provider began to serve it.")
    deprecated: date | None = Field(None, description="From when the provider advises against it.")
    retires: date | None = Field(
        None, description="The first day, in UTC, on which the provider no longer serves it."
    )
    successor: str | None = Field(
        None, description="The model that the provider recommends in its place."
    )
    source: str | None = Field(None, description="Where these dates are published.")
    parameters: dict[str, Any] | None = Field(
        None, description="Fields of its provider's API that every call for it carries."
    )
    input_types: dict[InputType, str] | None = Field(
        None,
        description="The input types that its provider tells apart, each with its provider's word.",
    )
    apply_prompts: bool | None = Field(
        None,
        description="Whether the gateway puts its prompts before texts. Set it where the provider "
        "does not.",
    )


class ProviderSettings(BaseModel):
    """A provider. What its row calls a variable, such as `region`, is set here by that name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str | None = Field(
        None, description="A row of `embedway providers list --all`; the section's name if not set."
    )
    enabled: bool = Field(default=True, description="If false, it is never used.")
    base_url: Annotated[str, AfterValidator(address)] | None = Field(
        None,
        description="The address of its API; a private address is allowed here. A query, such as "
        "?api-version=1, is sent with each call.",
    )
    api_key: SecretStr | None = Field(
        None, description="Its key, or $NAME for that variable; its usual variable if not set."
    )
    api_keys: list[SecretStr] = Field([], description="Several keys, used in turn.")
    max_items: Annotated[int, Ge(1)] | None = Field(None, description="The most texts in a call.")
    max_batch_tokens: Annotated[int, Ge(1)] | None = Field(
        None, description="The most tokens in a call."
    )
    max_in_flight: Annotated[int, Ge(1)] | None = Field(
        None, description="The most calls at a time."
    )
    base64: bool | None = Field(
        None,
        description="Whether vectors are asked for in base64; false if the server refuses the "
        "field. If not set, as its kind does.",
    )
    catalog: bool | None = Field(
        None,
        description="Whether it has the models that are known of its kind; true if the section has "
        "the name of the kind or its address is of the same domain.",
    )
    eu_native: bool | None = Field(
        None, description="Whether it is based and regulated in the EU, if the row is wrong."
    )
    hq_country: Annotated[str, Field(pattern="^([A-Z]{2})?$")] | None = Field(
        None, description="The country of its headquarters, such as FR, if the row is wrong."
    )
    region: str | None = Field(
        None, description="Where it runs; where its address depends on that, which one is asked."
    )
    zero_data_retention: bool | None = Field(None, description="Whether it keeps no data.")
    models: list[ModelSettings] = Field(
        [], description="Models that the catalog does not know, or describes otherwise."
    )

    @property
    def variables(self) -> dict[str, str]:
        """What it is told beyond these."""
        extra = {
            **(self.__pydantic_extra__ or {}),
            **({"region": self.region} if self.region else {}),
        }
        return {name: str(value) for name, value in extra.items()}


def read(name: str, section: Mapping[str, Any], *, where: str) -> ProviderSettings:
    """The section `name`.

    Args:
        name: Of the provider.
        section: As it is in the file.
        where: File and section, for messages.

    Raises:
        ConfigError: It cannot be so named, or a setting has a value it cannot have. No value of
            the section is in the message, for it may be a key.
    """
    if name == LOCAL:
        raise ConfigError(f"{where}: this name is that of the models that run here. Take another.")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: the name of a provider is 1 to 64 of a-z, 0-9, dot, dash and underscore, "
            "and begins with a letter or a digit."
        )
    try:
        read = ProviderSettings.model_validate(section)
    except ValidationError as error:
        told = dict.fromkeys(_explained(each, section) for each in error.errors())
        raise ConfigError("\n".join(f"{where}: {each}" for each in told)) from None
    ids = [model.id for model in read.models]
    for id in ids:
        if id == AUTO or ids.count(id) > 1:
            reason = "is this gateway's own word" if id == AUTO else "is there twice"
            raise ConfigError(f"{where}: the model id {id!r} {reason}. Take another.")
    return read


def unknown(setting: str, known: Iterable[str]) -> str:
    """What is said of a setting that there is not."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(setting, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
    return f"there is no setting {setting}. {hint}"


def _explained(error: ErrorDetails, section: Mapping[str, Any]) -> str:
    place = [each for each in error["loc"] if isinstance(each, int) or each.isidentifier()]
    of = ""
    schema: type[BaseModel] = ProviderSettings
    if place[0] == "models" and len(place) > 1:
        at = int(place[1])
        model: Any = section["models"][at]
        named: Any = cast("dict[str, Any]", model).get("id") if isinstance(model, dict) else None
        of = f"model {named!r}: " if named else f"model {at + 1}: "
        place, schema = place[2:], ModelSettings
    setting = str(place[0]) if place else "models"
    if error["type"] == "extra_forbidden":
        return of + unknown(setting, schema.model_fields)
    if error["type"] == "missing":
        return f"{of}{setting} is missing."
    field = schema.model_fields.get(setting)
    meaning = f" {field.description}" if field else ""
    reason = error["msg"].removeprefix("Value error, ")
    return f"{of}{setting}: {reason[0].lower()}{reason[1:]}.{meaning}"
