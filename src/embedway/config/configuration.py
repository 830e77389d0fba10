"""Reads the whole configuration: the settings, the enabled providers and the catalog."""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import msgspec

from embedway.auth.issuer_keys import Issuer
from embedway.catalog.catalog import Catalog
from embedway.config.catalogs import CatalogInUse, catalog_in_use
from embedway.config.issuers import read_issuers
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.schema import ConfigError
from embedway.config.settings import LoadedSettings, Settings, load_settings
from embedway.config.webhooks import read_webhooks
from embedway.events.event import Webhook
from embedway.providers.provider_config import ProviderConfig


class Configuration(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All that an operator decides, read and checked. Nothing of it is open yet."""

    loaded: LoadedSettings
    providers: Sequence[ProviderConfig]
    """The enabled providers."""
    issuers: Sequence[Issuer]
    """The outside issuers whose tokens to accept."""
    webhooks: Sequence[Webhook]
    """Those who receive events."""
    catalog_in_use: CatalogInUse

    def with_keys(self, providers: Sequence[ProviderConfig]) -> Self:
        """Return the configuration with other keys of some of its providers."""
        new = {each.name: each for each in providers}
        all = [new.get(each.name, each) for each in self.providers]
        changed = msgspec.structs.replace(self, providers=all)
        vars(changed)["catalog"] = self.catalog  # no key is in it
        return changed

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @cached_property
    def catalog(self) -> Catalog:
        """The models of this machine and of the providers, and what names stand for.

        Raises:
            ConfigError: The settings for names or models are impossible.
        """
        return build_catalog(self.settings, self.providers, used=self.catalog_in_use)


def read_configuration(
    loaded: LoadedSettings, *, used: CatalogInUse | None = None
) -> Configuration:
    """Return the configuration that follows from the settings.

    Args:
        loaded: The settings.
        used: The catalog to use; the one in use if left out.

    Raises:
        ConfigError: Sections are wrong; the message has a line for each reason.
    """
    used = used or catalog_in_use(loaded.settings)
    wrong: list[str] = []
    providers, issuers, webhooks = [], [], []
    try:
        providers = enabled_providers(loaded, used=used)
    except ConfigError as error:
        wrong.append(str(error))
    try:
        issuers = read_issuers(loaded.settings)
    except ConfigError as error:
        wrong.append(str(error))
    try:
        webhooks = read_webhooks(loaded)
    except ConfigError as error:
        wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Configuration(
        loaded=loaded,
        providers=providers,
        issuers=issuers,
        webhooks=webhooks,
        catalog_in_use=used,
    )


def read_again(running: Configuration) -> tuple[Configuration, Settings]:
    """Read all sources again: the settings file, `.env`, files of keys, and the catalog.

    Returns:
        The configuration that can be in force without a restart, and the settings as they were
        read. They differ in the settings that only a restart can apply.

    Raises:
        ConfigError: The configuration is impossible.
    """
    loaded = load_settings(**running.loaded.options)
    kept = {name: getattr(running.settings, name) for name in Settings.fixed_at_start()}
    settings = loaded.settings.model_copy(update=kept)
    return read_configuration(msgspec.structs.replace(loaded, settings=settings)), loaded.settings
