"""What each deployment may be asked for, as its canaries tell: of which space its vectors are.

Owns when a proof is old or void. Does no I/O: `pipeline.prober` asks the deployments.
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
from embedway.spaces.shared_space import SharedSpace, find_shared_spaces


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment may be asked for."""

    state: ProofState
    revision: str
    """Of the space its vectors are in; of one that drifted, of the space it left."""
    reason: str = ""
    """For people."""
    due: bool = False
    """Whether it should be probed again, in the background."""
    last_revision: str | None = None
    """Revision of the space that it was in when last probed, if only age voids that proof."""
    in_own_space: bool = False
    """Whether its vectors are known to be of its own space, though nothing was there to compare
    them with the model's."""

    @property
    def may_be_asked(self) -> bool:
        """Whether it may be asked for vectors of the space of `revision`."""
        return self.in_own_space or self.state not in {"unproven", "drifted"}


class ResponseSignature(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers of a proven deployment look."""

    width: int | None
    of_length_one: bool
    models: frozenset[str]


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    membership: Membership
    looks: ResponseSignature | None
    since_ms: int
    """No clock that was set back before it is believed."""
    until_ms: float


class SpaceMemberships:
    """What is known of the deployments; one for the process."""

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
        """Takes what is configured.

        Args:
            policy: What the operator says of a model, by its id.
            deployments: All there are, in order of preference.
            enabled: Whether deployments are probed; if not, each stays in a space of its own.
            interval_s: How long a proof is fresh.
            fingerprint: Of a deployment's address and of the model's name there.
            now_ms: The clock.
        """
        self.known = SpaceRegistry(policy=policy, deployments=deployments, enabled=enabled)
        self.fingerprint = fingerprint
        self.now_ms = now_ms
        self._enabled = enabled
        self.any_probed = any(map(self.is_probed, deployments))
        self._interval_ms = interval_s * 1000
        self.load()

    def retire(self, deployments: frozenset[str]) -> None:
        """Let none of the deployments of these ids define a space from now on."""
        self.known.retire(deployments)
        self._kept, self._shared = {}, {}

    def home(self, model_id: str) -> str:
        """The revision of the space that the model's bare id means."""
        return self.known.default_space(model_id)

    def membership(self, served: Deployment, input_type: InputType | None) -> Membership:
        """What `served` may be asked for with `input_type`, as far as is known now."""
        kept = self._kept.get((served.id, input_type))
        if kept is not None and kept.since_ms <= self.now_ms() < kept.until_ms:
            return kept.membership
        return self._renewed(served, input_type).membership

    def shared(
        self, served: Deployment, input_type: InputType | None, *, revision: str
    ) -> SharedSpace | None:
        """What is known of the model's claim to share another model's space; None without a claim.

        The claim is about the space that the model's id means. Vectors that differ from those may
        be near enough to another model's, but then one name would stand for vectors that differ.

        Args:
            served: Whose vectors.
            input_type: What they are for.
            revision: Revision of the space of the model that they are of.
        """
        model = served.model
        if not model.same_space_as or revision != self.home(model.id):
            return None
        if not self._enabled:
            reason = "canaries = false: nothing proves it"
            return SharedSpace(model=model.same_space_as, state="unproven", reason=reason)
        key = (served.id, input_type)
        if key not in self._shared:
            self._shared[key] = find_shared_spaces(self.known, model, revision, input_type)
        return self._shared[key]

    def claim(self, served: Deployment) -> SharedSpace | None:
        """What is known of the model's claim for all input types in use: the worst of them."""
        home = self.home(served.model.id)
        in_use: list[InputType | None] = [
            each for each in INPUT_TYPES if self.known.reference(served.model.id, home, each)
        ]
        if not in_use:
            return self.shared(served, None, revision=home)
        claims = [self.shared(served, each, revision=home) for each in in_use]
        worst = ("differs", "unproven", "proven")
        return min(
            (each for each in claims if each),
            key=lambda each: worst.index(each.state),
            default=None,
        )

    def space(
        self,
        served: Deployment,
        input_type: InputType | None,
        *,
        revision: str,
        width: int | None = None,
    ) -> SpaceId:
        """The name of the space of its vectors: another model's, if it is proven to share that.

        Args:
            served: Whose vectors.
            input_type: What they are for.
            revision: Revision of the space of the model that they are of.
            width: Their width, if other than the model's own.
        """
        common = self.shared(served, input_type, revision=revision)
        if common and common.standard and common.state == "proven":
            other = common.standard
            if width is None or other.model.can_shorten(width):
                width = width or served.model.dimensions
                return other.space(revision=common.revision, width=width, input_type=input_type)
        return served.space(revision=revision, width=width, input_type=input_type)

    def is_in(self, served: Deployment, input_type: InputType | None, revision: str) -> bool:
        """Whether its vectors still are of the space of this revision, its own or the home."""
        member = self.membership(served, input_type)
        if not member.in_own_space and (
            member.state == "unproven" and revision == self.home(served.model.id)
        ):
            return True  # its proof is old, and says nothing against it
        if member.state == "drifted":
            return False
        if revision == member.revision:
            return True
        return revision == self.known.native_space(served)  # which takes a search

    def expected_signature(
        self, served: Deployment, input_type: InputType | None
    ) -> ResponseSignature | None:
        """How its answers should look; None if any will do."""
        kept = self._kept.get((served.id, input_type)) or self._renewed(served, input_type)
        return kept.looks

    def is_probed(self, served: Deployment) -> bool:
        """Whether `served` is probed at all: not what runs here, nor what nobody declared."""
        return self._enabled and served.model.declared and served.provider != LOCAL

    def drifted(self) -> Sequence[str]:
        """The ids of the deployments that drifted."""
        return list(self.known.drifted) if self._enabled else []

    def load(self, references: Iterable[Reference] = (), proofs: Iterable[Proof] = ()) -> None:
        """Believes what was stored, or could not be."""
        self.known.load(references, proofs)
        self._kept: dict[tuple[str, InputType | None], _Kept] = {}
        self._shared: dict[tuple[str, InputType | None], SharedSpace | None] = {}

    def _renewed(self, served: Deployment, input_type: InputType | None) -> _Kept:
        if self.is_probed(served):
            membership, until_ms = self._membership(served, input_type)
            looks = self._looks(served, input_type, membership.revision)
        else:
            membership, looks, until_ms = self._unprobed(served), None, math.inf
        kept = _Kept(membership=membership, looks=looks, since_ms=self.now_ms(), until_ms=until_ms)
        if served.model.declared:  # of others there is no end
            self._kept[served.id, input_type] = kept
        return kept

    def _looks(
        self, served: Deployment, input_type: InputType | None, revision: str
    ) -> ResponseSignature:
        reference = self.known.reference(served.model.id, revision, input_type)
        proof = self.known.proof(served.id, input_type)
        return ResponseSignature(
            width=reference and reference.vectors.shape[1],
            of_length_one=reference is not None and canaries.are_unit_length(reference.vectors),
            models=proof.models if proof else frozenset(),
        )

    def _unprobed(self, served: Deployment) -> Membership:
        own = self.known.native_space(served)
        if self._enabled or own == self.home(served.model.id) or not served.model.declared:
            return Membership(state="reference", revision=own)
        reason = "canaries = false: nothing proves that its vectors are of the model's space"
        return Membership(state="differs", revision=own, reason=reason)

    def _membership(
        self, served: Deployment, input_type: InputType | None
    ) -> tuple[Membership, float]:
        """What it may be asked for, and until when that holds."""
        known, model = self.known, served.model.id
        home, own = known.default_space(model), known.native_space(served)
        if left := known.drifted.get(served.id):
            return Membership(state="drifted", revision=left.revision, reason=left.reason), math.inf
        if own == home and known.reference(model, home, input_type) is None:
            return self._first(served, input_type, home)
        proof = known.proof(served.id, input_type)
        void = self._void(served, proof, home, own)
        if proof is None or void:
            return Membership(state="unproven", revision=own, reason=void), math.inf
        return self._aged(served, proof)

    def _first(
        self, served: Deployment, input_type: InputType | None, home: str
    ) -> tuple[Membership, float]:
        """What the home's maker may be asked for before there is a reference."""
        reason, until_ms = "its vectors become the reference", math.inf
        for anchor in self.known.anchor_input_types(served.model.id, home, input_type):
            anchored, until_ms = self._membership(served, anchor)
            if anchored.state != "reference":
                return Membership(state="unproven", revision=home, reason=anchored.reason), until_ms
        return Membership(state="reference", revision=home, reason=reason, due=True), until_ms

    def _aged(self, served: Deployment, proof: Proof) -> tuple[Membership, float]:
        """What a proof that is not void says at its age."""
        age_ms = abs(self.now_ms() - proof.at_ms)  # a clock that was set back makes nothing fresh
        if age_ms >= 2 * self._interval_ms:
            reason = f"{proof.state} when last probed, {age_ms / 1000:.0f} s ago"
            aged = Membership(
                state="unproven",
                revision=self.known.native_space(served),
                reason=reason,
                due=True,
                last_revision=proof.revision,
            )
            return aged, math.inf
        fresh = age_ms < self._interval_ms
        membership = Membership(
            state=proof.state,
            revision=proof.revision,
            reason=proof.reason,
            due=not fresh or self._waits(served, proof),
            in_own_space=proof.state == "unproven",
        )
        return membership, proof.at_ms + self._interval_ms * (1 if fresh else 2)

    def _waits(self, served: Deployment, proof: Proof) -> bool:
        """Whether it could not be compared with the home space, and now perhaps can be."""
        if proof.cosine is not None:
            return False
        reference = self.known.reference(served.model.id, proof.home, proof.input_type)
        if reference is None:
            return self.known.reference_deployment(served.model.id) is not None
        return reference.made_ms > proof.at_ms

    def _void(self, served: Deployment, proof: Proof | None, home: str, own: str) -> str:
        """Why `proof` says nothing now; empty if it does."""
        if proof is None:
            return self._why_not_yet(served.model.id, home)
        if proof.home != home or proof.revision not in {home, own}:
            return f"not probed since the model's space is {home}"
        if proof.fingerprint != self.fingerprint(served):
            return "not probed since its address or its name for the model changed"
        least = self.known.policy(served.model.id).min_cosine
        if proof.state == "proven" and (proof.cosine or 0) < least:
            return f"not probed since min_cosine is {least:g}"
        return ""

    def _why_not_yet(self, model_id: str, home: str) -> str:
        known = self.known
        if known.reference_deployment(model_id) or any(
            known.reference(model_id, home, each) for each in INPUT_TYPES
        ):
            return "not probed yet"
        return f"not probed yet, and no reference vectors of {home} are to be had"
