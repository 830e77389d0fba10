"""Lists the models and deployments that a caller may use, in the shapes that clients expect.

Adds to the catalog what is known of each deployment now: its space, its proof and its health.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Literal

from embedway.catalog.catalog import LOCAL, Catalog, ResolvedName
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.catalog.model import Model, Quantisation
from embedway.core.batch import BatchLimits
from embedway.core.errors import ModelForbidden
from embedway.core.keys import Caller
from embedway.core.request import MAX_CHARACTERS
from embedway.core.response_model import ResponseModel
from embedway.health.health import HealthRegistry, HealthState
from embedway.routing.resolve import resolve, retired_error
from embedway.routing.restrictions import may_use
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.proof import ProofState


class ModelPricing(ResponseModel):
    """Prices per million tokens, from the cheapest provider."""

    input_token: float | None
    output_token: float = 0
    currency: str = "USD"


class ModelCard(ResponseModel, title="Model"):
    """A model or an alias as OpenAI's clients know it, with cortecs' additions."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    description: str
    pricing: ModelPricing
    providers: list[str]
    context_size: int | None
    tags: list[str]


class EmbeddingLimits(ResponseModel):
    """The limits of one request, which may be cut into several calls."""

    max_batch_size: int
    max_input_tokens: int | None
    max_input_length: int


class CallLimits(ResponseModel):
    """The limits of one call to a deployment, and how many calls of a request run at a time."""

    max_items: int
    max_tokens: int | None
    max_parallel: int


class SharedSpaceCard(ResponseModel, title="SharedSpace"):
    """A space that several models share, as their makers say."""

    model: str
    models: list[str]
    proof: Literal["reference", "proven", "unproven", "differs"]
    proof_reason: str


class DeploymentCard(ResponseModel, title="Deployment"):
    """A model at a provider as MKA1's clients know it, with what helps to choose one."""

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


class HubPricing(ResponseModel, title="HubModelPricing"):
    """USD per million tokens."""

    input: float | None
    output: float = 0


class HubCard(ResponseModel, title="HubModel"):
    """A model as AIHubMix's clients know it."""

    model_id: str
    desc: str
    types: str = "embedding"
    features: str = ""
    input_modalities: str = "text"
    max_output: int = 0
    context_length: int | None
    pricing: HubPricing


class ModelListing:
    """Builds the listings; one for the process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        lifetimes: ModelLifetimes,
        spaces: SpaceMemberships,
        healths: HealthRegistry,
        alive: Callable[[Deployment], bool],
        limits: Callable[[Deployment], BatchLimits],
        max_items: int,
    ) -> None:
        """List what `catalog` has.

        `alive` and `limits` describe a deployment's engine, and `max_items` is the most items that
        one request may have.
        """
        self._catalog = catalog
        self._lifetimes = lifetimes
        self._spaces = spaces
        self._healths = healths
        self._alive = alive
        self._limits = limits
        self._max_items = max_items
        self._sharing: dict[str, dict[str, Deployment]] = {}
        """By model id, the models said to share its space, each with a deployment."""
        for each in catalog.deployments():
            if other := each.model.same_space_as:
                self._sharing.setdefault(other, {}).setdefault(each.model.id, each)
        self._aliases: dict[str, list[str]] = {}
        for alias in catalog.aliases:
            for each in resolve(alias, catalog, param="model").deployments:
                self._aliases.setdefault(each.id, []).append(alias)

    def list_models(self, caller: Caller) -> list[ModelCard]:
        """List every name without a provider that `caller` may use: `auto`, aliases and ids."""
        names = (*self._catalog.aliases, *self._catalog.models)
        found = ((name, resolve(name, self._catalog, param="model")) for name in names)
        return [card for name, named in found if (card := self._model_card(name, named, caller))]

    def get_model(self, name: str, caller: Caller) -> ModelCard:
        """Describe what `name`, any name that a request may use, stands for.

        Raises:
            UnknownModel: The catalog has no such name.
            ModelRetired: All providers of the model have retired it.
            ModelForbidden: The caller may not use it.
        """
        named = resolve(name, self._catalog, param="model")
        card = self._model_card(name, named, caller)
        if card is None and not self._not_retired(named.deployments):
            raise retired_error(name, named.deployments[0])
        if card is None:
            raise ModelForbidden(
                f"This key may not use the model {name!r}. GET /v1/models lists those it may.",
                param="model",
            )
        return card

    def list_deployments(self, caller: Caller, *, name: str | None = None) -> list[DeploymentCard]:
        """List the deployments that `caller` may use; with `name` only those of that model.

        Raises:
            UnknownModel: The catalog has no such name.
        """
        listed = self._catalog.deployments() if name is None else self._list_siblings(name)
        return [card for each in listed if (card := self._deployment_card(each, caller))]

    def list_hub_models(self) -> list[HubCard]:
        """List every model as the catalog has it, the same for all callers."""
        return [
            HubCard(
                model_id=model.id,
                desc=model.description,
                context_length=model.max_item_tokens,
                pricing=HubPricing(input=_cheapest(found.deployments)),
            )
            for model in self._catalog.models.values()
            if (found := self._catalog.find(model.id)) and self._not_retired(found.deployments)
        ]

    def _not_retired(self, deployments: Sequence[Deployment]) -> list[Deployment]:
        """Return the deployments that are not retired."""
        retired = self._lifetimes.today().retired
        return [each for each in deployments if each.id not in retired]

    def _model_card(self, name: str, named: ResolvedName, caller: Caller) -> ModelCard | None:
        only = self._catalog.policy(named.deployments[0].model.id).only
        deployments = [
            each
            for each in self._not_retired(named.deployments)
            if may_use(caller, name=name, deployment=each) and (not only or each.provider in only)
        ]
        if not deployments:
            return None
        # A deployment found to be in another space serves only its own name.
        deployments = [
            each
            for each in deployments
            if self._spaces.membership(each, None).state not in {"differs", "drifted"}
        ] or deployments
        model, stands_for = deployments[0].model, self._catalog.aliases.get(name)
        created = datetime.combine(model.created, datetime.min.time(), UTC)
        return ModelCard(
            id=name,
            created=int(created.timestamp()),
            owned_by=LOCAL if stands_for else model.owned_by,
            description=(
                f"Stands for {', then '.join(stands_for)}." if stands_for else model.description
            ),
            pricing=ModelPricing(input_token=_cheapest(deployments)),
            providers=sorted({each.provider for each in deployments}),
            context_size=model.max_item_tokens,
            tags=model.tags,
        )

    def _list_siblings(self, name: str) -> Sequence[Deployment]:
        deployments = resolve(name, self._catalog, param="model").deployments
        model: Model = deployments[0].model
        if not model.declared:
            return deployments
        return [each for each in self._catalog.deployments() if each.model.id == model.id]

    def _shared_space_card(self, deployment: Deployment, caller: Caller) -> SharedSpaceCard | None:
        """Describe the space that the model is said to share, or None."""
        model = deployment.model.same_space_as or deployment.model.id
        sharing = {
            id: each
            for id, each in self._sharing.get(model, {}).items()
            if may_use(caller, name=id, deployment=each)
        }
        if not sharing:
            return None
        claim = self._spaces.shared_space_claim(deployment)
        return SharedSpaceCard(
            model=model,
            models=[model, *sharing],
            proof=claim.state if claim else "reference",
            proof_reason=claim.reason if claim else "",
        )

    def _deployment_card(self, deployment: Deployment, caller: Caller) -> DeploymentCard | None:
        model, spec = deployment.model, deployment.spec
        aliases = [
            each
            for each in self._aliases.get(deployment.id, ())
            if may_use(caller, name=each, deployment=deployment)
        ]
        if not aliases and not may_use(caller, name=deployment.id, deployment=deployment):
            return None
        limits = self._limits(deployment)
        member = self._spaces.membership(deployment, None)
        home = self._spaces.home(model.id) if model.declared else member.revision
        fields = {
            name: getattr(of, name)
            for of in (model, spec)
            for name in of.__struct_fields__
            if name in DeploymentCard.model_fields
        }
        return DeploymentCard.model_validate(
            fields
            | {
                "id": deployment.id,
                "provider": deployment.provider,
                "model": model.id,
                "upstream_model": deployment.clients_name,
                "aliases": aliases,
                "limits": {
                    "max_batch_size": self._max_items,
                    "max_input_tokens": model.max_item_tokens,
                    "max_input_length": MAX_CHARACTERS,
                },
                "call_limits": {name: getattr(limits, name) for name in CallLimits.model_fields},
                "native_dimensions": model.native_dimensions or model.dimensions,
                "allowed_dimensions": model.trained_dimensions,
                "prompts": {str(purpose): text for purpose, text in model.prompts.items()},
                "space": str(self._spaces.space(deployment, None, revision=member.revision)),
                "home_space": str(self._spaces.space(deployment, None, revision=home)),
                "shared_space": self._shared_space_card(deployment, caller),
                "proof": member.state,
                "proof_reason": member.reason,
                "dates_source": spec.source,
                "health": self._health(deployment),
            }
        )

    def _health(self, deployment: Deployment) -> HealthState | Literal["down", "retired"]:
        if not self._not_retired([deployment]):
            return "retired"
        state = self._healths.get(deployment).state(self._healths.now_s())
        return state if self._alive(deployment) else "down"


def _cheapest(deployments: Sequence[Deployment]) -> float | None:
    prices = (each.spec.price_per_mtok_usd for each in deployments)
    return min((float(price) for price in prices if price is not None), default=None)
