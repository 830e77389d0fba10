"""A provider as the administrator enables it: its row, and what is this gateway's own of it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import Model
from embedway.core.batch import BatchLimits
from embedway.providers.adapter import ProviderRow, strip_slashes


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as it is enabled here. Holds secrets: never log it."""

    name: str
    """In `provider:model`."""
    row: ProviderRow
    keys: Sequence[str] = ()
    base_url: str | None = None
    """As declared by the administrator or the environment; None for the row's."""
    variables: Mapping[str, str] = {}
    """Of the row's base URL and of its adapter."""
    headers: Mapping[str, str] = {}
    """Sent with each call, beside the key."""
    models: Sequence[Model] = ()
    limits: BatchLimits | None = None
    """If other than the row's."""
    max_in_flight: int | None = None
    eu_native: bool | None = None
    """If other than the row's; likewise the next two."""
    hq_country: str | None = None
    zero_data_retention: bool | None = None
    catalog: bool = True
    """Whether it has the models that the catalog knows of its kind."""
    origin: str = ""
    """Where it was declared, for people."""
    found: bool = True
    """Whether nobody declared it but its key is there; it then may turn out to be unusable."""

    def __repr__(self) -> str:
        return f"Declared({self.name!r})"

    @property
    def url(self) -> str:
        """The base URL in force."""
        if self.base_url:
            return self.base_url
        values = self.values
        places = {name: strip_slashes(value, self.row.strip) for name, value in values.items()}
        return self.row.template(self.keys, values.get("region", "")).format_map(places)

    @property
    def values(self) -> Mapping[str, str]:
        """The variables in force, with the row's defaults for those that are not set."""
        return {**self.row.defaults, **self.variables}


def fingerprinter(declared: Sequence[ProviderConfig]) -> Callable[[Deployment], str]:
    """What tells of a deployment whether another server or model stands behind its id now.

    12 hex digits that stand for the kind of its provider, the address and the model's name there,
    and for whatever else the gateway says to it that its vectors depend on.
    """
    places = {each.name: (each.row.name, each.url) for each in declared}

    def fingerprint(served: Deployment) -> str:
        deployment = served.spec
        prompts = served.model.prompts if deployment.apply_prompts else {}
        asked: list[Any] = [*places.get(served.provider, ()), served.upstream_name]
        asked += filter(None, (deployment.parameters, deployment.input_types, prompts))
        return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:12]

    return fingerprint
