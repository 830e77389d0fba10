"""Builds the catalog from the settings: aliases, and sections `[models."ID"]`."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Field, FiniteFloat

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.policy import ModelPolicy, SuppliedCanaries
from embedway.catalog.resolved_name import CatalogError
from embedway.config.catalogs import CatalogInUse, catalog_in_use
from embedway.config.providers import provider_offers
from embedway.config.schema import ConfigError, SettingsSection, read_section
from embedway.config.settings import Settings
from embedway.core import vectors
from embedway.core.provider_error import ProviderError
from embedway.providers.provider_config import ProviderConfig

MIN_CANARIES, MAX_CANARIES = 2, 64


class PolicySettings(SettingsSection):
    """The operator's policy for a model."""

    order: list[str] = Field([])
    """The providers to try first, in this order."""
    weights: dict[str, Annotated[FiniteFloat, Ge(0)]] = Field({})
    """How often each provider goes first among those that rank equally. 0: only when no other is
    left."""
    only: Annotated[list[str], MinLen(1)] = Field([])
    """The providers to use, and no others."""
    reference: str | None = None
    """The provider whose vectors define the model's space."""
    canaries: str | None = None
    """A JSON file of texts and vectors that define the space instead. A relative path starts at the
    settings file's folder."""
    min_cosine: Annotated[FiniteFloat, Gt(0), Le(1)] = 0.999
    """The lowest cosine to the reference at which a provider's vectors agree."""


class CanaryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a canary file: texts, and the model's vectors in the same order."""

    texts: list[str]
    vectors: list[list[float]]


def build_catalog(
    settings: Settings, providers: Sequence[ProviderConfig], *, used: CatalogInUse | None = None
) -> Catalog:
    """Build the catalog of the local models and those of the enabled `providers`.

    Args:
        settings: The settings in force.
        providers: The enabled providers.
        used: The catalog to use; the one in use if left out.

    Raises:
        ConfigError: The settings for names or models are impossible.
    """
    used = used or catalog_in_use(settings)
    try:
        return catalog.load_catalog(
            eu_native=settings.eu_native,
            int8=settings.precision == "int8",
            offers=provider_offers(providers),
            auto=settings.auto,
            aliases=settings.aliases,
            policies=_policies(settings),
            models=used.models,
        )
    except CatalogError as error:
        # The name may be in a newer catalog that could not be used.
        reasons = f"{settings.origin(error.setting)}: {error} {used.problem}".rstrip()
        raise ConfigError(reasons) from None


def _policies(settings: Settings) -> dict[str, ModelPolicy]:
    file = settings.origin("models")
    return {
        id: _policy(section, where=f'{file}: [models."{id}"]', folder=Path(file).parent)
        for id, section in settings.models.items()
    }


def _policy(section: Mapping[str, Any], *, where: str, folder: Path) -> ModelPolicy:
    read = read_section(PolicySettings, section, where=where)
    policy = msgspec.convert(read.model_dump(exclude={"canaries"}), ModelPolicy)
    if read.canaries is None:
        return policy
    canaries = _canaries(folder / _expanded(read.canaries), where=where)
    return msgspec.structs.replace(policy, canaries=canaries)


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111  # Path's fails for ~unknown


def _canaries(path: Path, *, where: str) -> SuppliedCanaries:
    """Read the canary file at `path`.

    Raises:
        ConfigError: It cannot be read, or its vectors cannot be a reference.
    """

    def wrong(reason: str) -> ConfigError:
        return ConfigError(f"{where}: canaries, {path}: {reason}.")

    try:
        content = path.read_bytes()
        file = msgspec.json.decode(content, type=CanaryFile)
    except OSError as error:
        raise wrong(error.strerror or str(error)) from None
    except ValueError as error:
        raise wrong(f'{error}. It holds {{"texts": [...], "vectors": [[...], ...]}}') from None
    if not MIN_CANARIES <= len(file.texts) <= MAX_CANARIES:
        raise wrong(f"it must have {MIN_CANARIES} to {MAX_CANARIES} texts, not {len(file.texts)}")
    if not all(file.texts):
        raise wrong(f"text {file.texts.index('') + 1} is empty")
    if len(file.vectors) != len(file.texts):
        raise wrong(f"it has {len(file.texts)} texts, but {len(file.vectors)} vectors")
    if len({len(each) for each in file.vectors}) > 1 or not file.vectors[0]:
        raise wrong("its vectors are not all of one width")
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which the check refuses
        values = np.array(file.vectors, np.float64).astype(np.float32)
    try:
        vectors.check_vectors(values, items=len(file.texts), dimensions=None)
    except ProviderError as error:
        raise wrong(f"it has {error.reason}") from None
    return SuppliedCanaries(
        texts=tuple(file.texts), vectors=values, digest=hashlib.sha256(content).hexdigest()[:12]
    )
