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
    """A model as one provider serves it. Two that share the model's id may differ in its facts."""

    model: Model
    spec: DeploymentSpec

    @property
    def provider(self) -> str:
        """Whose deployment it is."""
        return self.spec.provider

    @cached_property
    def id(self) -> str:
        """Of the deployment: `provider:model`."""
        return f"{self.spec.provider}:{self.model.id}"

    @cached_property
    def upstream_name(self) -> str:
        """What the provider calls the model."""
        return self.spec.name or self.model.id

    @cached_property
    def engine_name(self) -> str:
        """The name of the engine: the deployment's provider, or its id if the model runs here."""
        return self.id if self.provider == LOCAL else self.provider

    def cost(self, tokens: int) -> NanoUsd:
        """The price of this many tokens now; 0 where no price is known."""
        price = self.spec.price_per_mtok_usd
        return money.cost(tokens, price_per_mtok=price) if price else 0

    @property
    def clients_name(self) -> str:
        """The name as clients may read it: without the operator's account or project."""
        return clients_name(self.upstream_name)

    @property
    def label(self) -> str:
        """Of the deployment in metrics: names that clients make up are not told apart."""
        return self.id if self.model.declared else f"{self.provider}:*"

    def prompt(self, input_type: InputType | None) -> str:
        """What this gateway puts before each text that is for `input_type`."""
        if input_type is None or not self.spec.apply_prompts:
            return ""
        return self.model.prompts.get(input_type, "")

    def effective_input_type(
        self, input_type: InputType | None, abilities: EngineAbilities
    ) -> InputType | None:
        """The input type, if the vectors of this deployment depend on it; else None.

        Args:
            input_type: What the request says that its vectors are for.
            abilities: What the engine behind this deployment can be asked for.
        """
        if input_type is None:
            return None
        if self.spec.apply_prompts:
            known = frozenset(self.model.prompts)
            if not known.isdisjoint(_RETRIEVAL):  # a model may want a prompt for queries alone
                known |= _RETRIEVAL
        elif self.spec.input_types is not None:
            known = self.spec.input_types
        else:
            known = abilities.input_types
        return input_type if input_type in known else None

    def forwarded(self, input_type: InputType | None) -> InputType | None:
        """The input type that its provider is told: none, where a prompt in the text says it."""
        return None if self.spec.apply_prompts else input_type

    @property
    def revision(self) -> str:
        """Of the space of its vectors, as long as nothing proves that they are of another's too."""
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
        """The space of its vectors.

        Args:
            revision: If it is proven to be in another space of the model than its own.
            width: Of the vectors, if other than the model's own.
            input_type: As asked for, if it makes a difference there. A model that tells queries
                from documents was trained to compare the one with the other: both are one space,
                anything else is another.
            extra: The client's own parameters for the provider, which may change the vectors.
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
