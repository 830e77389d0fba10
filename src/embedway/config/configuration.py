"""Reads the whole configuration: the settings, the enabled providers and the catalog."""

from collections.abc import Sequence
from functools import cached_property

import msgspec

from embedway.catalog.catalog import Catalog
from embedway.config.catalogs import CatalogInUse, catalog_in_use
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.settings import LoadedSettings, Settings
from embedway.providers.provider_config import ProviderConfig


class Configuration(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All that an operator decides, read and checked. Nothing of it is open yet."""

    loaded: LoadedSettings
    providers: Sequence[ProviderConfig]
    """The enabled providers."""
    catalog_in_use: CatalogInUse

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


def read_configuration(loaded: LoadedSettings) -> Configuration:
    """Return the configuration that follows from the settings.

    Raises:
        ConfigError: A section names an unknown kind of provider, or lacks a required setting.
    """
    used = catalog_in_use(loaded.settings)
    providers = enabled_providers(loaded, used=used)
    return Configuration(loaded=loaded, providers=providers, catalog_in_use=used)
