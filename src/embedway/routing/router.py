"""Who is asked for a request, in which order, and why the others are not.

Owns the way from a name to deployments of one vector space: restrictions, filters, proofs, room,
rank. Asks nobody and knows no engine but by what it can be told.
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
from embedway.spaces.membership import SpaceMemberships

CHARACTERS_PER_TOKEN = 4
"""To tell a large batch from a small one before it is counted."""


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
        """Args name what it needs; `abilities` of the engine that embeds for a deployment."""
        self._catalog = catalog
        self._lifetimes = lifetimes
        self._spaces = spaces
        self._healths = healths
        self._abilities = abilities
        self._now_s = now_s
        self._random = random

    def effective_input_type(self, served: Deployment, request: EmbedRequest) -> InputType | None:
        """What the vectors are for, if `served` makes a difference of it."""
        wanted = request.input_type
        return wanted and served.effective_input_type(wanted, self._abilities(served))

    def plan(
        self,
        request: EmbedRequest,
        caller: Caller,
        *,
        given_up: frozenset[str] = frozenset(),
        any_age: bool = False,
        priced: bool = False,
    ) -> Plan:
        """Who is asked for `request`, best first; perhaps nobody.

        Args:
            request: What is asked for.
            caller: Who asks.
            given_up: Ids of deployments that could not be proven just now.
            any_age: Whether old proofs will do, for nobody is going to be asked.
            priced: Whether only those with a known price can be asked.

        Raises:
            UnknownModel: Nothing has this name.
            InvalidRequest: A fallback is of another vector space.
        """
        named = resolve(request.model, self._catalog, param="model")
        retired = self._lifetimes.today().retired
        pinned = named.is_pinned and not named.is_ordered
        asked = named.deployments[0] if pinned else self._home(named.deployments)
        alone = _alone(request, asked)
        old_will_do = any_age or asked.id in given_up
        revision = self._revision(asked, request, pinned=pinned, old_will_do=old_will_do)
        if revision is None:  # only once that is known can anybody else be of the same space
            names = {asked.id: request.model}
            candidates, revision = [asked], self._spaces.home(asked.model.id)
            revisions = {asked.model.id: revision}
        else:
            revisions = {asked.model.id: revision}
            names, candidates = self._candidates(request, named, asked, revisions)
        removed: list[Exclusion] = []
        policy = self._catalog.policy(asked.model.id)
        asking = FilterContext(
            request=request,
            caller=caller,
            asked=asked,
            alone=alone,
            names=names,
            only=policy.only,
            priced=priced,
            retired=retired,
            told=lambda served: self.effective_input_type(served, request),
            abilities=self._abilities,
        )
        candidates = filters.apply_filters(candidates, asking, removed)
        ready, unproven, due = self._in_space(
            candidates, request, None if alone else revisions, removed, any_age=any_age
        )
        due += self._references_due(candidates, request)
        ready = self._with_room(ready, removed)
        order = rank(
            ready,
            preference=request.preference,
            tokens=_tokens(request) if len(ready) > 1 else 0,
            healths=self._healths,
            policy=policy,
            now_s=self._now_s(),
            random=self._random,
        )
        if len(order) > 1 and (named.is_ordered or request.fallbacks):
            order = _as_named(order, named, names)
        if alone:
            revisions[asked.model.id] = self._spaces.known.native_space(asked)
            space = asked.space(
                revision=revisions[asked.model.id],
                width=request.dimensions,
                input_type=self.effective_input_type(asked, request),
                extra=request.extra_body,
            )
        else:
            space = self._space(asked, request, revision)
        return Plan(
            space=space, revisions=revisions, candidates=order,
            unproven=unproven, due=due, excluded=removed,
        )  # fmt: skip

    def _space(self, served: Deployment, request: EmbedRequest, revision: str) -> SpaceId:
        """The name of the space of a request's vectors, if `served` answers in this revision."""
        return self._spaces.space(
            served,
            self.effective_input_type(served, request),
            revision=revision,
            width=request.dimensions,
        )

    def _home(self, served: Sequence[Deployment]) -> Deployment:
        """The deployment that the model's home is named after, if it is there."""
        if len(served) == 1:
            return served[0]
        maker = self._spaces.known.reference_deployment(served[0].model.id)
        return maker if maker and maker in served else served[0]

    def _revision(
        self, asked: Deployment, request: EmbedRequest, *, pinned: bool, old_will_do: bool
    ) -> str | None:
        """Of the space that the name means; None if that must be proven first."""
        home = self._spaces.home(asked.model.id)
        if not pinned:
            return home
        member = self._spaces.membership(asked, self.effective_input_type(asked, request))
        if member.may_be_asked or member.state == "drifted":
            return member.revision
        return member.last_revision if old_will_do else None

    def _candidates(
        self,
        request: EmbedRequest,
        named: ResolvedName,
        asked: Deployment,
        revisions: dict[str, str],
    ) -> tuple[dict[str, str], list[Deployment]]:
        """All whom the request names, and of each by its id the name that it is asked for by.

        Adds to `revisions` those of other models that are proven to share the space.
        """
        names = dict.fromkeys((each.id for each in named.deployments), request.model)
        candidates = list(named.deployments)
        for name in request.fallbacks if request.enable_model_fallback else ():
            for each in self._fallback(name, request, asked, revisions):
                if each.id not in names:
                    names[each.id] = name
                    candidates.append(each)
        return names, candidates

    def _fallback(
        self, name: str, request: EmbedRequest, asked: Deployment, revisions: dict[str, str]
    ) -> Sequence[Deployment]:
        revision = revisions[asked.model.id]
        try:
            named = resolve(name, self._catalog, param="fallbacks")
        except UnknownModel as error:
            raise InvalidRequest(error.message, param=error.param) from None
        for each in named.deployments:
            if each.model.id != asked.model.id:
                known = self._spaces.home(each.model.id)
                state = self._shares_space(each, asked, request, revision)
                refused = state == "differs"
                if state == "proven":
                    revisions[each.model.id] = known
            else:
                member = self._spaces.membership(each, self.effective_input_type(each, request))
                known = revision if member.state == "unproven" else member.revision
                refused = not _claims(each, asked) or known != revision
            if refused:
                raise InvalidRequest(
                    f"The fallback {name!r} gives vectors of another space "
                    f"({self._space(each, request, known)}) than {request.model!r} "
                    f"({self._space(asked, request, revision)}); they cannot be compared. Take it "
                    "out.",
                    param="fallbacks",
                )
        return [each for each in named.deployments if self._is_allowed(each, asked)]

    def _is_allowed(self, served: Deployment, asked: Deployment) -> bool:
        """Whether the operator's `only` for another model than the one asked for has `served`."""
        if served.model.id == asked.model.id:
            return True  # there is a filter for that
        only = self._catalog.policy(served.model.id).only
        return not only or served.provider in only

    def _shares_space(
        self, other: Deployment, asked: Deployment, request: EmbedRequest, revision: str
    ) -> Literal["proven", "unproven", "differs"]:
        """Whether another model gives vectors of the space that the request's name means."""
        if (other.model.same_space_as or other.model.id) != (
            asked.model.same_space_as or asked.model.id
        ):
            return "differs"
        home = self._spaces.home(other.model.id)
        if self._space(other, request, home) == self._space(asked, request, revision):
            return "proven"
        claims = (
            self._spaces.shared(each, self.effective_input_type(each, request), revision=of)
            for each, of in ((other, home), (asked, revision))
        )
        states = {claim.state for claim in claims if claim}
        return "unproven" if "unproven" in states and "differs" not in states else "differs"

    def _references_due(
        self, candidates: Sequence[Deployment], request: EmbedRequest
    ) -> Sequence[Deployment]:
        """Deployments of other models that must give their canaries before spaces are compared."""
        due: dict[str, Deployment] = {}
        for each in candidates:
            if not each.model.same_space_as:
                continue
            home = self._spaces.home(each.model.id)
            claim = self._spaces.shared(
                each, self.effective_input_type(each, request), revision=home
            )
            if (
                claim
                and claim.missing
                and (maker := self._spaces.known.reference_deployment(claim.model))
            ):
                due[maker.id] = maker
        return list(due.values())

    def _in_space(
        self,
        candidates: Sequence[Deployment],
        request: EmbedRequest,
        revisions: Mapping[str, str] | None,
        removed: list[Exclusion],
        *,
        any_age: bool,
    ) -> tuple[list[Deployment], list[Exclusion], list[Deployment]]:
        """Those whose vectors are of the space, those of whom that is not proven, those due.

        Any space will do where `revisions` is None: then there is one candidate.
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
            member = self._spaces.membership(each, self.effective_input_type(each, request))
            of = member.revision
            in_own_space = member.in_own_space and revision in {None, of}
            if member.state == "unproven" and any_age and member.last_revision:
                of = member.last_revision
            elif member.state == "unproven" and not in_own_space:
                unproven.append(Exclusion(deployment=each, filter=SPACE, reason=member.reason))
                due.append(each)
                continue
            if member.state == "drifted":
                removed.append(Exclusion(deployment=each, filter=QUARANTINE, reason=member.reason))
                due.append(each)  # an operator may have released it
                continue
            if revision in {None, of}:
                ready.append(each)
            else:
                removed.append(Exclusion(deployment=each, filter=SPACE, reason=member.reason))
            if member.due:
                due.append(each)
        return ready, unproven, due

    def _with_room(self, ready: list[Deployment], removed: list[Exclusion]) -> list[Deployment]:
        """Those that did not ask to be left alone for a while."""
        now_s = self._now_s()
        left: list[Deployment] = []
        for each in ready:
            health = self._healths.get(each)
            if health.state(now_s) == "limited":
                wait_s = health.wait_s(now_s)
                reason = f"limits the rate, for another {wait_s:.1f} s"
                removed.append(
                    Exclusion(deployment=each, filter="rate limit", reason=reason, wait_s=wait_s)
                )
            else:
                left.append(each)
        return left


def _alone(request: EmbedRequest, asked: Deployment) -> str | None:
    """The field that only the one whom the name means can be asked, in a space of its own.

    Canaries prove what is answered without it: nobody knows what others make of it.
    """
    if request.extra_body:
        return "extra_body"
    if request.dimensions is not None and not asked.model.can_shorten(request.dimensions):
        return "dimensions"
    return None


def _claims(served: Deployment, asked: Deployment) -> bool:
    """Whether `served` is said to be of the same space."""
    declared = served.model.declared and asked.model.declared
    return served.id == asked.id or (declared and claimed_space(served) == claimed_space(asked))


def _tokens(request: EmbedRequest) -> int:
    items = request.items
    units = sum(map(len, items))
    return units // CHARACTERS_PER_TOKEN if isinstance(items[0], str) else units


def _as_named(
    order: list[Candidate], named: ResolvedName, names: Mapping[str, str]
) -> list[Candidate]:
    """`order`, but with what the request names first before what it names later."""
    ranked = 0 if named.is_ordered else len(named.deployments)
    places = {id: max(place, ranked - 1) for place, id in enumerate(names)}
    placed = sorted(order, key=lambda each: places[each.deployment.id])
    if named.is_ordered:
        return [msgspec.structs.replace(each, decided_by="named") for each in placed]
    return placed
