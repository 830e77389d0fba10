"""Decides from proofs which space each deployment's vectors are in, and when a proof expires.

Does no I/O: `spaces.prober` sends the probes.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.core.request import InputType
from embedway.core.space_id import SpaceId
from embedway.spaces import canaries
from embedway.spaces.proof import Proof, ProofState, Reference
from embedway.spaces.registry import INPUT_TYPES, SpaceRegistry
from embedway.spaces.shared_space import SharedSpace, find_shared_space


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The space that a deployment is in, and how that is known."""

    state: ProofState
    revision: str
    """Revision of the space that its vectors are in; after drift, of the space it left."""
    reason: str = ""
    """Why it is in this state, for people."""
    is_due: bool = False
    """Whether to probe it again in the background."""
    last_revision: str | None = None
    """Revision of its space when last probed, if that proof is merely too old."""
    is_in_own_space: bool = False
    """Whether its vectors are known to be of its own space, though they could not be compared with
    the model's home space."""

    @property
    def is_usable(self) -> bool:
        """Whether it may serve requests for the space of `revision`."""
        return self.is_in_own_space or self.state not in {"unproven", "drifted"}


class ResponseSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What the responses of a deployment should look like, as far as is proven."""

    has_reference: bool
    """Whether its space has reference vectors for the input type."""
    width: int | None
    has_unit_length: bool
    model_names: frozenset[str]


class _CacheEntry(msgspec.Struct, frozen=True, kw_only=True):
    membership: Membership
    signature: ResponseSignature | None
    since_ms: int
    """A clock before this time was set back, and the entry is computed anew."""
    until_ms: float


class SpaceMemberships:
    """Knows which space each deployment is in; one for the process."""

    def __init__(
        self,
        *,
        policy: Callable[[str], ModelPolicy],
        deployments: Sequence[Deployment],
        enabled: bool,
        interval_s: float,
        fingerprint: Callable[[Deployment], str],
        now_ms: Callable[[], int],
    ) -> None:
        """Start with no references and no proofs.

        Args:
            policy: Returns the operator's policy for a model id.
            deployments: All deployments, in order of preference.
            enabled: Whether to probe deployments. If not, each is in a space of its own.
            interval_s: How long a proof is fresh, in seconds.
            fingerprint: Returns a digest of a deployment's address and its name for the model.
            now_ms: Returns the time in ms since the epoch.
        """
        self.registry = SpaceRegistry(policy=policy, deployments=deployments, enabled=enabled)
        self.fingerprint = fingerprint
        self.now_ms = now_ms
        self._enabled = enabled
        self.is_any_probed = any(map(self.is_probed, deployments))
        self._interval_ms = interval_s * 1000
        self.load()

    def retire(self, deployments: frozenset[str]) -> None:
        """Stop the deployments with these ids from defining a home space."""
        self.registry.retire(deployments)
        self._entries, self._shared = {}, {}

    def home(self, model_id: str) -> str:
        """Return the revision of the space that the model's bare id means."""
        return self.registry.default_space(model_id)

    def membership(self, deployment: Deployment, input_type: InputType | None) -> Membership:
        """Return which space `deployment` is in with `input_type`, as far as is known now."""
        entry = self._entries.get((deployment.id, input_type))
        if entry is not None and entry.since_ms <= self.now_ms() < entry.until_ms:
            return entry.membership
        return self._compute(deployment, input_type).membership

    def shared_space(
        self, deployment: Deployment, input_type: InputType | None, *, revision: str
    ) -> SharedSpace | None:
        """Return what is known of the model's claim to share a space; None without a claim.

        The claim covers the model's home space only. Another revision might match the other model
        too, but then one name would stand for different vectors.

        Args:
            deployment: The deployment that gives the vectors.
            input_type: What the vectors are for.
            revision: Revision of the model's space that they are in.
        """
        model = deployment.model
        if not model.same_space_as or revision != self.home(model.id):
            return None
        if not self._enabled:
            reason = "canaries = false: nothing proves it"
            return SharedSpace(model=model.same_space_as, state="unproven", reason=reason)
        key = (deployment.id, input_type)
        if key not in self._shared:
            self._shared[key] = find_shared_space(self.registry, model, revision, input_type)
        return self._shared[key]

    def shared_space_claim(self, deployment: Deployment) -> SharedSpace | None:
        """Return the least certain state of the model's claim among the input types in use."""
        home = self.home(deployment.model.id)
        in_use: list[InputType | None] = [
            each for each in INPUT_TYPES if self.registry.reference(deployment.model.id, home, each)
        ]
        if not in_use:
            return self.shared_space(deployment, None, revision=home)
        claims = [self.shared_space(deployment, each, revision=home) for each in in_use]
        worst = ("differs", "unproven", "proven")
        return min(
            (each for each in claims if each),
            key=lambda each: worst.index(each.state),
            default=None,
        )

    def space(
        self,
        deployment: Deployment,
        input_type: InputType | None,
        *,
        revision: str,
        width: int | None = None,
    ) -> SpaceId:
        """Name the space of a deployment's vectors; the other model's space if it shares that.

        Args:
            deployment: The deployment that gives the vectors.
            input_type: What the vectors are for.
            revision: Revision of the model's space that they are in.
            width: Width of the vectors, if other than the model's default.
        """
        claim = self.shared_space(deployment, input_type, revision=revision)
        if claim and claim.default_deployment and claim.state == "proven":
            other = claim.default_deployment
            if width is None or other.model.can_shorten(width):
                width = width or deployment.model.dimensions
                return other.space(revision=claim.revision, width=width, input_type=input_type)
        return deployment.space(revision=revision, width=width, input_type=input_type)

    def is_in(self, deployment: Deployment, input_type: InputType | None, revision: str) -> bool:
        """Return whether its vectors are still in the space of this revision, native or home."""
        member = self.membership(deployment, input_type)
        if not member.is_in_own_space and (
            member.state == "unproven" and revision == self.home(deployment.model.id)
        ):
            return True  # an old proof says nothing against it
        if member.state == "drifted":
            return False
        if revision == member.revision:
            return True
        return revision == self.registry.native_space(deployment)  # last, because it takes a search

    def expected_signature(
        self, deployment: Deployment, input_type: InputType | None
    ) -> ResponseSignature | None:
        """Return what its responses should look like; None if that is not checked."""
        entry = self._entries.get((deployment.id, input_type)) or self._compute(
            deployment, input_type
        )
        return entry.signature

    def is_probed(self, deployment: Deployment) -> bool:
        """Return whether `deployment` is probed; local and undeclared models are not."""
        return self._enabled and deployment.model.declared and deployment.provider != LOCAL

    def drifted_ids(self) -> Sequence[str]:
        """List the ids of the deployments that drifted."""
        return list(self.registry.drift_proofs) if self._enabled else []

    def known(self) -> tuple[Sequence[Reference], Sequence[Proof]]:
        """Return all references and proofs, for `load`."""
        return self.registry.all_references(), self.registry.all_proofs()

    def load(self, references: Iterable[Reference] = (), proofs: Iterable[Proof] = ()) -> None:
        """Add these references and proofs to what is known."""
        self.registry.load(references, proofs)
        self._entries: dict[tuple[str, InputType | None], _CacheEntry] = {}
        self._shared: dict[tuple[str, InputType | None], SharedSpace | None] = {}

    def _compute(self, deployment: Deployment, input_type: InputType | None) -> _CacheEntry:
        if self.is_probed(deployment):
            membership, until_ms = self._membership(deployment, input_type)
            signature = self._signature(deployment, input_type, membership.revision)
        else:
            membership, signature, until_ms = self._unprobed(deployment), None, math.inf
        entry = _CacheEntry(
            membership=membership, signature=signature, since_ms=self.now_ms(), until_ms=until_ms
        )
        if deployment.model.declared:  # clients can make up any number of others
            self._entries[deployment.id, input_type] = entry
        return entry

    def _signature(
        self, deployment: Deployment, input_type: InputType | None, revision: str
    ) -> ResponseSignature:
        registry, model = self.registry, deployment.model.id
        reference = registry.reference(model, revision, input_type)
        has_reference = reference is not None
        anchors = registry.anchor_input_types(model, revision, input_type)
        if not has_reference and anchors:  # the same model answers with another input type
            input_type = anchors[0]
            reference = registry.reference(model, revision, input_type)
        proof = registry.proof(deployment.id, input_type)
        return ResponseSignature(
            has_reference=has_reference,
            width=reference and reference.vectors.shape[1],
            has_unit_length=reference is not None and canaries.are_unit_length(reference.vectors),
            model_names=proof.models if proof else frozenset(),
        )

    def _unprobed(self, deployment: Deployment) -> Membership:
        own = self.registry.native_space(deployment)
        if self._enabled or own == self.home(deployment.model.id) or not deployment.model.declared:
            return Membership(state="reference", revision=own)
        reason = "canaries = false: nothing proves that its vectors are of the model's space"
        return Membership(state="differs", revision=own, reason=reason)

    def _membership(
        self, deployment: Deployment, input_type: InputType | None
    ) -> tuple[Membership, float]:
        """Return its membership, and until when that holds in ms since the epoch."""
        registry, model = self.registry, deployment.model.id
        home, own = registry.default_space(model), registry.native_space(deployment)
        if drift := registry.drift_proofs.get(deployment.id):
            drifted = Membership(state="drifted", revision=drift.revision, reason=drift.reason)
            return drifted, math.inf
        if own == home and registry.reference(model, home, input_type) is None:
            return self._judge_without_reference(deployment, input_type, home)
        proof = registry.proof(deployment.id, input_type)
        void = self._why_void(deployment, proof, home, own)
        if proof is None or void:
            return Membership(state="unproven", revision=own, reason=void), math.inf
        return self._judge_by_age(deployment, proof)

    def _judge_without_reference(
        self, deployment: Deployment, input_type: InputType | None, home: str
    ) -> tuple[Membership, float]:
        """Judge the deployment that defines the home space, before it has a reference."""
        reason, until_ms = "its vectors become the reference", math.inf
        for anchor in self.registry.anchor_input_types(deployment.model.id, home, input_type):
            anchored, until_ms = self._membership(deployment, anchor)
            if anchored.state != "reference":
                return Membership(state="unproven", revision=home, reason=anchored.reason), until_ms
        return Membership(state="reference", revision=home, reason=reason, is_due=True), until_ms

    def _judge_by_age(self, deployment: Deployment, proof: Proof) -> tuple[Membership, float]:
        """Judge a valid proof by its age."""
        age_ms = abs(self.now_ms() - proof.at_ms)  # a clock set back must not make a proof fresh
        if age_ms >= 2 * self._interval_ms:
            reason = f"{proof.state} when last probed, {age_ms / 1000:.0f} s ago"
            aged = Membership(
                state="unproven",
                revision=self.registry.native_space(deployment),
                reason=reason,
                is_due=True,
                last_revision=proof.revision,
            )
            return aged, math.inf
        fresh = age_ms < self._interval_ms
        membership = Membership(
            state=proof.state,
            revision=proof.revision,
            reason=proof.reason,
            is_due=not fresh or self._can_compare_now(deployment, proof),
            is_in_own_space=proof.state == "unproven",
        )
        return membership, proof.at_ms + self._interval_ms * (1 if fresh else 2)

    def _can_compare_now(self, deployment: Deployment, proof: Proof) -> bool:
        """Return whether it could not be compared with the home space but perhaps can be now."""
        if proof.cosine is not None:
            return False
        reference = self.registry.reference(deployment.model.id, proof.home, proof.input_type)
        if reference is None:
            return self.registry.reference_deployment(deployment.model.id) is not None
        return reference.made_ms > proof.at_ms

    def _why_void(self, deployment: Deployment, proof: Proof | None, home: str, own: str) -> str:
        """Return why `proof` is void; empty if it is valid."""
        if proof is None:
            return self._why_not_yet(deployment.model.id, home)
        if proof.home != home or proof.revision not in {home, own}:
            return f"not probed since the model's space is {home}"
        if proof.fingerprint != self.fingerprint(deployment):
            return "not probed since its address or its name for the model changed"
        min_cosine = self.registry.policy(deployment.model.id).min_cosine
        if proof.state == "proven" and (proof.cosine or 0) < min_cosine:
            return f"not probed since min_cosine is {min_cosine:g}"
        return ""

    def _why_not_yet(self, model_id: str, home: str) -> str:
        registry = self.registry
        if registry.reference_deployment(model_id) or any(
            registry.reference(model_id, home, each) for each in INPUT_TYPES
        ):
            return "not probed yet"
        return f"not probed yet, and there are no reference vectors of {home}"
