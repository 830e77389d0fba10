"""Reads sections `[issuers.NAME]` of `embedway.toml`: outside issuers of tokens."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from annotated_types import Ge, Le, Len
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    model_validator,
)

from embedway.auth.issuer_keys import Issuer
from embedway.auth.public_keys import ALGORITHMS
from embedway.config.schema import ConfigError, SettingsSection, check_name, read_section, split_url
from embedway.config.settings import DEFAULT_CONFIG, Settings
from embedway.core.errors import quote_value

_SCHEMES = {"https", "http"}
_ADDRESS = re.compile(r"[\x21-\x7e]+")


def _address(value: str) -> str:
    parts = split_url(value)
    host = parts and parts.hostname
    plain = _ADDRESS.fullmatch(value) and "#" not in value
    if not parts or not host or not plain or "@" in parts.netloc or parts.scheme not in _SCHEMES:
        raise ValueError("it must be an address such as https://login.example.com")
    if parts.scheme == "http" and not _of_this_machine(host):
        raise ValueError(
            "without TLS, anyone on the network could forge tokens: use https, or http for this "
            "machine alone"
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
            f"{quote_value(value)} is not accepted: tokens must be signed with a private key. "
            f"There are: {', '.join(ALGORITHMS)}"
        )
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_address)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
Algorithm = Annotated[str, AfterValidator(_algorithm)]
OutsideScope = Literal["embeddings", "usage"]


class IssuerSettings(SettingsSection):
    """An outside issuer of tokens."""

    issuer: Address
    """The exact value of 'iss' in its tokens."""
    audience: Annotated[list[Text], BeforeValidator(_as_list), Len(1)]
    """The value that 'aud' of its tokens must have, or a list of possible ones."""
    jwks_url: Address | None = None
    """The address of its keys; if not set, its OpenID configuration names it."""
    algorithms: Annotated[list[Algorithm], Len(1)] = Field(["RS256", "ES256"])
    """The algorithms that its tokens may be signed with."""
    project: Text | None = None
    """The project that its tokens belong to: 'proj_...'."""
    project_claim: Text | None = None
    """Instead of project: the claim of its tokens that names it."""
    user_claim: Text = "sub"
    """The claim that names the end user."""
    scopes: Annotated[list[OutsideScope], Len(1)] = Field(["embeddings"])
    """What its tokens may do: some of embeddings, usage."""
    scopes_claim: Text | None = None
    """The claim that says which of these each token has."""
    leeway_s: Annotated[float, Ge(0), Le(300)] = 30
    """How far its clock may differ from this one, in seconds."""

    @model_validator(mode="after")
    def _one_project(self) -> "IssuerSettings":
        if (self.project is None) == (self.project_claim is None):
            raise ValueError(
                "it must say which project its tokens belong to: set project, or project_claim if "
                "each token names it"
            )
        return self


def read_issuers(settings: Settings) -> list[Issuer]:
    """Return every outside issuer whose tokens to accept.

    Raises:
        ConfigError: A section is wrong; the message says which, and what to do.
    """
    issuers: list[Issuer] = []
    wrong: list[str] = []
    for name, section in settings.issuers.items():
        where = f"{settings.origin('issuers')}: [issuers.{name}]"
        try:
            issuers.append(_issuer(name, section, where=where))
        except ConfigError as error:
            wrong.append(str(error))
    addresses = [each.issuer for each in issuers]
    wrong += [
        f"{DEFAULT_CONFIG}: [issuers.{each.name}]: another section has the issuer "
        f"{each.issuer!r} too. Remove one of them; audience may be a list."
        for each in issuers
        if addresses.count(each.issuer) > 1
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))
    return issuers


def private_issuer_hosts(issuers: Sequence[Issuer]) -> frozenset[str]:
    """Return the hosts in the settings, which may have private addresses."""
    urls = (url for each in issuers for url in (each.issuer, each.jwks_url) if url)
    return frozenset(filter(None, (urlsplit(url).hostname for url in urls)))


def _issuer(name: str, section: Mapping[str, Any], *, where: str) -> Issuer:
    check_name(name, of="an issuer", where=where)
    read = read_section(IssuerSettings, section, where=where, show_values=True)
    facts = read.model_dump(exclude={"audience"})
    return msgspec.convert(facts | {"name": name, "audiences": read.audience}, Issuer)
