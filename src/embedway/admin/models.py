"""The models endpoints, in the shapes of the clients that read them."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from embedway.catalog.catalog import Catalog
from embedway.catalog.model import Model, Served
from embedway.core.errors import InvalidRequest
from embedway.core.request import MAX_CHARACTERS, MAX_ITEMS
from embedway.routing.resolve import find

PUBLIC_CACHE_S = 300


class Pricing(BaseModel):
    """Prices per million tokens, from the cheapest provider."""

    input_token: float | None
    output_token: float = 0
    currency: str = "USD"


class ModelCard(BaseModel):
    """A model as OpenAI's clients know it, with cortecs' additions."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    description: str
    pricing: Pricing
    providers: list[str]
    context_size: int | None
    tags: list[str]


class ModelCards(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class EmbeddingLimits(BaseModel):
    """What one request to a deployment may be."""

    max_batch_size: int
    max_input_tokens: int | None
    max_input_length: int


class DeploymentCard(BaseModel):
    """A model at a provider, as MKA1's clients know it, with what choosing needs."""

    id: str
    provider: str
    model: str
    limits: EmbeddingLimits
    dimensions: int | None
    allowed_dimensions: list[int] | Literal["any", "unknown"]
    space: str
    price_per_mtok_usd: float | None
    eu_native: bool
    quantisation: str
    zero_data_retention: bool
    health: Literal["healthy", "down"]


class DeploymentCards(BaseModel):
    """All deployments."""

    object: Literal["list"] = "list"
    data: list[DeploymentCard]


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


class HubCards(BaseModel):
    """All models."""

    success: Literal[True] = True
    message: str = ""
    data: list[HubCard]


def router(catalog: Catalog, *, authenticated: Any, alive: Callable[[Model], bool]) -> APIRouter:
    """The routes.

    Args:
        catalog: What to list.
        authenticated: The dependency that asks for a key.
        alive: Whether a model's deployment here can answer.
    """
    routes = APIRouter(tags=["models"])
    private = [authenticated]

    @routes.get("/v1/models", dependencies=private)
    async def list_models(tag: str | None = None, currency: str = "USD") -> ModelCards:
        """Every model, with its cheapest price and who provides it."""
        if currency.upper() != "USD":
            raise InvalidRequest(
                f"'currency' is {currency!r}: prices are in USD. Leave it out.", param="currency"
            )
        cards = map(_card, catalog.models.values())
        return ModelCards(data=[card for card in cards if tag is None or tag in card.tags])

    @routes.get("/v1/embeddings/models", dependencies=private)
    @routes.get("/api/v1/llm/embeddings/models", dependencies=private)
    async def list_deployments() -> DeploymentCards:
        """Every model at every provider, with its limits, vector space and residency."""
        return DeploymentCards(
            data=[_deployment_card(each, alive=alive(each.model)) for each in catalog.deployments()]
        )

    @routes.get("/v1/models/{id:path}", dependencies=private)
    async def retrieve_model(id: str) -> ModelCard:
        """One model, by any name a request may use."""
        model = find(id, catalog, param="model")[0].model
        return _card(catalog.models.get(model.id, model))

    @routes.get("/api/v1/models")
    async def list_hub_models(response: Response, type: str = "embedding") -> HubCards:
        """Every model of a type; needs no key and may be cached."""
        response.headers["cache-control"] = f"public, max-age={PUBLIC_CACHE_S}"
        models = catalog.models.values() if type == "embedding" else ()
        return HubCards(data=[_hub_card(model) for model in models])

    return routes


def _card(model: Model) -> ModelCard:
    created = datetime.combine(model.created, datetime.min.time(), UTC)
    return ModelCard(
        id=model.id,
        created=int(created.timestamp()),
        owned_by=model.owned_by,
        description=model.description,
        pricing=Pricing(input_token=_cheapest(model)),
        providers=sorted({each.provider for each in model.deployments}),
        context_size=model.max_item_tokens,
        tags=model.tags,
    )


def _deployment_card(served: Served, *, alive: bool) -> DeploymentCard:
    model, deployment = served.model, served.deployment
    return DeploymentCard(
        id=served.id,
        provider=deployment.provider,
        model=model.id,
        limits=EmbeddingLimits(
            max_batch_size=MAX_ITEMS,
            max_input_tokens=model.max_item_tokens,
            max_input_length=MAX_CHARACTERS,
        ),
        dimensions=model.dimensions,
        allowed_dimensions=model.trained_dimensions,
        space=str(served.space()),
        price_per_mtok_usd=_usd(deployment.price_per_mtok_usd),
        eu_native=deployment.eu_native,
        quantisation=deployment.quantisation,
        zero_data_retention=deployment.zero_data_retention,
        health="healthy" if alive else "down",
    )


def _hub_card(model: Model) -> HubCard:
    return HubCard(
        model_id=model.id,
        desc=model.description,
        context_length=model.max_item_tokens,
        pricing=HubPricing(input=_cheapest(model)),
    )


def _cheapest(model: Model) -> float | None:
    prices = (each.price_per_mtok_usd for each in model.deployments)
    return _usd(min((price for price in prices if price is not None), default=None))


def _usd(price: Decimal | None) -> float | None:
    return None if price is None else float(price)
