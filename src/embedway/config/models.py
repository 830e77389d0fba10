"""What names stand for and what sections `[models."ID"]` say: the one way to make the catalog."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.named import CatalogError
from embedway.catalog.policy import Canaries, Policy
from embedway.config import sections
from embedway.config.catalogs import InUse, in_use
from embedway.config.providers import offers
from embedway.config.settings import ConfigError, Settings
from embedway.core import vectors
from embedway.core.provider_error import ProviderError
from embedway.providers.declared import Declared

MIN_CANARIES, MAX_CANARIES = 2, 64


class PolicySettings(BaseModel):
    """What the operator says of a model; providers are by their names here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: list[str] = Field([], description="Providers that are tried first, in this order.")
    weights: dict[str, Annotated[FiniteFloat, Ge(0)]] = Field(
        {},
        description="By provider, its share of first tries among those that rank alike; 1 if not "
        "set, 0 for one that is asked when nobody else is left.",
    )
    only: Annotated[list[str], MinLen(1)] | None = Field(
        None, description="The providers that may be asked, and no others."
    )
    reference: str | None = Field(
        None, description="The provider whose vectors define the model's space."
    )
    canaries: str | None = Field(
        None,
        description="A JSON file of texts and vectors that define it instead; a relative path is "
        "from this file's folder.",
    )
    min_cosine: Annotated[FiniteFloat, Gt(0), Le(1)] = Field(
        0.999,
        description="A provider's vectors agree with the reference if their cosine is at least "
        "this.",
    )


class CanaryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts and the vectors that the model gives them, in the same order."""

    texts: list[str]
    vectors: list[list[float]]


def catalog_of(
    settings: Settings, providers: Sequence[Declared], *, used: InUse | None = None
) -> Catalog:
    """The models that run here and those of `providers`, with the names that stand for them.

    Args:
        settings: In force.
        providers: That are enabled.
        used: The catalog to use; the one in use if left out.

    Raises:
        ConfigError: What the settings say of names and models cannot be.
    """
    used = used or in_use(settings)
    try:
        return catalog.load(
            eu_native=settings.eu_native,
            offers=offers(providers),
            auto=settings.auto,
            aliases=settings.aliases,
            policies=_policies(settings),
            models=used.models,
        )
    except CatalogError as error:
        # A name may be one of the catalog that the operator expects to be in use.
        reasons = f"{settings.origin(error.setting)}: {error} {used.problem}".rstrip()
        raise ConfigError(reasons) from None


def _policies(settings: Settings) -> dict[str, Policy]:
    file = settings.origin("models")
    return {
        id: _policy(section, where=f'{file}: [models."{id}"]', folder=Path(file).parent)
        for id, section in settings.models.items()
    }


def _policy(section: Mapping[str, Any], *, where: str, folder: Path) -> Policy:
    try:
        said = PolicySettings.model_validate(section)
    except ValidationError as error:
        told = dict.fromkeys(_explained(each) for each in error.errors())
        raise ConfigError("\n".join(f"{where}: {each}" for each in told)) from None
    return Policy(
        order=tuple(said.order),
        weights=said.weights,
        only=tuple(said.only or ()),
        reference=said.reference,
        canaries=None
        if said.canaries is None
        else _canaries(folder / _expanded(said.canaries), where=where),
        min_cosine=said.min_cosine,
    )


def _explained(error: ErrorDetails) -> str:
    setting = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return sections.unknown(setting, PolicySettings.model_fields)
    reason = error["msg"][0].lower() + error["msg"][1:]
    place = ".".join(str(each) for each in error["loc"] if each != "[key]")
    return f"{place}: {reason}. {PolicySettings.model_fields[setting].description}"


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111  # Path's fails for ~unknown


def _canaries(path: Path, *, where: str) -> Canaries:
    """The file at `path`.

    Raises:
        ConfigError: It cannot be read, or no vectors are to be compared with what is in it.
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
        raise wrong(f"{MIN_CANARIES} to {MAX_CANARIES} texts are asked for, not {len(file.texts)}")
    if not all(file.texts):
        raise wrong(f"text {file.texts.index('') + 1} is empty")
    if len(file.vectors) != len(file.texts):
        raise wrong(f"it has {len(file.texts)} texts, but {len(file.vectors)} vectors")
    if len({len(each) for each in file.vectors}) > 1 or not file.vectors[0]:
        raise wrong("its vectors are not all of one width")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is told
        values = np.array(file.vectors, np.float64).astype(np.float32)
    try:
        vectors.check(values, items=len(file.texts), dimensions=None)
    except ProviderError as error:
        raise wrong(f"it has {error.reason}") from None
    return Canaries(
        texts=tuple(file.texts), vectors=values, digest=hashlib.sha256(content).hexdigest()[:12]
    )
