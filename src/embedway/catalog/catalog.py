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

_NO_POLICY = ModelPolicy()

DATE = date(2026, 11, 28)
"""The day of the packaged catalog. No price in it was read later."""
ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,255}", re.ASCII)
"""The pattern of model ids in the catalog."""
AUTO_MODEL = "all-minilm-l6-v2"
"""The model that `auto` means unless the operator chooses another. It runs in this process."""
INT8 = "-int8"
"""The end of the id of a local model that computes in int8. Its vectors are of another space, so it
is another model, which nobody gets who did not ask for it."""


class ProviderOffer(msgspec.Struct, frozen=True, kw_only=True):
    """The models that an enabled provider serves."""

    provider: str
    """The provider's name, such as `openai-eu`."""
    kind: str
    """The provider's kind, such as `openai`."""
    models: Sequence[Model] = ()
    """The models declared for this provider, each with one deployment."""
    unlisted: DeploymentSpec
    """The deployment of any model that is not declared."""
    known: bool = True
    """Whether it serves the catalog's models of its kind. A server of one's own may not."""


class ModelFamily(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the catalog."""

    models: list[Model]
    prices: date | None = None
    """When its prices were read, except those with a date of their own."""
    format: int | None = None
    """The file format, if the file is a whole catalog; `embedway.catalog.files` reads those."""
    day: date | None = msgspec.field(name="date", default=None)
    """The day of a whole catalog."""


class Catalog:
    """The models of this gateway, their deployments, and what names stand for."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        *,
        offers: Sequence[ProviderOffer] = (),
        auto: str = f"{LOCAL}:{AUTO_MODEL}",
        aliases: Mapping[str, str | Sequence[str]] = {},
        policies: Mapping[str, ModelPolicy] = {},
        known: Sequence[Model] = (),
    ) -> None:
        """Index `deployments`, given in order of preference, by every name they have.

        `known` holds all models of the catalog, including those that no enabled provider serves.
        """
        self._deployments = deployments
        self._known = known
        by_id: dict[str, list[Deployment]] = {}
        for each in deployments:
            by_id.setdefault(each.model.id, []).append(each)
        self.models = {
            id: msgspec.structs.replace(all[0].model, deployments=[each.spec for each in all])
            for id, all in by_id.items()
        }
        """The model of each id, with the facts of its first deployment."""
        self.offers: Mapping[str, ProviderOffer] = {offer.provider: offer for offer in offers}
        self._policies = policies
        self._bare = {
            id: ResolvedName(deployments=policy.same_space(all, self.policy(id)), is_pinned=False)
            for id, all in by_id.items()
        }
        # A provider's own name for a model works too, unless it is another model's id.
        upstream = {f"{each.provider}:{each.upstream_name}": each for each in deployments}
        self._qualified = {
            name: ResolvedName(deployments=(each,), is_pinned=True)
            for name, each in (upstream | {each.id: each for each in deployments}).items()
        }
        names = [AUTO, *aliases, *by_id, *(each.id for each in deployments)]
        upstream_names = [(each.upstream_name, each.id) for each in deployments]
        self._suggester = NameSuggester([*((name, name) for name in names), *upstream_names])
        for id, model_policy in policies.items():
            if id not in by_id:
                raise policy.policy_error(
                    id, f"no enabled provider serves this model. {self._hint(id)}"
                )
            policy.check_policy(id, model_policy, by_id[id])
        for alias in aliases:
            resolved_name.check_alias(alias, ids=by_id)
        self._pinned: dict[str, ResolvedName] = {}
        self.aliases: Mapping[str, tuple[str, ...]] = resolved_name.flatten_aliases(
            {AUTO: auto, **aliases}
        )
        """The names that `auto` and each alias finally stand for."""
        self._pinned = {alias: self._resolve_alias(alias) for alias in self.aliases}

    def deployments(self) -> Sequence[Deployment]:
        """Return all deployments, in order of preference."""
        return self._deployments

    def local_models(self) -> list[Model]:
        """Return the models that run in this process."""
        return [each.model for each in self._deployments if each.provider == LOCAL]

    def policy(self, model_id: str) -> ModelPolicy:
        """Return the operator's policy for a model."""
        return self._policies.get(model_id, _NO_POLICY)

    def find(self, name: str) -> ResolvedName | None:
        """Return what a name stands for; None if no enabled provider serves it.

        A name is `auto`, an alias, a model's id, or `provider:model` with the model's id or the
        provider's name for it.
        """
        if found := self._pinned.get(name):
            return found
        provider, _, bare = name.partition(":")
        offer = self.offers.get(provider)
        # A provider's name wins over a model's id with a colon; otherwise a discovered server could
        # take requests meant for the provider.
        if not bare or (offer is None and provider != LOCAL):
            return self._bare.get(name)
        if found := self._qualified.get(name):
            return found
        if offer is None:
            return None
        # Google lists its models as `models/NAME`.
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

    def unknown_message(self, name: str, *, otherwise: str) -> str:
        """Return the message about an unknown name; `hint` explains `otherwise`."""
        hint = self.hint(name, otherwise=otherwise)
        if not self._not_enabled(name):
            return f"The model {name!r} does not exist. {hint}"
        alias = "" if ":" in name else ", and no alias has this name"
        return f"No provider enabled here serves the model {name!r}{alias}. {hint}"

    def hint(self, name: str, *, otherwise: str, without: Collection[str] = ()) -> str:
        """Suggest a cure for an unknown name; return `otherwise` if no known name is similar.

        Never suggest a name in `without`.
        """
        provider, separator, _ = name.partition(":")
        hints: list[str] = []
        if (
            separator
            and provider.replace("-", "_").isidentifier()
            and provider not in {*self.offers, LOCAL}
        ):
            enabled = ", ".join([LOCAL, *self.offers])
            hints.append(f"No provider {provider!r} is enabled here; there are {enabled}.")
        if known := self._not_enabled(name):
            kinds = ", ".join(each.provider for each in known.deployments)
            hints.append(
                f"Known providers of {known.id!r}: {kinds}. To see how to enable one: "
                "embedway providers list --all"
            )
            return " ".join(hints)
        near = " or ".join(map(repr, self._suggester.suggest(name, without=without)))
        return " ".join([*hints, f"Did you mean {near}?" if near else otherwise])

    def _not_enabled(self, name: str) -> Model | None:
        """Return the catalog's model of this name if no enabled provider serves it."""
        bare = name.rpartition(":")[2]
        if bare in self.models:
            return None
        known = (each for each in self._known if not each.weights)  # local ones need no provider
        return next((model for model in known if model.id == bare), None)

    def _hint(self, name: str, *, without: Collection[str] = ()) -> str:
        otherwise = "To see all models: embedway models list"
        return self.hint(name, otherwise=otherwise, without=without)

    def _resolve_alias(self, alias: str) -> ResolvedName:
        resolved: dict[str, ResolvedName] = {}
        for name in self.aliases[alias]:
            each = self.find(name)
            if each is None:
                # Do not suggest an alias of the unknown name itself.
                useless = [other for other, names in self.aliases.items() if name in names]
                hint = self._hint(name, without=useless)
                raise resolved_name.alias_error(
                    alias, f"no enabled provider serves {name!r}. {hint}"
                )
            resolved[name] = each
        return resolved_name.join_names(alias, resolved)


@cache
def read_packaged() -> Sequence[Model]:
    """Return every model of the packaged catalog; its deployments name kinds of providers."""
    folder = resources.files("embedway.catalog") / "models"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return tuple(model for file in files for model in read_family(file.read_bytes()))


def read_family(file: bytes) -> list[Model]:
    """Read a file of the catalog, and date its prices. Raises `msgspec.DecodeError`."""
    family = msgspec.toml.decode(file, type=ModelFamily)
    return date_prices(family.models, family.prices)


def date_prices(models: Sequence[Model], prices: date | None) -> list[Model]:
    """Date the prices of `models` that have no date of their own."""
    replace = msgspec.structs.replace
    return [
        replace(
            model,
            deployments=[
                # A price of 0 needs a date of its own, because it is easily a mistake.
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
    int8: bool = False,
    offers: Sequence[ProviderOffer] = (),
    auto: str | None = None,
    aliases: Mapping[str, str | Sequence[str]] = {},
    policies: Mapping[str, ModelPolicy] = {},
    models: Sequence[Model] | None = None,
) -> Catalog:
    """Make the catalog of the local models and then those of `offers`, in order.

    Args:
        eu_native: Whether an organisation based and regulated in the EU runs the local models.
        int8: Whether the local models compute in int8.
        offers: The models of each enabled provider.
        auto: The name that `auto` stands for; None for the built-in model.
        aliases: The name, or the names in order, that each alias stands for.
        policies: The operator's policies, by model id.
        models: The models that providers are known to serve; the packaged ones if left out.

    Raises:
        CatalogError: `auto`, an alias or a policy names an unknown model, or an alias names models
            whose vectors cannot be compared.
    """
    known = read_packaged() if models is None else models
    deployments: list[Deployment] = [
        Deployment(model, msgspec.structs.replace(each, eu_native=eu_native))
        for packaged in read_packaged()
        for model in [_int8_model(packaged) if int8 else packaged]
        for each in model.deployments
        if each.provider == LOCAL
    ]
    for offer in offers:
        declared = {model.id for model in offer.models}
        deployments += [
            Deployment(model, each.at_provider(offer.unlisted))
            for model in offer.models
            for each in model.deployments
        ]
        deployments += [
            Deployment(model, each.at_provider(offer.unlisted))
            for model in (known if offer.known else ())
            for each in model.deployments
            if each.provider == offer.kind and model.id not in declared
        ]
    return Catalog(
        deployments,
        offers=offers,
        auto=auto or local_name(int8=int8),
        aliases=aliases,
        policies=policies,
        known=known,
    )


def local_name(*, int8: bool) -> str:
    """Return the name of the built-in model's deployment."""
    return f"{LOCAL}:{AUTO_MODEL}{INT8 if int8 else ''}"


def _int8_model(model: Model) -> Model:
    """Return a local model as it is when it computes in int8."""
    return msgspec.structs.replace(
        model,
        id=model.id + INT8,
        description=f"{model.description} Computed in int8.",
        deployments=[
            msgspec.structs.replace(each, quantisation="int8")
            for each in model.deployments
            if each.provider == LOCAL
        ],
    )
