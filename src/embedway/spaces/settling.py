"""From a probe to what is believed of a deployment: references made, proofs judged and stored.

Everything is stored before it is believed; if it cannot be, the process goes by what it saw.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import structlog

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.core.errors import StorageUnavailable
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.spaces import canaries
from embedway.spaces.canaries import CANARIES
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.probe import CanaryProbe
from embedway.spaces.proof import Proof, Reference
from embedway.spaces.store import SpaceStore
from embedway.spaces.verdict import ProbeResult, judge

SpaceEvent = Literal["proven", "differs", "drifted", "released"]
OnEvent = Callable[[SpaceEvent, Deployment, Membership], None]

_log = structlog.get_logger("embedway.prober")


class ProofJudge:
    """Finds out what deployments are, one probe at a time; one for the process."""

    def __init__(
        self,
        *,
        spaces: SpaceMemberships,
        store: SpaceStore,
        probes: CanaryProbe,
        prove: Callable[[Deployment, InputType | None], Awaitable[Membership]],
        load: Callable[[], Awaitable[None]],
        on_event: OnEvent,
    ) -> None:
        """See `embedway.spaces.prober.Prober`, whose methods `prove` and `load` are."""
        self._spaces = spaces
        self._known = spaces.known
        self._membership = spaces.membership
        self._store = store
        self._probes = probes
        self._prove = prove
        self._load = load
        self._on_event = on_event
        self.unstored: set[tuple[str, InputType | None]] = set()
        """Deployments and input types whose last proof could not be stored."""

    async def settle(self, served: Deployment, input_type: InputType | None) -> Membership:
        """What `served` is found to be, after the home's reference is made if there is none.

        Raises:
            ProviderError: It cannot be asked.
        """
        known, model = self._known, served.model.id
        home = known.default_space(model)
        makes = await self._makes_home(served, input_type)
        if served.id in known.drifted:  # as was just found with another input type
            return self._membership(served, input_type)
        probe = await self._probes.run(served, input_type, known.canary_texts(model))
        if makes:
            await self._make(self._reference(served, home, input_type, probe))
        if known.default_space(model) != home:  # an operator, or another process, was faster
            return await self.settle(served, input_type)
        proof = judge(known, served, input_type, probe)
        missing = known.reference(model, proof.revision, input_type) is None
        if proof.state in {"differs", "unproven"} and missing:
            await self._make(self._reference(served, proof.revision, input_type, probe))
            proof = judge(known, served, input_type, probe)
        if proof.state == "drifted":
            # Unless another process was told to accept it.
            with contextlib.suppress(StorageUnavailable):
                await self._load()
            if known.default_space(model) != home:
                return await self.settle(served, input_type)
            proof = judge(known, served, input_type, probe)
        await self._believe(served, proof)
        return self._membership(served, input_type)

    async def release(
        self, served: Deployment, input_type: InputType | None, *, accept: str | None = None
    ) -> Membership:
        """Probes a deployment that drifted, and releases it if it is again what it was.

        Args:
            served: Who drifted.
            input_type: With which.
            accept: If it is not: a new revision, under which it is accepted as it is now.

        Raises:
            ProviderError: It cannot be asked.
            StorageUnavailable: The release cannot be stored, and so is none.
        """
        probe = await self._probes.run(
            served, input_type, self._known.canary_texts(served.model.id)
        )
        proof = judge(self._known, served, input_type, probe)
        if proof.state == "drifted" and accept:
            makes = self._known.reference_deployment(served.model.id) == served
            reference = self._reference(served, accept, input_type, probe)
            self._spaces.load([await self._store.keep_reference(reference)])
            proof = msgspec.structs.replace(
                proof,
                state="reference" if makes else "differs",
                revision=accept,
                home=self._known.default_space(served.model.id),
                cosine=1.0 if makes else proof.cosine,
                norm_deviation=0.0 if makes else proof.norm_deviation,
                reason="" if makes else f"accepted as it is now, apart from {proof.home}",
                since_ms=probe.at_ms,
            )
        kept = await self._store.keep_proof(proof, release=proof.state != "drifted")
        self._spaces.load(proofs=[kept])
        return self._membership(served, input_type)

    async def _makes_home(self, served: Deployment, input_type: InputType | None) -> bool:
        """Whether the home's reference is missing and `served` is to make it.

        If another is to, that has happened when this returns, if it can.
        """
        known, model = self._known, served.model.id
        home, maker = known.default_space(model), known.reference_deployment(model)
        if known.reference(model, home, input_type):
            return False
        retired = maker is not None and maker.id in known.retired
        anchors = known.anchor_input_types(model, home, input_type)
        # Whoever agrees with supplied canaries makes the references of other input types, and so
        # does whoever agrees with what a maker left that is retired.
        if retired:
            makes = bool(anchors)
        else:
            makes = known.is_supplied(model) if maker is None else maker.id == served.id
        if makes:
            anchored = [await self._settled_before(served, each) for each in anchors]
            return all(each.state in {"reference", "proven"} for each in anchored)
        if maker is None or retired:
            return False
        try:
            if maker.provider == LOCAL:
                probe = await self._probes.run(maker, input_type, known.canary_texts(model))
                await self._make(self._reference(maker, home, input_type, probe))
            else:
                await self._prove(maker, input_type)
        except ProviderError as error:
            _log.warning("no reference", deployment=served.id, maker=maker.id, kind=error.kind)
        return False

    async def _settled_before(self, served: Deployment, input_type: InputType | None) -> Membership:
        membership = self._membership(served, input_type)
        if membership.state == "unproven":
            return await self._prove(served, input_type)
        return membership

    def _reference(
        self, served: Deployment, revision: str, input_type: InputType | None, probe: ProbeResult
    ) -> Reference:
        return Reference(
            model=served.model.id,
            revision=revision,
            input_type=input_type,
            texts=canaries.digest_texts(CANARIES),
            vectors=probe.vectors[: len(CANARIES)],
            made_by=served.id,
            made_ms=probe.at_ms,
        )

    async def _make(self, reference: Reference) -> None:
        """Stores a reference, then believes it, or the one that another process stored before."""
        try:
            reference = await self._store.keep_reference(reference)
        except StorageUnavailable:
            _log.warning("reference not stored", model=reference.model)
        self._spaces.load([reference])

    async def _believe(self, served: Deployment, proof: Proof) -> None:
        """Stores a proof, then believes it, or that it drifted as another process stored."""
        before = self._known.proof(served.id, proof.input_type)
        key = (served.id, proof.input_type)
        try:
            proof = await self._store.keep_proof(proof)
            self.unstored.discard(key)
        except StorageUnavailable:
            _log.warning("proof not stored", deployment=served.id)
            self.unstored.add(key)
        self._spaces.load(proofs=[proof])
        if before and (before.state, before.revision) == (proof.state, proof.revision):
            return
        membership = self._membership(served, proof.input_type)
        match proof.state:
            case "reference" | "proven":
                self._on_event("proven", served, membership)
            case "drifted":
                self._on_event("drifted", served, membership)
            case "differs":
                self._on_event("differs", served, membership)
            case "unproven":
                pass
