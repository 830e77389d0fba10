"""What is told of models and deployments, in the shapes of the clients that read it.

Owns who sees what of the catalog, and with it what is known of each deployment now: the space its
vectors are in, and whether it may be asked. Knows nothing of HTTP.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel

from embedway.catalog.catalog import LOCAL, Catalog, ResolvedName
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.catalog.model import Model, Quantisation
from embedway.core.batch import BatchLimits
from embedway.core.errors import ModelForbidden
from embedway.core.keys import Caller
from embedway.core.request import MAX_CHARACTERS, MAX_ITEMS
from embedway.health.health import HealthRegistry, HealthState
from embedway.routing.resolve import resolve, retired_error
from embedway.routing.restrictions import may_use
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.proof import ProofState


class ModelPricing(BaseModel):
    """Prices per million tokens, from the cheapest provider."""

    input_token: float | None
    output_token: float = 0
    currency: str = "USD"


class ModelCard(BaseModel):
    """A model, or an alias, as OpenAI's clients know it, with cortecs' additions."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    description: str
    pricing: ModelPricing
    providers: list[str]
    context_size: int | None
    tags: list[str]


class EmbeddingLimits(BaseModel):
    """What one request for a deployment may be; it is cut into as many calls as it takes."""

    max_batch_size: int
    max_input_tokens: int | None
    max_input_length: int


class CallLimits(BaseModel):
    """What one call to a deployment holds at most, and how many of one request run at a time."""

    max_items: int
    max_tokens: int | None
    max_parallel: int


class SharedSpaceCard(BaseModel):
    """The space that several models share, as their makers say."""

    model: str
    models: list[str]
    proof: Literal["reference", "proven", "unproven", "differs"]
    proof_reason: str


class DeploymentCard(BaseModel):
    """A model at a provider, as MKA1's clients know it, with what choosing needs."""

    id: str
    provider: str
    model: str
    upstream_model: str
    declared: bool
    aliases: list[str]
    description: str
    licence: str
    limits: EmbeddingLimits
    call_limits: CallLimits
    dimensions: int | None
    native_dimensions: int | None
    allowed_dimensions: list[int] | Literal["any", "unknown"]
    tokenizer: str
    pooling: str
    normalised: bool | None
    prompts: dict[str, str]
    space: str
    home_space: str
    shared_space: SharedSpaceCard | None
    proof: ProofState
    proof_reason: str
    price_per_mtok_usd: float | None
    price_date: date | None
    region: str
    hq_country: str
    eu_native: bool
    quantisation: Quantisation
    zero_data_retention: bool
    released: date | None
    deprecated: date | None
    retires: date | None
    successor: str
    dates_source: str
    health: HealthState | Literal["down", "retired"]


class HubPricing(BaseModel):
    """USD per million tokens."""

    input: float | None
    output: float = 0


class HubCard(BaseModel):
    """A model as AIHubMix' clients know it."""

    model_id: str
    desc: str
    types: str = "embedding"
    features: str = ""
    input_modalities: str = "text"
    max_output: int = 0
    context_length: int | None
    pricing: HubPricing


class ModelListing:
    """Makes them; one for the process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        lifetimes: ModelLifetimes,
        spaces: SpaceMemberships,
        healths: HealthRegistry,
        alive: Callable[[Deployment], bool],
        limits: Callable[[Deployment], BatchLimits],
    ) -> None:
        """Args name what it needs; `alive` and `limits` of the engine that embeds there."""
        self._catalog = catalog
        self._lifetimes = lifetimes
        self._spaces = spaces
        self._healths = healths
        self._alive = alive
        self._limits = limits
        self._sharing: dict[str, dict[str, Deployment]] = {}
        """By model id, the models that their makers say share its space, each with a deployment."""
        for each in catalog.deployments():
            if other := each.model.same_space_as:
                self._sharing.setdefault(other, {}).setdefault(each.model.id, each)
        self._aliases: dict[str, list[str]] = {}
        for alias in catalog.aliases:
            for each in resolve(alias, catalog, param="model").deployments:
                self._aliases.setdefault(each.id, []).append(alias)

    def models(self, caller: Caller) -> list[ModelCard]:
        """Every name without a provider that `caller` may use: `auto`, aliases, and ids."""
        names = (*self._catalog.aliases, *self._catalog.models)
        found = ((name, resolve(name, self._catalog, param="model")) for name in names)
        return [card for name, named in found if (card := self._model(name, named, caller))]

    def model(self, name: str, caller: Caller) -> ModelCard:
        """What `name`, any that a request may use, stands for.

        Raises:
            UnknownModel: Nothing has this name.
            ModelRetired: All whom it means have retired it.
            ModelForbidden: The caller may not use it.
        """
        named = resolve(name, self._catalog, param="model")
        card = self._model(name, named, caller)
        if card is None and not self._served_today(named.deployments):
            raise retired_error(name, named.deployments[0])
        if card is None:
            raise ModelForbidden(
                f"This key may not use the model {name!r}. GET /v1/models lists those it may.",
                param="model",
            )
        return card

    def deployments(self, caller: Caller, *, name: str | None = None) -> list[DeploymentCard]:
        """Every deployment that `caller` may use; with `name` those of the model it stands for.

        Raises:
            UnknownModel: Nothing has this name.
        """
        listed = self._catalog.deployments() if name is None else self._of_model(name)
        return [card for each in listed if (card := self._deployment(each, caller))]

    def hub(self) -> list[HubCard]:
        """Every model, as the catalog has it: for everybody, and nothing of what is now."""
        return [
            HubCard(
                model_id=model.id,
                desc=model.description,
                context_length=model.max_item_tokens,
                pricing=HubPricing(input=_cheapest(found.deployments)),
            )
            for model in self._catalog.models.values()
            if (found := self._catalog.find(model.id)) and self._served_today(found.deployments)
        ]

    def _served_today(self, served: Sequence[Deployment]) -> list[Deployment]:
        """The deployments that are not retired."""
        gone = self._lifetimes.today().retired
        return [each for each in served if each.id not in gone]

    def _model(self, name: str, named: ResolvedName, caller: Caller) -> ModelCard | None:
        only = self._catalog.policy(named.deployments[0].model.id).only
        served = [
            each
            for each in self._served_today(named.deployments)
            if may_use(caller, asked=name, served=each) and (not only or each.provider in only)
        ]
        if not served:
            return None
        # Who was found to be of another space answers to its own name alone.
        served = [
            each
            for each in served
            if self._spaces.membership(each, None).state not in {"differs", "drifted"}
        ] or served
        model, stands_for = served[0].model, self._catalog.aliases.get(name)
        created = datetime.combine(model.created, datetime.min.time(), UTC)
        return ModelCard(
            id=name,
            created=int(created.timestamp()),
            owned_by=LOCAL if stands_for else model.owned_by,
            description=(
                f"Stands for {', then '.join(stands_for)}." if stands_for else model.description
            ),
            pricing=ModelPricing(input_token=_cheapest(served)),
            providers=sorted({each.provider for each in served}),
            context_size=model.max_item_tokens,
            tags=model.tags,
        )

    def _of_model(self, name: str) -> Sequence[Deployment]:
        found = resolve(name, self._catalog, param="model").deployments
        model: Model = found[0].model
        if not model.declared:
            return found
        return [each for each in self._catalog.deployments() if each.model.id == model.id]

    def _shared_space(self, served: Deployment, caller: Caller) -> SharedSpaceCard | None:
        """The space that the model's maker says it shares with others; None if it shares none."""
        model = served.model.same_space_as or served.model.id
        sharing = {
            id: each
            for id, each in self._sharing.get(model, {}).items()
            if may_use(caller, asked=id, served=each)
        }
        if not sharing:
            return None
        claim = self._spaces.claim(served)
        return SharedSpaceCard(
            model=model,
            models=[model, *sharing],
            proof=claim.state if claim else "reference",
            proof_reason=claim.reason if claim else "",
        )

    def _deployment(self, served: Deployment, caller: Caller) -> DeploymentCard | None:
        model, deployment = served.model, served.spec
        aliases = [
            each
            for each in self._aliases.get(served.id, ())
            if may_use(caller, asked=each, served=served)
        ]
        if not aliases and not may_use(caller, asked=served.id, served=served):
            return None
        limits = self._limits(served)
        member = self._spaces.membership(served, None)
        home = self._spaces.home(model.id) if model.declared else member.revision
        fields = {
            name: getattr(of, name)
            for of in (model, deployment)
            for name in of.__struct_fields__
            if name in DeploymentCard.model_fields
        }
        return DeploymentCard.model_validate(
            fields
            | {
                "id": served.id,
                "provider": served.provider,
                "model": model.id,
                "upstream_model": served.clients_name,
                "aliases": aliases,
                "limits": {
                    "max_batch_size": MAX_ITEMS,
                    "max_input_tokens": model.max_item_tokens,
                    "max_input_length": MAX_CHARACTERS,
                },
                "call_limits": {name: getattr(limits, name) for name in CallLimits.model_fields},
                "native_dimensions": model.native_dimensions or model.dimensions,
                "allowed_dimensions": model.trained_dimensions,
                "prompts": {str(purpose): text for purpose, text in model.prompts.items()},
                "space": str(self._spaces.space(served, None, revision=member.revision)),
                "home_space": str(self._spaces.space(served, None, revision=home)),
                "shared_space": self._shared_space(served, caller),
                "proof": member.state,
                "proof_reason": member.reason,
                "dates_source": deployment.source,
                "health": self._health(served),
            }
        )

    def _health(self, served: Deployment) -> HealthState | Literal["down", "retired"]:
        if not self._served_today([served]):
            return "retired"
        standing = self._healths.get(served).state(self._healths.now_s())
        return standing if self._alive(served) else "down"


def _cheapest(served: Sequence[Deployment]) -> float | None:
    prices = (each.spec.price_per_mtok_usd for each in served)
    return _usd(min((price for price in prices if price is not None), default=None))


def _usd(price: Decimal | None) -> float | None:
    return None if price is None else float(price)
