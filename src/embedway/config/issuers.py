"""What a section `[issuers.NAME]` of `embedway.toml` may say: outside issuers of tokens."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le, Len
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from embedway.auth.issuers import SCOPES, Issuer
from embedway.auth.public_keys import ALGORITHMS
from embedway.config.sections import unknown
from embedway.config.settings import DEFAULT_CONFIG, ConfigError, Settings
from embedway.core.errors import shown

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_ADDRESS = re.compile(r"[\x21-\x7e]+")


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        host = parts.hostname if parts.port != 0 and _ADDRESS.fullmatch(value) else None
    except ValueError:
        raise ValueError("it must be an address such as https://login.example.com") from None
    if not host or "@" in parts.netloc or "#" in value or parts.scheme not in {"https", "http"}:
        raise ValueError("it must be an address such as https://login.example.com")
    if parts.scheme == "http" and not _of_this_machine(host):
        raise ValueError(
            "without TLS whoever is on the way makes tokens as they like: use https, or http for "
            "this machine alone"
        )
    return value


def _of_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _algorithm(value: str) -> str:
    if value not in ALGORITHMS:
        raise ValueError(
            f"{shown(value)} is not accepted, for who checks it could also sign, or nobody signs. "
            f"There are: {', '.join(ALGORITHMS)}"
        )
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_address)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
OutsideScope = Literal["embeddings", "usage"]


class IssuerSettings(BaseModel):
    """One issuer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Address = Field(description="The exact value of 'iss' in its tokens.")
    audience: Annotated[list[Text], BeforeValidator(_listed), Len(1)] = Field(
        description="The value that 'aud' of its tokens must have, or a list of such."
    )
    jwks_url: Address | None = Field(
        None, description="The address of its keys; if not set, its OpenID configuration names it."
    )
    algorithms: Annotated[list[Annotated[str, AfterValidator(_algorithm)]], Len(1)] = Field(
        ["RS256", "ES256"], description="The algorithms that its tokens may be signed with."
    )
    project: Text | None = Field(
        None, description="The project that its tokens belong to: 'proj_...'."
    )
    project_claim: Text | None = Field(
        None, description="Instead of project: the claim of its tokens that names it."
    )
    user_claim: Text = Field("sub", description="The claim that names the end user.")
    scopes: Annotated[list[OutsideScope], Len(1)] = Field(
        ["embeddings"], description=f"What its tokens may do: some of {', '.join(SCOPES)}."
    )
    scopes_claim: Text | None = Field(
        None, description="The claim that says which of these each token has."
    )
    leeway_s: Annotated[float, Ge(0), Le(300)] = Field(
        30, description="How far its clock may differ from this one, in seconds."
    )

    @model_validator(mode="after")
    def _one_project(self) -> "IssuerSettings":
        if (self.project is None) == (self.project_claim is None):
            raise ValueError(
                "it must say whose its tokens are: either project, or project_claim if each "
                "token says so"
            )
        return self


def issuers_of(settings: Settings) -> list[Issuer]:
    """Every outside issuer whose tokens are accepted.

    Raises:
        ConfigError: A section says something impossible; the message says which, and what to do.
    """
    found: list[Issuer] = []
    wrong: list[str] = []
    for name, section in settings.issuers.items():
        where = f"{settings.origin('issuers')}: [issuers.{name}]"
        try:
            found.append(_issuer(name, section, where=where))
        except ConfigError as error:
            wrong.append(str(error))
    addresses = [each.issuer for each in found]
    wrong += [
        f"{DEFAULT_CONFIG}: [issuers.{each.name}]: another section has the issuer "
        f"{each.issuer!r} too. Take one of them out; audience may be a list."
        for each in found
        if addresses.count(each.issuer) > 1
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def hosts_of(issuers: list[Issuer]) -> frozenset[str]:
    """The hosts that the administrator named, which may be at private addresses."""
    named = (url for each in issuers for url in (each.issuer, each.jwks_url) if url)
    return frozenset(filter(None, (urlsplit(url).hostname for url in named)))


def _issuer(name: str, section: Mapping[str, Any], *, where: str) -> Issuer:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: the name of an issuer is 1 to 64 of a-z, 0-9, dot, dash and underscore, "
            "and begins with a letter or a digit."
        )
    try:
        read = IssuerSettings.model_validate(section)
    except ValidationError as error:
        told = dict.fromkeys(map(_explained, error.errors()))
        raise ConfigError("\n".join(f"{where}: {each}" for each in told)) from None
    return Issuer(
        name=name,
        issuer=read.issuer,
        audiences=tuple(read.audience),
        jwks_url=read.jwks_url,
        algorithms=tuple(read.algorithms),
        project=read.project,
        project_claim=read.project_claim,
        user_claim=read.user_claim,
        scopes=tuple(read.scopes),
        scopes_claim=read.scopes_claim,
        leeway_s=read.leeway_s,
    )


def _explained(error: ErrorDetails) -> str:
    reason = error["msg"].removeprefix("Value error, ")
    reason = f"{reason[0].lower()}{reason[1:]}"
    if not error["loc"]:
        return f"{reason}."
    setting = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return unknown(setting, IssuerSettings.model_fields)
    meaning = IssuerSettings.model_fields[setting].description
    if error["type"] == "missing":
        return f"{setting} is missing. {meaning}"
    return f"{setting} = {error['input']!r}: {reason}. {meaning}"
