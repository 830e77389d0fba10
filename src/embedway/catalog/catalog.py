"""Loads the models this gateway knows, and finds one by any of its names."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import cache
from importlib import resources

import msgspec

from embedway.catalog import policy, resolved_name
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import LOCAL, DeploymentSpec, Model
from embedway.catalog.policy import ModelPolicy
from embedway.catalog.resolved_name import AUTO, ResolvedName
from embedway.catalog.suggest import NameSuggester

DATE = date(2026, 11, 28)
"""The day of the packaged catalog. No price in it was read later."""
ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,255}", re.ASCII)
"""What an id in the catalog looks like."""
AUTO_MODEL = "all-minilm-l6-v2"
"""Runs in this process, and is behind `auto` unless the operator pins another."""


class ProviderOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider that this gateway may ask offers."""

    provider: str
    """Its name here, such as `openai-eu`."""
    kind: str
    """What it is, such as `openai`: the models known of that kind are to be had from it."""
    models: Sequence[Model] = ()
    """Models declared for it alone, each with one deployment."""
    unlisted: DeploymentSpec
    """How a model that nobody declared is served there."""
    known: bool = True
    """Whether it has the models known of its kind; a server of one's own has what one put there."""


class ModelFamily(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the catalog."""

    models: list[Model]
    prices: date | None = None
    """When its prices were read, but for those with a date of their own."""
    format: int | None = None
    """The format of a whole catalog in one file; see `embedway.catalog.files`."""
    day: date | None = msgspec.field(name="date", default=None)
    """The day of such a file."""


class Catalog:
    """The known models by id, who serves them in order of preference, and what names stand for."""

    def __init__(
        self,
        served: Sequence[Deployment],
        *,
        offers: Sequence[ProviderOffer] = (),
        auto: str = f"{LOCAL}:{AUTO_MODEL}",
        aliases: Mapping[str, str | Sequence[str]] = {},
        policies: Mapping[str, ModelPolicy] = {},
        known: Sequence[Model] = (),
    ) -> None:
        """Index these deployments by name; `known` are all models of the catalog."""
        self._served = served
        self._known = known
        by_id: dict[str, list[Deployment]] = {}
        for each in self._served:
            by_id.setdefault(each.model.id, []).append(each)
        self.models = {
            id: msgspec.structs.replace(all[0].model, deployments=[each.spec for each in all])
            for id, all in by_id.items()
        }
        """What is listed of each id: the facts of the first who serves it."""
        self.offers: Mapping[str, ProviderOffer] = {offer.provider: offer for offer in offers}
        self._policies = policies
        self._bare = {
            id: ResolvedName(deployments=policy.same_space(all, self.policy(id)), is_pinned=False)
            for id, all in by_id.items()
        }
        # By the provider's own name for a model too, where that is no other model's id.
        theirs = {f"{each.provider}:{each.upstream_name}": each for each in self._served}
        self._qualified = {
            name: ResolvedName(deployments=(each,), is_pinned=True)
            for name, each in (theirs | {each.id: each for each in self._served}).items()
        }
        names = [AUTO, *aliases, *by_id, *(each.id for each in self._served)]
        own_names = [(each.upstream_name, each.id) for each in self._served]
        self._near = NameSuggester([*((name, name) for name in names), *own_names])
        for id, said in policies.items():
            if id not in by_id:
                raise policy.policy_error(id, f"nobody here has this model. {self._hint(id)}")
            policy.check_policy(id, said, by_id[id])
        for alias in aliases:
            resolved_name.check_alias(alias, ids=by_id)
        self._pinned: dict[str, ResolvedName] = {}
        self.aliases: Mapping[str, tuple[str, ...]] = resolved_name.flatten_aliases(
            {AUTO: auto, **aliases}
        )
        """The names that `auto` and each alias stand for in the end."""
        self._pinned = {alias: self._stands_for(alias) for alias in self.aliases}

    def deployments(self) -> Sequence[Deployment]:
        """Every deployment with its model, in order of preference."""
        return self._served

    def local_models(self) -> list[Model]:
        """Those that run in this process."""
        return [each.model for each in self._served if each.provider == LOCAL]

    def policy(self, model_id: str) -> ModelPolicy:
        """What the operator says of a model."""
        return self._policies.get(model_id) or ModelPolicy()

    def find(self, name: str) -> ResolvedName | None:
        """Find what a name stands for; None if nobody has it.

        A name is `auto`, an alias, an id, or `provider:model` with the model's id or the provider's
        name for it.
        """
        if found := self._pinned.get(name):
            return found
        provider, _, bare = name.partition(":")
        offer = self.offers.get(provider)
        # A provider's name decides first, or a server that is found could take it for its own.
        if not bare or (offer is None and provider != LOCAL):
            return self._bare.get(name)
        if found := self._qualified.get(name):
            return found
        if offer is None:
            return None
        # As Google lists its models.
        plain = f"{provider}:{bare.rpartition('models/')[2]}"
        if offer.known and (found := self._qualified.get(plain)):
            return found
        unlisted = Model(
            id=bare,
            owned_by=provider,
            trained_dimensions="unknown",
            deployments=[offer.unlisted],
            declared=False,
        )
        return ResolvedName(deployments=(Deployment(unlisted, offer.unlisted),), is_pinned=True)

    def unknown(self, name: str, *, otherwise: str) -> str:
        """The message about a name that nobody here has; `otherwise` is as for `hint`."""
        wrong = (
            f"No provider enabled here serves the model {name!r}."
            if self._not_enabled(name)
            else f"The model {name!r} does not exist."
        )
        return f"{wrong} {self.hint(name, otherwise=otherwise)}"

    def hint(self, name: str, *, otherwise: str, without: Collection[str] = ()) -> str:
        """Suggest a cure for a name that nobody has, or `otherwise` if no name is near.

        None of the names in `without` is suggested.
        """
        provider, separator, _ = name.partition(":")
        told: list[str] = []
        if (
            separator
            and provider.replace("-", "_").isidentifier()
            and provider not in {*self.offers, LOCAL}
        ):
            enabled = ", ".join([LOCAL, *self.offers])
            told.append(f"No provider {provider!r} is enabled here; there are {enabled}.")
        if known := self._not_enabled(name):
            kinds = ", ".join(each.provider for each in known.deployments)
            told.append(
                f"Known providers of {known.id!r}: {kinds}. To see how to enable one: "
                "embedway providers list --all"
            )
            return " ".join(told)
        near = " or ".join(map(repr, self._near.suggest(name, without=without)))
        return " ".join([*told, f"Did you mean {near}?" if near else otherwise])

    def _not_enabled(self, name: str) -> Model | None:
        """The model of the catalog that this name means, if nobody here serves it."""
        bare = name.rpartition(":")[2]
        if bare in self.models:
            return None
        return next((model for model in self._known if model.id == bare), None)

    def _hint(self, name: str, *, without: Collection[str] = ()) -> str:
        otherwise = "To see all models: embedway models list"
        return self.hint(name, otherwise=otherwise, without=without)

    def _stands_for(self, alias: str) -> ResolvedName:
        found: dict[str, ResolvedName] = {}
        for name in self.aliases[alias]:
            meant = self.find(name)
            if meant is None:
                # An alias of a name that nobody has is no cure for it.
                useless = [each for each, names in self.aliases.items() if name in names]
                hint = self._hint(name, without=useless)
                raise resolved_name.alias_error(alias, f"nobody here has {name!r}. {hint}")
            found[name] = meant
        return resolved_name.join_names(alias, found)


@cache
def read_packaged() -> Sequence[Model]:
    """Every model of the packaged catalog; the providers of its deployments are kinds."""
    folder = resources.files("embedway.catalog") / "models"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return tuple(model for file in files for model in read_family(file.read_bytes()))


def read_family(file: bytes) -> list[Model]:
    """Read a file of the catalog, and date its prices. Raises `msgspec.DecodeError`."""
    family = msgspec.toml.decode(file, type=ModelFamily)
    return dated(family.models, family.prices)


def dated(models: Sequence[Model], prices: date | None) -> list[Model]:
    """Date the prices of `models` that have no date of their own."""
    replace = msgspec.structs.replace
    return [
        replace(
            model,
            deployments=[
                # That something is free is too easily said of all: it needs a date of its own.
                replace(each, price_date=each.price_date or prices)
                if each.price_per_mtok_usd
                else each
                for each in model.deployments
            ],
        )
        for model in models
    ]


def load_catalog(
    *,
    eu_native: bool,
    offers: Sequence[ProviderOffer] = (),
    auto: str = f"{LOCAL}:{AUTO_MODEL}",
    aliases: Mapping[str, str | Sequence[str]] = {},
    policies: Mapping[str, ModelPolicy] = {},
    models: Sequence[Model] | None = None,
) -> Catalog:
    """Make the catalog of the models that run here, and then those of `offers`, in order.

    Args:
        eu_native: Whether models that run here count as run in the EU by an organisation of the EU.
        offers: The providers that are enabled.
        auto: The name that `auto` stands for.
        aliases: The name, or the names in order, that each stands for.
        policies: The operator's policy for models, by id.
        models: The models that providers are known to serve; the packaged ones if left out.

    Raises:
        CatalogError: `auto`, an alias or a policy names nobody, or an alias names models whose
            vectors cannot be compared.
    """
    known = read_packaged() if models is None else models
    served: list[Deployment] = [
        Deployment(model, msgspec.structs.replace(each, eu_native=eu_native))
        for model in read_packaged()
        for each in model.deployments
        if each.provider == LOCAL
    ]
    for offer in offers:
        declared = {model.id for model in offer.models}
        served += [
            Deployment(model, each.at_provider(offer.unlisted))
            for model in offer.models
            for each in model.deployments
        ]
        served += [
            Deployment(model, each.at_provider(offer.unlisted))
            for model in (known if offer.known else ())
            for each in model.deployments
            if each.provider == offer.kind and model.id not in declared
        ]
    return Catalog(
        served, offers=offers, auto=auto, aliases=aliases, policies=policies, known=known
    )
