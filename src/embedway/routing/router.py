"""Turns a request into a plan: from the name, through filters, proofs and rate limits, to ranks.

All candidates of a plan are in one vector space. Sends nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Literal

import msgspec

from embedway.catalog.catalog import Catalog, ResolvedName
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.catalog.resolved_name import claimed_space
from embedway.core.batch import EngineAbilities
from embedway.core.errors import InvalidRequest, UnknownModel
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest, InputType
from embedway.core.space_id import SpaceId
from embedway.health.health import HealthRegistry
from embedway.routing import filters
from embedway.routing.filters import FilterContext
from embedway.routing.no_candidates import QUARANTINE, SPACE
from embedway.routing.plan import Candidate, Exclusion, Plan
from embedway.routing.rank import rank
from embedway.routing.resolve import resolve
from embedway.spaces.membership import Membership, SpaceMemberships

CHARACTERS_PER_TOKEN = 4
"""An estimate for text, to rank by before tokens are counted."""


class Router:
    """Plans requests; one for the process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        lifetimes: ModelLifetimes,
        spaces: SpaceMemberships,
        healths: HealthRegistry,
        abilities: Callable[[Deployment], EngineAbilities],
        now_s: Callable[[], float],
        random: Random,
    ) -> None:
        """Plan over `catalog`; `abilities` are those of a deployment's engine."""
        self._catalog = catalog
        self._lifetimes = lifetimes
        self._spaces = spaces
        self._healths = healths
        self._abilities = abilities
        self._now_s = now_s
        self._random = random

    def effective_input_type(
        self, deployment: Deployment, request: EmbedRequest
    ) -> InputType | None:
        """Return the input type that `deployment` makes use of for `request`, or None."""
        wanted = request.input_type
        return wanted and deployment.effective_input_type(wanted, self._abilities(deployment))

    def plan(
        self,
        request: EmbedRequest,
        caller: Caller,
        *,
        unprovable: frozenset[str] = frozenset(),
        accept_old_proofs: bool = False,
        needs_price: bool = False,
    ) -> Plan:
        """Plan a request. The plan may have no candidates.

        Args:
            request: The request.
            caller: The caller, whose restrictions apply.
            unprovable: Ids of deployments whose probes just failed.
            accept_old_proofs: Use proofs of any age, for a plan that nothing is sent by.
            needs_price: Exclude deployments of unknown price.

        Raises:
            UnknownModel: The catalog has no such name.
            InvalidRequest: A fallback is in another vector space.
        """
        resolved = resolve(request.model, self._catalog, param="model")
        retired = self._lifetimes.today().retired
        is_pinned = resolved.is_pinned and not resolved.is_ordered
        target = resolved.deployments[0] if is_pinned else self._find_target(resolved.deployments)
        input_type = self.effective_input_type(target, request)
        if input_type != request.input_type:
            # The space that the name means is the same with or without it, so it is sent to none.
            request = msgspec.structs.replace(request, input_type=input_type)
        sole_field = _sole_field(request, target)
        accept_old_proof = accept_old_proofs or target.id in unprovable
        revision = self._find_revision(
            target, request, is_pinned=is_pinned, accept_old_proof=accept_old_proof
        )
        if revision is None:  # no other deployment can be in a space that is unknown
            names = {target.id: request.model}
            candidates, revision = [target], self._spaces.home(target.model.id)
            revisions = {target.model.id: revision}
        else:
            revisions = {target.model.id: revision}
            names, candidates = self._find_candidates(request, resolved, target, revisions)
        removed: list[Exclusion] = []
        policy = self._catalog.policy(target.model.id)
        context = FilterContext(
            request=request,
            caller=caller,
            target=target,
            sole_field=sole_field,
            names=names,
            policy_providers=policy.only,
            needs_price=needs_price,
            retired_ids=retired,
            abilities=self._abilities,
        )
        candidates = filters.apply_filters(candidates, context, removed)
        ready, unproven, due = self._select_in_space(
            candidates,
            request,
            None if sole_field else revisions,
            removed,
            accept_old_proofs=accept_old_proofs,
        )
        due += self._find_missing_references(candidates, request)
        ready = self._drop_limited(ready, removed)
        ranked = rank(
            ready,
            preference=request.preference,
            tokens=_estimate_tokens(request) if len(ready) > 1 else 0,
            healths=self._healths,
            policy=policy,
            now_s=self._now_s(),
            random=self._random,
        )
        if len(ranked) > 1 and (resolved.is_ordered or request.fallbacks):
            ranked = _sort_by_name(ranked, resolved, names)
        if sole_field:
            revisions[target.model.id] = self._spaces.registry.native_space(target)
            space = target.space(
                revision=revisions[target.model.id],
                width=request.dimensions,
                input_type=input_type,
                extra=request.extra_body,
            )
        else:
            space = self._name_space(target, request, revision)
        return Plan(
            request=request, space=space, revisions=revisions, candidates=ranked,
            unproven=unproven, probes_due=due, excluded=removed,
        )  # fmt: skip

    def _membership(self, deployment: Deployment, request: EmbedRequest) -> Membership:
        input_type = self.effective_input_type(deployment, request)
        return self._spaces.membership(deployment, input_type)

    def _name_space(self, deployment: Deployment, request: EmbedRequest, revision: str) -> SpaceId:
        """Name the space of a request's vectors from `deployment` in this revision."""
        return self._spaces.space(
            deployment,
            self.effective_input_type(deployment, request),
            revision=revision,
            width=request.dimensions,
        )

    def _find_target(self, deployments: Sequence[Deployment]) -> Deployment:
        """Return the deployment that defines the model's home space, or else the first."""
        first = deployments[0]
        if len(deployments) == 1:
            return first
        maker = self._spaces.registry.reference_deployment(first.model.id)
        return maker if maker and maker in deployments else first

    def _find_revision(
        self, target: Deployment, request: EmbedRequest, *, is_pinned: bool, accept_old_proof: bool
    ) -> str | None:
        """Return the revision of the space that the name means; None if a probe must prove it."""
        home = self._spaces.home(target.model.id)
        if not is_pinned:
            return home
        member = self._membership(target, request)
        if member.is_usable or member.state == "drifted":
            return member.revision
        return member.last_revision if accept_old_proof else None

    def _find_candidates(
        self,
        request: EmbedRequest,
        resolved: ResolvedName,
        target: Deployment,
        revisions: dict[str, str],
    ) -> tuple[dict[str, str], list[Deployment]]:
        """Return the requested name by deployment id, and all deployments of the request's names.

        Adds to `revisions` those of other models that are proven to share the space.
        """
        names = dict.fromkeys((each.id for each in resolved.deployments), request.model)
        candidates = list(resolved.deployments)
        for name in request.fallbacks if request.enable_model_fallback else ():
            for each in self._resolve_fallback(name, request, target, revisions):
                if each.id not in names:
                    names[each.id] = name
                    candidates.append(each)
        return names, candidates

    def _resolve_fallback(
        self, name: str, request: EmbedRequest, target: Deployment, revisions: dict[str, str]
    ) -> Sequence[Deployment]:
        revision = revisions[target.model.id]
        try:
            resolved = resolve(name, self._catalog, param="fallbacks")
        except UnknownModel as error:
            raise InvalidRequest(error.message, param=error.param) from None
        for each in resolved.deployments:
            if each.model.id != target.model.id:
                own_revision = self._spaces.home(each.model.id)
                state = self._compare_spaces(each, target, request, revision)
                is_other_space = state == "differs"
                if state == "proven":
                    revisions[each.model.id] = own_revision
            else:
                member = self._membership(each, request)
                own_revision = revision if member.state == "unproven" else member.revision
                is_other_space = not _claims_space_of(each, target) or own_revision != revision
            if is_other_space:
                raise InvalidRequest(
                    f"The fallback {name!r} gives vectors of another space "
                    f"({self._name_space(each, request, own_revision)}) than {request.model!r} "
                    f"({self._name_space(target, request, revision)}); they cannot be compared. "
                    "Take it out.",
                    param="fallbacks",
                )
        return [each for each in resolved.deployments if self._is_allowed(each, target)]

    def _is_allowed(self, deployment: Deployment, target: Deployment) -> bool:
        """Return whether the operator's `only` for a fallback's model allows `deployment`."""
        if deployment.model.id == target.model.id:
            return True  # a filter checks that
        only = self._catalog.policy(deployment.model.id).only
        return not only or deployment.provider in only

    def _compare_spaces(
        self, other: Deployment, target: Deployment, request: EmbedRequest, revision: str
    ) -> Literal["proven", "unproven", "differs"]:
        """Return whether another model is in the space that the request's name means."""
        if (other.model.same_space_as or other.model.id) != (
            target.model.same_space_as or target.model.id
        ):
            return "differs"
        home = self._spaces.home(other.model.id)
        if self._name_space(other, request, home) == self._name_space(target, request, revision):
            return "proven"
        claims = (
            self._spaces.shared_space(each, self.effective_input_type(each, request), revision=of)
            for each, of in ((other, home), (target, revision))
        )
        states = {claim.state for claim in claims if claim}
        return "unproven" if "unproven" in states and "differs" not in states else "differs"

    def _find_missing_references(
        self, candidates: Sequence[Deployment], request: EmbedRequest
    ) -> Sequence[Deployment]:
        """Return deployments of other models whose references are missing for a comparison."""
        due: dict[str, Deployment] = {}
        for each in candidates:
            if not each.model.same_space_as:
                continue
            home = self._spaces.home(each.model.id)
            claim = self._spaces.shared_space(
                each, self.effective_input_type(each, request), revision=home
            )
            if (
                claim
                and claim.is_reference_missing
                and (maker := self._spaces.registry.reference_deployment(claim.model))
            ):
                due[maker.id] = maker
        return list(due.values())

    def _select_in_space(
        self,
        candidates: Sequence[Deployment],
        request: EmbedRequest,
        revisions: Mapping[str, str] | None,
        removed: list[Exclusion],
        *,
        accept_old_proofs: bool,
    ) -> tuple[list[Deployment], list[Exclusion], list[Deployment]]:
        """Return the deployments that are in the space, the unproven ones, and those to probe.

        Without `revisions` any space will do, because there is just one candidate.
        """
        ready: list[Deployment] = []
        unproven: list[Exclusion] = []
        due: list[Deployment] = []
        for each in candidates:
            revision = revisions.get(each.model.id, "") if revisions else None
            if revision == "":
                reason = f"not yet proven to share the space of {request.model!r}"
                unproven.append(Exclusion(deployment=each, filter=SPACE, reason=reason))
                due.append(each)
                continue
            member = self._membership(each, request)
            own_revision = member.revision
            in_own_space = member.is_in_own_space and revision in {None, own_revision}
            if member.state == "unproven" and accept_old_proofs and member.last_revision:
                own_revision = member.last_revision
            elif member.state == "unproven" and not in_own_space:
                unproven.append(Exclusion(deployment=each, filter=SPACE, reason=member.reason))
                due.append(each)
                continue
            if member.state == "drifted":
                removed.append(Exclusion(deployment=each, filter=QUARANTINE, reason=member.reason))
                due.append(each)  # an operator may have released it
                continue
            if revision in {None, own_revision}:
                ready.append(each)
            else:
                removed.append(Exclusion(deployment=each, filter=SPACE, reason=member.reason))
            if member.is_due:
                due.append(each)
        return ready, unproven, due

    def _drop_limited(self, ready: list[Deployment], removed: list[Exclusion]) -> list[Deployment]:
        """Return the deployments that are not rate-limited."""
        now_s = self._now_s()
        left: list[Deployment] = []
        for each in ready:
            health = self._healths.get(each)
            if health.state(now_s) != "limited":
                left.append(each)
                continue
            wait_s = health.wait_s(now_s)
            reason = f"limits the rate, for another {wait_s:.1f} s"
            removed.append(
                Exclusion(deployment=each, filter="rate limit", reason=reason, wait_s=wait_s)
            )
        return left


def _sole_field(request: EmbedRequest, target: Deployment) -> str | None:
    """Return the field that ties a request to one deployment, in a space of its own, or None.

    Canaries are sent without such a field, so they do not prove what others make of it.
    """
    if request.extra_body:
        return "extra_body"
    if request.dimensions is not None and not target.model.can_shorten(request.dimensions):
        return "dimensions"
    return None


def _claims_space_of(deployment: Deployment, target: Deployment) -> bool:
    """Return whether `deployment` claims to be in the same space."""
    declared = deployment.model.declared and target.model.declared
    return deployment.id == target.id or (
        declared and claimed_space(deployment) == claimed_space(target)
    )


def _estimate_tokens(request: EmbedRequest) -> int:
    items = request.items
    units = sum(map(len, items))
    return units // CHARACTERS_PER_TOKEN if isinstance(items[0], str) else units


def _sort_by_name(
    candidates: list[Candidate], resolved: ResolvedName, names: Mapping[str, str]
) -> list[Candidate]:
    """Sort candidates by where the request names them; ranks decide within one name."""
    tied = 0 if resolved.is_ordered else len(resolved.deployments)
    places = {id: max(place, tied - 1) for place, id in enumerate(names)}
    placed = sorted(candidates, key=lambda each: places[each.deployment.id])
    if resolved.is_ordered:
        return [msgspec.structs.replace(each, decided_by="named") for each in placed]
    return placed
