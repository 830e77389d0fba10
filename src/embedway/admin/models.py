"""The models endpoints: where the cards of models and deployments are, and for whom."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from embedway.core.errors import InvalidRequest
from embedway.core.keys import Caller
from embedway.routing.model_listing import DeploymentCard, HubCard, ModelCard, ModelListing

PUBLIC_CACHE_S = 300

HubType = Literal["llm", "image_generation", "video", "tts", "stt", "embedding", "rerank"]
"""As AIHubMix tells models apart."""


class ModelCards(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class DeploymentCards(BaseModel):
    """All deployments."""

    object: Literal["list"] = "list"
    data: list[DeploymentCard]


class HubCards(BaseModel):
    """All models."""

    success: Literal[True] = True
    message: str = ""
    data: list[HubCard]


def router(cards: ModelListing, *, caller: Caller) -> APIRouter:
    """The routes; `caller` is the dependency that asks for a key and says whose it is."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models")
    async def list_models(
        tag: str | None = None, currency: str = "USD", caller: Caller = caller
    ) -> ModelCards:
        """Every model the key may use, and `auto` and the aliases, with the cheapest price."""
        if currency.upper() != "USD":
            raise InvalidRequest(
                f"'currency' is {currency!r}: prices are in USD. Leave it out.", param="currency"
            )
        listed = cards.list_models(caller)
        return ModelCards(data=[card for card in listed if tag is None or tag in card.tags])

    @routes.get("/v1/embeddings/models")
    @routes.get("/api/v1/llm/embeddings/models")
    async def list_deployments(
        model: str | None = None, caller: Caller = caller
    ) -> DeploymentCards:
        """Every model at every provider that the key may use; with `model` those of one name.

        Each with its limits, its price, where it runs, whether it may be asked now, and the space
        that its vectors are in, as far as that is proven.
        """
        return DeploymentCards(data=cards.list_deployments(caller, name=model))

    @routes.get("/v1/models/{id:path}")
    async def retrieve_model(id: str, caller: Caller = caller) -> ModelCard:
        """One model, by any name a request may use."""
        return cards.get_model(id, caller)

    @routes.get("/api/v1/models")
    async def list_hub_models(response: Response, type: HubType = "embedding") -> HubCards:
        """Every model of a type; needs no key and may be cached."""
        response.headers["cache-control"] = f"public, max-age={PUBLIC_CACHE_S}"
        return HubCards(data=cards.list_hub_models() if type == "embedding" else [])

    return routes
