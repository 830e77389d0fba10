"""Describes a deployment: a model at a provider, and what it costs there."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from embedway.catalog.model import LOCAL, DeploymentSpec, Model, digest
from embedway.core import money
from embedway.core.batch import EngineAbilities, clients_name
from embedway.core.money import NanoUsd
from embedway.core.request import InputType
from embedway.core.space_id import SpaceId

_RETRIEVAL: frozenset[InputType] = frozenset({"query", "document"})
"""Input types whose vectors are compared with one another."""


class Deployment(msgspec.Struct, frozen=True, dict=True):
    """A model at one provider. Deployments of the same model id may declare different facts."""

    model: Model
    spec: DeploymentSpec

    @property
    def provider(self) -> str:
        """The name of the provider."""
        return self.spec.provider

    @cached_property
    def id(self) -> str:
        """The deployment's name, `provider:model`."""
        return f"{self.spec.provider}:{self.model.id}"

    @cached_property
    def upstream_name(self) -> str:
        """The provider's name for the model."""
        return self.spec.name or self.model.id

    @cached_property
    def engine_name(self) -> str:
        """The name of the engine: the provider's, or the deployment's id if the model is local."""
        return self.id if self.provider == LOCAL else self.provider

    def cost(self, tokens: int, *, in_batch: bool = False) -> NanoUsd:
        """Return the price of `tokens`, perhaps in a batch; 0 if no price is known."""
        price = self.spec.price_per_mtok_usd
        if not price:
            return 0
        if in_batch:
            price *= self.spec.batch_price_factor
        return money.cost(tokens, price_per_mtok=price)

    @property
    def clients_name(self) -> str:
        """The provider's name for the model, without the operator's account or project."""
        return clients_name(self.upstream_name)

    @property
    def label(self) -> str:
        """The name in metrics. Models that clients name without a declaration share one."""
        return self.id if self.model.declared else f"{self.provider}:*"

    def prompt(self, input_type: InputType | None) -> str:
        """Return the prompt that this gateway puts before each text of `input_type`."""
        if input_type is None or not self.spec.apply_prompts:
            return ""
        return self.model.prompts.get(input_type, "")

    def effective_input_type(
        self, input_type: InputType | None, abilities: EngineAbilities
    ) -> InputType | None:
        """Return the input type if this deployment's vectors depend on it, else None.

        Args:
            input_type: The input type of the request.
            abilities: The abilities of this deployment's engine.
        """
        if input_type is None:
            return None
        if self.spec.apply_prompts:
            known = frozenset(self.model.prompts)
            if not known.isdisjoint(_RETRIEVAL):  # a model may have a prompt for queries alone
                known |= _RETRIEVAL
        elif self.spec.input_types is not None:
            known = self.spec.input_types
        else:
            known = abilities.input_types
        return input_type if input_type in known else None

    def forwarded_input_type(self, input_type: InputType | None) -> InputType | None:
        """Return the input type to send to the provider; None if a prompt replaces it."""
        return None if self.spec.apply_prompts else input_type

    @property
    def revision(self) -> str:
        """The revision of its own space, until a proof places it in another one."""
        here = self.provider == LOCAL
        return (here and self.model.digest) or self.provider

    def space(
        self,
        *,
        revision: str | None = None,
        width: int | None = None,
        input_type: InputType | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> SpaceId:
        """Return the space of its vectors.

        Args:
            revision: The revision of the space it is proven to be in; None for its own.
            width: The width of the vectors; None for the model's own.
            input_type: The effective input type. Queries and documents share a space, because
                models that tell them apart were trained to compare them. Each other type has its
                own space.
            extra: The client's parameters for the provider, which may change the vectors.
        """
        model = self.model
        prompts = {None: "none", "query": "retrieval", "document": "retrieval"}
        prompt = prompts.get(input_type, input_type or "none")
        if extra:
            prompt += f"-{digest(msgspec.json.encode(extra, order='sorted'))}"
        return SpaceId(
            model=model.id,
            revision=revision or self.revision,
            pooling=model.pooling,
            normalised=model.normalised,
            prompt=prompt,
            dimensions=width or model.dimensions or 0,
        )
