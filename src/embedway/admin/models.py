"""Serves the lists of models and deployments."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Response

from embedway.core.errors import InvalidRequest
from embedway.core.keys import Caller
from embedway.core.response_model import ResponseModel
from embedway.routing.model_listing import DeploymentCard, HubCard, ModelCard, ModelListing

PUBLIC_CACHE_S = 300

HubType = Literal["llm", "image_generation", "video", "tts", "stt", "embedding", "rerank"]
"""AIHubMix's types of models."""


class ModelCards(ResponseModel, title="ModelList"):
    """A list of models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class DeploymentCards(ResponseModel, title="DeploymentList"):
    """A list of deployments."""

    object: Literal["list"] = "list"
    data: list[DeploymentCard]


class HubCards(ResponseModel, title="HubModelList"):
    """A list of models, in AIHubMix's shape."""

    success: Literal[True] = True
    message: str = ""
    data: list[HubCard]


def router(listing: Callable[[], ModelListing], *, caller: Caller) -> APIRouter:
    """Build the routes.

    Args:
        listing: Returns the listing in force.
        caller: The dependency that authenticates the caller.
    """
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models")
    async def list_models(
        tag: str | None = None, currency: str = "USD", caller: Caller = caller
    ) -> ModelCards:
        """List the models the key may use, `auto` and the aliases, each at its cheapest price."""
        if currency.upper() != "USD":
            raise InvalidRequest(
                f"'currency' is {currency!r}: prices are in USD. Leave it out.", param="currency"
            )
        listed = listing().list_models(caller)
        return ModelCards(data=[card for card in listed if tag is None or tag in card.tags])

    @routes.get("/v1/embeddings/models")
    @routes.get("/api/v1/llm/embeddings/models", operation_id="list_deployments_mka1")
    async def list_deployments(
        model: str | None = None, caller: Caller = caller
    ) -> DeploymentCards:
        """List the deployments that the key may use; with `model`, those with that name.

        Each has its limits, price, location and health, and the space of its vectors, as far as
        proven.
        """
        return DeploymentCards(data=listing().list_deployments(caller, name=model))

    @routes.get("/v1/models/{id:path}")
    async def retrieve_model(id: str, caller: Caller = caller) -> ModelCard:
        """Return one model, by any name that a request may use."""
        return listing().get_model(id, caller)

    @routes.get("/api/v1/models")
    async def list_hub_models(response: Response, type: HubType = "embedding") -> HubCards:
        """List all models of a type. Needs no key; responses may be cached."""
        response.headers["cache-control"] = f"public, max-age={PUBLIC_CACHE_S}"
        return HubCards(data=listing().list_hub_models() if type == "embedding" else [])

    return routes
