"""Loads the models this gateway knows, and finds one by any of its names."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import msgspec

from embedway.catalog.model import Deployment, Model, Served

AUTO = "auto"
AUTO_MODEL = "all-minilm-l6-v2"
"""The model behind `auto`: a pinned choice, for another one is another vector space."""
LOCAL = "embedway"
"""The provider of models that run in this process."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider that this gateway may ask offers."""

    provider: str
    """Its name here, such as `openai-eu`."""
    kind: str
    """What it is, such as `openai`: the models known of that kind are to be had from it."""
    models: Sequence[Model] = ()
    """Models declared for it alone, each with one deployment."""
    unlisted: Deployment
    """How a model that nobody declared is served there."""
    known: bool = True
    """Whether it has the models known of its kind; a server of one's own has what one put there."""


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the packaged catalog."""

    models: list[Model]


class Catalog:
    """The known models by id, who serves them in order of preference, and what `auto` is."""

    def __init__(
        self, served: Sequence[Served], *, auto: str, offers: Sequence[Offer] = ()
    ) -> None:
        self._served = served
        self._by_id: dict[str, list[Served]] = {}
        for each in self._served:
            self._by_id.setdefault(each.model.id, []).append(each)
        self.models = {
            id: msgspec.structs.replace(all[0].model, deployments=[each.deployment for each in all])
            for id, all in self._by_id.items()
        }
        """What is listed of each id: the facts of the first who serves it."""
        self.auto = self.models[auto]
        """The model behind `auto`."""
        self.offers: Mapping[str, Offer] = {offer.provider: offer for offer in offers}
        # By the provider's own name for a model too, where that is no other model's id.
        self._qualified = {f"{each.provider}:{each.name}": each for each in self._served} | {
            each.id: each for each in self._served
        }

    def names(self) -> list[str]:
        """Every name a request may use, but for a provider's models that nobody declared."""
        return [AUTO, *(each.id for each in self._served), *self.models]

    def deployments(self) -> Sequence[Served]:
        """Every deployment with its model, in order of preference."""
        return self._served

    def local(self) -> list[Model]:
        """Those that run in this process."""
        return [each.model for each in self._served if each.provider == LOCAL]

    def find(self, name: str) -> list[Served]:
        """Who may be asked for the model of this name, the preferred first; nobody if none has it.

        Args:
            name: `auto`, an id, or `provider:model` with the model's id here or its name there.
        """
        if name == AUTO:
            return self._by_id[self.auto.id][:1]
        provider, _, bare = name.partition(":")
        offer = self.offers.get(provider)
        # A provider's name decides first, or a server that is found could take it for its own.
        if not bare or (offer is None and provider != LOCAL):
            return self._by_id.get(name, [])
        if found := self._qualified.get(name):
            return [found]
        if offer is None:
            return []
        unlisted = Model(
            id=bare,
            owned_by=provider,
            trained_dimensions="unknown",
            deployments=[offer.unlisted],
            declared=False,
        )
        return [Served(unlisted, offer.unlisted)]


@cache
def packaged() -> Sequence[Model]:
    """Every model of the packaged catalog; the providers of its deployments are kinds."""
    folder = resources.files("embedway.catalog") / "models"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return tuple(
        model
        for file in files
        for model in msgspec.toml.decode(file.read_bytes(), type=Family).models
    )


def load(*, eu_native: bool, offers: Sequence[Offer] = ()) -> Catalog:
    """The models that can be asked for: those that run here, and those of `offers`, in order.

    Args:
        eu_native: Whether the operator declares this gateway's own models, which run where it
            runs, to be based and regulated in the EU.
        offers: The providers that are enabled.
    """
    models = packaged()
    served: list[Served] = [
        Served(model, msgspec.structs.replace(each, eu_native=eu_native))
        for model in models
        for each in model.deployments
        if each.provider == LOCAL
    ]
    for offer in offers:
        declared = {model.id for model in offer.models}
        served += [Served(model, each) for model in offer.models for each in model.deployments]
        served += [
            Served(
                model,
                msgspec.structs.replace(
                    each,
                    provider=offer.provider,
                    eu_native=offer.unlisted.eu_native,
                    zero_data_retention=offer.unlisted.zero_data_retention,
                ),
            )
            for model in (models if offer.known else ())
            for each in model.deployments
            if each.provider == offer.kind and model.id not in declared
        ]
    return Catalog(served, auto=AUTO_MODEL, offers=offers)
