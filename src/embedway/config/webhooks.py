"""Reads sections `[webhooks.NAME]` of `embedway.toml`: who receives events."""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from annotated_types import Len
from pydantic import Field, SecretStr, model_validator

from embedway.config.schema import ConfigError, SettingsSection, check_name, read_section, split_url
from embedway.config.settings import LoadedSettings
from embedway.config.stores import reveal
from embedway.events.event import BEGINNINGS, EventType, Format, Webhook

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""The lengths of a key that Standard Webhooks allows, in bytes."""

_MAKE = f'`echo "{PREFIX}$(openssl rand -base64 32)"`'
_ADDRESS = re.compile(r"[\x21-\x7e]+")


class WebhookSettings(SettingsSection):
    """A webhook."""

    url: SecretStr
    """Where events are sent, as https://host/path, or $NAME for that variable. A private address is
    allowed."""
    secret: SecretStr | None = None
    """The key of signatures, or $NAME for that variable: whsec_ and 24 to 64 random bytes in
    base64. Required unless the format is slack."""
    format: Format = "json"
    """json, or slack for an incoming webhook of Slack or of a program that understands these."""
    events: Annotated[list[EventType], Len(1)] = Field(list(get_args(EventType)))
    """The types of events to send; all if not set."""

    @model_validator(mode="after")
    def _fits_together(self) -> "WebhookSettings":
        if self.secret is None and self.format == "json":
            raise ValueError(
                "secret is missing, so that a receiver could not tell who sent an event. Make one "
                f"with {_MAKE}"
            )
        for end, beginning in BEGINNINGS.items():
            if end in self.events and beginning not in self.events:
                raise ValueError(f"events has {end} without {beginning}: add that too")
        return self


def read_webhooks(loaded: LoadedSettings) -> list[Webhook]:
    """Return every webhook of the settings.

    Raises:
        ConfigError: A section is wrong. The message says which, and what to do, and shows no value,
            because it may be a secret.
    """
    webhooks: list[Webhook] = []
    wrong: list[str] = []
    for name, section in loaded.settings.webhooks.items():
        where = f"{loaded.settings.origin('webhooks')}: [webhooks.{name}]"
        try:
            webhooks.append(_webhook(name, section, where=where, loaded=loaded))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return webhooks


def _webhook(
    name: str, section: Mapping[str, Any], *, where: str, loaded: LoadedSettings
) -> Webhook:
    check_name(name, of="a webhook", where=where)
    read = read_section(WebhookSettings, section, where=where)
    secret = reveal(read.secret)
    return Webhook(
        name=name,
        url=_check_url(loaded.resolve(read.url.get_secret_value(), where=where), where),
        secret=_decode_secret(loaded.resolve(secret, where=where), where) if secret else None,
        format=read.format,
        events=frozenset(read.events),
    )


def _check_url(url: str, where: str) -> str:
    parts = split_url(url)
    whole = parts and parts.scheme in {"http", "https"} and parts.hostname
    if not parts or not whole or not _ADDRESS.fullmatch(url) or "#" in url or "@" in parts.netloc:
        raise ConfigError(
            f"{where}: url must be an address such as https://host/path, without a user and "
            "without a part after #."
        )
    return url


def _decode_secret(secret: str, where: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or len(key) not in SECRET_BYTES:
        raise ConfigError(
            f"{where}: secret must be {PREFIX} and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes "
            f"in base64. Make one with {_MAKE}."
        )
    return key
