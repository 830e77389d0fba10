"""Holds all references and proofs, and derives the names of spaces from them.

Knows nothing of time: `spaces.membership` decides how old a proof may be.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from embedway.catalog import policy as policies
from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.core.request import InputType
from embedway.spaces import canaries
from embedway.spaces.canaries import CANARIES
from embedway.spaces.proof import Proof, Reference, ReferenceKey

INPUT_TYPES: tuple[InputType | None, ...] = (None, *get_args(InputType))
_CANARIES = canaries.digest_texts(CANARIES)
GENERATION = "~"
"""Separates a space's name from its generation number. Provider names never contain it."""


class SpaceRegistry:
    """The references and proofs of declared models."""

    def __init__(
        self,
        *,
        policy: Callable[[str], ModelPolicy],
        deployments: Sequence[Deployment],
        enabled: bool,
    ) -> None:
        self.policy = policy
        self._enabled = enabled
        self._deployments: dict[str, list[Deployment]] = {}
        for each in deployments:
            self._deployments.setdefault(each.model.id, []).append(each)
        self._by_id = {each.id: each for each in deployments}
        # By model id, because there may be hundreds.
        self._references: dict[str, dict[tuple[str, InputType | None], Reference]] = {}
        self._proofs: dict[str, dict[tuple[str, InputType | None], Proof]] = {}
        self._homes: dict[str, str] = {}
        self.drift_proofs: dict[str, Proof] = {}
        """Proofs of drift by deployment id."""
        self.retired_ids: frozenset[str] = frozenset()
        """Ids of the deployments that their providers have retired."""

    def load(self, references: Iterable[Reference], proofs: Iterable[Proof]) -> None:
        """Add these references and proofs, or replace those with the same keys."""
        for reference in references:
            of_model = self._references.setdefault(reference.model, {})
            of_model[reference.revision, reference.input_type] = reference
            self._homes.pop(reference.model, None)
        for proof in proofs:
            model_id = _model_of(proof.deployment)
            self._proofs.setdefault(model_id, {})[proof.deployment, proof.input_type] = proof
            self._homes.pop(model_id, None)
        self.drift_proofs = {
            proof.deployment: proof for proof in self.all_proofs() if proof.state == "drifted"
        }

    def retire(self, deployments: frozenset[str]) -> None:
        """Replace the ids of retired deployments."""
        self.retired_ids = deployments
        self._homes.clear()

    def deployment(self, id: str) -> Deployment | None:
        """Return the deployment with this id, if it is enabled."""
        return self._by_id.get(id)

    def proof(self, deployment: str, input_type: InputType | None) -> Proof | None:
        """Return the result of the deployment's last probe, or None."""
        return self._proofs.get(_model_of(deployment), {}).get((deployment, input_type))

    def proofs(self, deployment: str) -> Sequence[Proof]:
        """Return the results of the deployment's last probes, one for each input type in use."""
        found = (self.proof(deployment, each) for each in INPUT_TYPES)
        return [each for each in found if each]

    def canary_texts(self, model_id: str) -> tuple[str, ...]:
        """Return a model's canaries: the built-in ones, then those that the operator supplied."""
        supplied = self.policy(model_id).canaries
        return (*CANARIES, *supplied.texts) if supplied else CANARIES

    def canary_slice(self, model_id: str, revision: str, input_type: InputType | None) -> slice:
        """Return which of a model's canaries the space's reference covers."""
        supplied = self.policy(model_id).canaries
        if supplied and revision == supplied.digest and input_type is None:
            return slice(len(CANARIES), None)
        return slice(len(CANARIES))

    def reference(
        self, model_id: str, revision: str, input_type: InputType | None
    ) -> Reference | None:
        """Return the reference of a space, if it has one for the canaries in use."""
        supplied = self.policy(model_id).canaries
        if supplied and revision == supplied.digest and input_type is None:
            return Reference(
                model=model_id, revision=revision, input_type=None, made_by="", made_ms=0,
                texts=canaries.digest_texts(supplied.texts), vectors=supplied.vectors,
            )  # fmt: skip
        found = self._references.get(model_id, {}).get((revision, input_type))
        return found if found and found.texts == _CANARIES else None

    def references(self) -> set[ReferenceKey]:
        """Return the keys of all stored references."""
        return {each.key for each in self.all_references()}

    def all_references(self) -> Sequence[Reference]:
        """Return all stored references."""
        return [each for of_model in self._references.values() for each in of_model.values()]

    def all_proofs(self) -> Sequence[Proof]:
        """Return the results of all deployments' last probes, also of those not enabled now."""
        return [each for of_model in self._proofs.values() for each in of_model.values()]

    def anchor_input_types(
        self, model_id: str, revision: str, input_type: InputType | None
    ) -> Sequence[InputType | None]:
        """Return another input type that has a reference in that space, if there is one.

        A deployment must match it before its vectors become a reference of the space.
        """
        known: list[InputType | None] = [
            each
            for each in INPUT_TYPES
            if each != input_type and self.reference(model_id, revision, each)
        ]
        return known[:1]

    def is_supplied(self, model_id: str) -> bool:
        """Return whether the operator supplied the vectors that define the home space."""
        supplied = self.policy(model_id).canaries
        return supplied is not None and self.default_space(model_id) == supplied.digest

    def default_space(self, model_id: str) -> str:
        """Return the revision of the space that the model's bare id means; empty if not served."""
        home = self._homes.get(model_id)
        if home is None and model_id in self._deployments:
            home = self._homes[model_id] = self._home(model_id)
        return home or ""

    def reference_deployment(self, model_id: str) -> Deployment | None:
        """Return the deployment whose vectors define the home space, if it is enabled."""
        home = self.default_space(model_id)
        deployments = self._deployments.get(model_id, ())
        return next((each for each in deployments if self.native_space(each) == home), None)

    def default_deployment(self, model_id: str) -> Deployment | None:
        """Return the deployment that the model's bare id means; None if not served."""
        if deployments := self._deployments.get(model_id):
            return self.reference_deployment(model_id) or policies.default_deployment(
                deployments, self.policy(model_id)
            )
        return None

    def native_space(self, deployment: Deployment) -> str:
        """Return the latest revision of the deployment's own space."""
        if not deployment.model.declared:
            return deployment.revision
        return self._last(deployment.model.id, deployment.revision)

    def next_revision(self, deployment: Deployment) -> str:
        """Return a new revision for the deployment's own space."""
        base, _, number = self.native_space(deployment).partition(GENERATION)
        return f"{base}{GENERATION}{int(number or 1) + 1}"

    def _home(self, model_id: str) -> str:
        deployments, policy = self._deployments[model_id], self.policy(model_id)
        # A digest pins the weights of a local model, so it cannot drift.
        local = next((each for each in deployments if each.provider == LOCAL), None)
        if local is not None:
            return local.revision
        first = policies.default_deployment(deployments, policy)
        if policy.reference or not self._enabled:
            return self.native_space(first)
        if policy.canaries:
            return policy.canaries.digest
        if stored := self._stored_home(model_id):
            return stored
        # A retired deployment without a stored reference will never give one.
        alike = policies.same_space(deployments, policy)
        left = [each for each in alike if each.id not in self.retired_ids]
        return self.native_space(policies.default_deployment(left, policy) if left else first)

    def _stored_home(self, model_id: str) -> str | None:
        """Return the last home space that a deployment's vectors defined."""
        references = self._references.get(model_id, {}).values()
        homes = {each.revision for each in references if _is_of_maker(each)}
        proofs = [each for each in self._proofs.get(model_id, {}).values() if each.home in homes]
        last = max(proofs, key=lambda proof: proof.at_ms, default=None)
        return last and self._last(model_id, last.home)

    def _last(self, model_id: str, revision: str) -> str:
        """Return the latest generation of a space."""
        base = revision.partition(GENERATION)[0]
        last = 1
        for each, _ in self._references.get(model_id, ()):
            name, _, number = each.partition(GENERATION)
            if name == base:
                last = max(last, int(number or 1))
        return base if last == 1 else f"{base}{GENERATION}{last}"


def _is_of_maker(reference: Reference) -> bool:
    """Return whether the space is named after its deployment, not after supplied vectors."""
    provider = reference.made_by.partition(":")[0]
    return provider in {LOCAL, reference.revision.partition(GENERATION)[0]}


def _model_of(deployment: str) -> str:
    return deployment.partition(":")[2]  # provider names contain no colon
