"""Compares a provider with what its row and the catalog say, by a few short calls that it bills."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, Literal

import msgspec
import numpy as np

from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.cli.trials import TEXT, TOKENS, batch_to_try, call, explain
from embedway.core import vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import TRANSIENT, FailureKind, ProviderError
from embedway.core.request import InputType
from embedway.core.vectors import Vectors
from embedway.providers import provider
from embedway.providers.provider_config import ProviderConfig
from embedway.spaces import canaries
from embedway.tokenizing.cl100k import Cl100kTokenizer

TEXTS = [TEXT, "The keeper wrote the weather of the day into a large book."]
"""Two texts of about `TOKENS` tokens each, with different vectors."""
MAX_LONG_TOKENS = 10_000
"""Send no longer text than this: a provider that cuts it instead of refusing it bills it."""
MARGIN_TOKENS = 100
"""Send a text this much longer than the limit, because the catalog's limit may be a little low."""
MADE_UP_KEY = "embedway-made-up-key"
MADE_UP = "-made-up"
"""The end of a model's name that names no model, and still says which protocol it is spoken in."""
MIN_COSINE = ModelPolicy().min_cosine
"""Two vectors of one text that differ by more are different vectors."""

Outcome = Literal["ok", "differs", "not tried"]
Verdict = tuple[Outcome, str]
"""What a check found, and the measured values or the reason."""


class VerificationFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found."""

    check: str
    outcome: Outcome
    detail: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a row or the catalog says."""

    name: str
    run: Callable[[], Awaitable[Verdict]]
    tokens: int = 0
    """About how many tokens its calls send."""
    skipped: str = ""
    """Why it cannot be tried; empty if it can."""


class Verification:
    """Compares one provider with its row, by one of its models."""

    def __init__(self, declared: ProviderConfig, served: Deployment, *, timeout_s: float) -> None:
        self._declared = declared
        self._served = served
        self._timeout_s = timeout_s
        self._batch = batch_to_try(served)
        self._call = _call(declared, self._batch)
        self._alone: list[BatchResult] = []
        self._checks = [
            Check(name="width", run=self._width),
            Check(name="norm", run=self._norm),
            self._order(),
            Check(name="tokens", run=self._tokens),
            self._base64(),
            self._dimensions(),
            self._input_types(),
            self._too_long(),
            self._wrong_key(),
            self._unknown_model(),
        ]

    @property
    def tokens(self) -> int:
        """About how many tokens all calls send together."""
        return len(TEXTS) * TOKENS + sum(each.tokens for each in self._checks if not each.skipped)

    async def run(self) -> list[VerificationFinding]:
        """Make the calls one after the other, and compare.

        Raises:
            ProviderError: The provider does not embed a short text, so nothing can be compared.
        """
        self._alone = [await self._embed(items=[text]) for text in TEXTS]
        return [await self._finding(check) for check in self._checks]

    async def _finding(self, check: Check) -> VerificationFinding:
        outcome: Outcome = "not tried"
        detail = check.skipped
        try:
            if not detail:
                outcome, detail = await check.run()
        except InvalidRequest as error:
            detail = error.message
        except ProviderError as error:
            outcome = "not tried" if error.kind in (*TRANSIENT, "quota") else "differs"
            detail = self._explained(error)
        return VerificationFinding(check=check.name, outcome=outcome, detail=detail)

    # What the two short texts alone show.

    async def _width(self) -> Verdict:
        width, declared = self._full.shape[1], self._served.model.dimensions
        if declared is None:
            return "not tried", f"no width is declared for this model; it gives {width} dimensions"
        if width != declared:
            return "differs", f"{width} dimensions, not {declared}"
        return "ok", f"{width} dimensions"

    async def _norm(self) -> Verdict:
        normalised = self._served.model.normalised
        length = f"vectors of length {np.linalg.norm(self._full[0]):.4g}"
        if normalised is None:
            return "not tried", f"nobody says whether they have length 1; it gives {length}"
        if normalised and not canaries.are_unit_length(self._full):
            return "differs", f"{length}, not 1"
        return "ok", length

    async def _tokens(self) -> Verdict:
        counted = self._alone[0].tokens
        with closing(Cl100kTokenizer()) as codec:
            [ids] = await codec.encode([TEXT])
        if counted is None:
            return "not tried", f"it counts no tokens; this gateway estimates {len(ids)}"
        if self._alone[0].tokens_up_to(self._batch.max_tokens) is None:
            shown = counted if counted >= 0 else "no whole number"
            return "differs", f"it counts {shown}, which cannot be; the estimate is {len(ids)}"
        if self._served.model.tokenizer == "cl100k_base":
            found: Outcome = "ok" if counted == len(ids) else "differs"
            return found, f"it counts {counted}, this gateway {len(ids)}"
        return "ok", f"it counts {counted}, this gateway estimates {len(ids)}"

    # What further calls show.

    def _order(self) -> Check:
        limits = self._declared.limits or self._declared.row.limits
        most = self._served.spec.max_items or limits.max_items

        async def run() -> Verdict:
            both = await self._embed(items=TEXTS)
            against = _against(both.vectors, self._full)
            if against and not _against(both.vectors[::-1], self._full):
                return "differs", "two texts in a batch get each other's vector"
            if against:
                return "differs", f"two texts get other vectors in a batch than alone: {against}"
            if not _against(both.vectors[::-1], self._full):
                return "differs", "two texts get the same vector"
            return "ok", "two texts get the same vectors in a batch as alone"

        skipped = "" if most > 1 else "it takes one text a call"
        return Check(name="order", run=run, tokens=len(TEXTS) * TOKENS, skipped=skipped)

    def _base64(self) -> Check:
        numbers = msgspec.structs.replace(self._declared, row=self._declared.row.without_base64())

        async def run() -> Verdict:
            given = await self._embed(declared=numbers)
            if against := _against(given.vectors, self._full[:1]):
                return "differs", f"the numbers are other vectors than the base64: {against}"
            return "ok", "base64 and numbers are the same vectors"

        same = _call(numbers, self._batch) == self._call
        skipped = "its row does not ask for base64" if same else ""
        return Check(name="base64", run=run, tokens=TOKENS, skipped=skipped)

    def _dimensions(self) -> Check:
        model = self._served.model
        full, trained = model.dimensions or 0, model.trained_dimensions
        widths = [full // 2] if trained == "any" else [] if trained == "unknown" else trained
        width = min((each for each in widths if 0 < each < full), default=0)

        async def run() -> Verdict:
            given = (await self._embed(dimensions=width)).vectors
            if given.shape[1] != width:
                return "differs", f"{given.shape[1]} dimensions, where {width} are asked for"
            start = vectors.shorten(self._full[:1], dimensions=width)
            if against := _against(vectors.unit(given), start):
                return "differs", f"{width} dimensions are not the start of all {full}: {against}"
            length = np.linalg.norm(given[0])
            return "ok", f"{width} dimensions are the start of all {full}, of length {length:.4g}"

        skipped = "no smaller width is known that this model is trained for"
        if width:
            same = self._is_same_call(dimensions=width)
            skipped = "its row cannot ask for dimensions; this gateway shortens" if same else ""
        return Check(name="dimensions", run=run, tokens=TOKENS, skipped=skipped)

    def _input_types(self) -> Check:
        known = self._batch.input_types
        if known is None:
            known = self._declared.row.fields.input_types
        types: list[InputType] = [each for each in known if not self._is_same_call(input_type=each)]
        # A row may word a type as what is sent if none is asked for.
        if "query" in types and "document" in known and "document" not in types:
            types.append("document")

        async def run() -> Verdict:
            given: dict[InputType, Vectors] = {}
            for each in types:
                given[each] = (await self._embed(input_type=each)).vectors
            query, document = given.get("query"), given.get("document")
            if query is None or document is None:
                return "ok", f"it takes {', '.join(types)}"
            if not (against := _against(query, document)):
                return "differs", "query and document get the same vectors"
            return "ok", f"query and document differ ({against}); it takes {', '.join(types)}"

        skipped = "" if types else "its calls say no input type for this model"
        return Check(name="input types", run=run, tokens=len(types) * TOKENS, skipped=skipped)

    def _too_long(self) -> Check:
        limit = self._served.model.max_item_tokens
        tokens = (limit or 0) + MARGIN_TOKENS

        async def run() -> Verdict:
            # A token in every vocabulary.
            refused = await self._refusal("item_too_long", items=["a " * tokens])
            if not isinstance(refused, BatchResult):
                return refused
            counts = "" if refused.tokens is None else f" and counts {refused.tokens}"
            answers = f"it answers a text of {tokens} tokens{counts}"
            if "none" in self._declared.row.fields.truncations:
                return "differs", f"{answers}, where {limit} is the limit and it is told not to cut"
            return "ok", f"{answers}; its row cannot tell it not to cut"

        skipped = ""
        if limit is None:
            skipped = "nobody says how long a text may be"
        elif tokens > MAX_LONG_TOKENS:
            skipped = f"a text of {tokens} tokens would cost too much if it were answered"
        return Check(name="too long", run=run, tokens=tokens, skipped=skipped)

    def _wrong_key(self) -> Check:
        declared = self._declared
        # The start of a key may say at which address it is taken.
        known = "".join(declared.keys[:1])
        start = next((each for each in declared.row.by_key if known.startswith(each)), "")
        made_up = msgspec.structs.replace(declared, keys=[start + MADE_UP_KEY])

        async def run() -> Verdict:
            return self._ignored(
                await self._refusal("credentials", declared=made_up), "it answers a made-up key"
            )

        skipped = "" if self._declared.keys else "no key is declared"
        return Check(name="wrong key", run=run, tokens=TOKENS, skipped=skipped)

    def _unknown_model(self) -> Check:
        name = self._served.upstream_name + MADE_UP

        async def run() -> Verdict:
            return self._ignored(
                await self._refusal("model", model=name), f"it answers for a model {name!r}"
            )

        skipped = "its calls name no model" if self._is_same_call(model=name) else ""
        return Check(name="unknown model", run=run, tokens=TOKENS, skipped=skipped)

    # How calls are made.

    @property
    def _full(self) -> Vectors:
        """The vectors of `TEXTS`, each from a call of its own."""
        return np.concatenate([each.vectors for each in self._alone])

    async def _embed(
        self, *, declared: ProviderConfig | None = None, **changes: Any
    ) -> BatchResult:
        batch = msgspec.structs.replace(self._batch, **changes)
        batch = msgspec.structs.replace(batch, tokens=[TOKENS] * len(batch.items))
        result = await call(declared or self._declared, batch, timeout_s=self._timeout_s)
        vectors.check_vectors(result.vectors, items=len(batch.items), dimensions=None)
        return result

    async def _refusal(self, kind: FailureKind, **asked: Any) -> Verdict | BatchResult:
        """What a call that must be refused as `kind` shows, or its answer if it is not refused."""
        try:
            return await self._embed(**asked)
        except ProviderError as error:
            if not error.was_sent:
                return "not tried", f"no call can be made: {self._explained(error)}"
            if error.kind == kind:
                return "ok", f"refused as {kind}, HTTP {error.status}"
            if error.kind in TRANSIENT:
                return "not tried", self._explained(error)
            return "differs", f"refused as {error.kind}, not {kind}: {self._explained(error)}"

    def _ignored(self, found: Verdict | BatchResult, answers: str) -> Verdict:
        """What it means that a call was answered for which servers of one's own need not care."""
        if not isinstance(found, BatchResult):
            return found
        if self._declared.row.own_server:
            return "ok", f"{answers}, as a server of one's own may"
        return "differs", answers

    def _is_same_call(self, **changes: Any) -> bool:
        """Whether the provider would be sent the same without `changes`."""
        try:
            return _call(self._declared, msgspec.structs.replace(self._batch, **changes)) == (
                self._call
            )
        except InvalidRequest:
            return True

    def _explained(self, error: ProviderError) -> str:
        return explain(self._declared, self._served.upstream_name, error)


def _call(declared: ProviderConfig, batch: Batch) -> object:
    """The call that asks for `batch`."""
    row = declared.row
    return provider.load_object(row.adapter)(row, declared.values).encode(batch)


def _against(given: Vectors, wanted: Vectors) -> str:
    """Why two matrices are not the same vectors; empty if they are."""
    return canaries.compare(given, wanted, min_cosine=MIN_COSINE).difference
