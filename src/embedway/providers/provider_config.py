"""Describes a provider as this gateway uses it: its row, keys, address and models."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import Model
from embedway.core.batch import BatchLimits
from embedway.providers.adapter import ProviderRow, strip_slashes


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An enabled provider. Contains secrets: never log it."""

    name: str
    """The name in `provider:model`."""
    row: ProviderRow
    keys: Sequence[str] = ()
    key_files: Sequence[Path] = ()
    """The files that the last keys were read from, one for each."""
    base_url: str | None = None
    """The base URL from the settings or the environment; None for the row's."""
    variables: Mapping[str, str] = {}
    """The variables of the row's base URL and of its adapter."""
    headers: Mapping[str, str] = {}
    """Headers to send with each call, beside the key."""
    models: Sequence[Model] = ()
    limits: BatchLimits | None = None
    """What one call may hold; None for the row's limits."""
    max_in_flight: int | None = None
    """The most calls at a time; None for the row's."""
    eu_native: bool | None = None
    """Overrides the row's fact, unless None. So do the next two fields."""
    hq_country: str | None = None
    zero_data_retention: bool | None = None
    catalog: bool = True
    """Whether it has the models that the catalog lists for its kind."""
    origin: str = ""
    """The place where it was declared or found, for people."""
    is_discovered: bool = True
    """Whether it was found, not declared. Then it is left out if it cannot be used."""

    def __repr__(self) -> str:
        return f"ProviderConfig({self.name!r})"

    def opens_like(self, other: "ProviderConfig") -> bool:
        """Return whether one open provider serves both: they differ at most in their models."""
        replace = partial(
            msgspec.structs.replace, models=(), key_files=(), origin="", is_discovered=False
        )
        return replace(self) == replace(other)

    @property
    def url(self) -> str:
        """The base URL in force."""
        if self.base_url:
            return self.base_url
        values = self.values
        stripped = {name: strip_slashes(value, self.row.strip) for name, value in values.items()}
        return self.row.template(self.keys, values.get("region", "")).format_map(stripped)

    @property
    def values(self) -> Mapping[str, str]:
        """The variables in force, including the row's defaults."""
        return {**self.row.defaults, **self.variables}


def fingerprinter(configs: Sequence[ProviderConfig]) -> Callable[[Deployment], str]:
    """Return a function that fingerprints a deployment, as 12 hex digits.

    The fingerprint changes if another server or model serves the deployment's id: it covers the
    provider's kind and address, the model's name there, and all settings that affect its vectors.
    """
    servers = {each.name: (each.row.name, each.url) for each in configs}

    def fingerprint(deployment: Deployment) -> str:
        spec = deployment.spec
        prompts = deployment.model.prompts if spec.apply_prompts else {}
        facts: list[Any] = [*servers.get(deployment.provider, ()), deployment.upstream_name]
        facts += filter(None, (spec.parameters, spec.input_types, prompts))
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:12]

    return fingerprint
