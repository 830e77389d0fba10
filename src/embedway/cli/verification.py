"""Compares a provider with its row and the catalog, by a few short calls that it bills."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, Literal

import msgspec
import numpy as np

from embedway.catalog.deployment import Deployment
from embedway.catalog.policy import ModelPolicy
from embedway.cli.trials import TEXT, TOKENS, Target
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
"""The longest text to send, because a provider that cuts it instead of refusing it bills it."""
MARGIN_TOKENS = 100
"""How far to exceed a model's limit, because the catalog's limit may be a little low."""
MADE_UP_KEY = "embedway-made-up-key"
MADE_UP_SUFFIX = "-made-up"
"""Turns a model's name into one that no model has, whose start still selects the protocol."""
MIN_COSINE = ModelPolicy().min_cosine
"""The lowest cosine between two vectors that count as the same."""

Outcome = Literal["ok", "differs", "not tried"]
Verdict = tuple[Outcome, str]
"""The outcome of a check, and the measured values or the reason."""


class VerificationFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check."""

    check: str
    outcome: Outcome
    detail: str


class Verification:
    """Compares one provider with its row, by one of its deployments."""

    def __init__(
        self, provider_config: ProviderConfig, deployment: Deployment, *, timeout_s: float
    ) -> None:
        self._provider_config = provider_config
        self._deployment = deployment
        self._target = Target(provider_config, deployment, timeout_s)
        self._batch = self._target.batch
        self._call = _encode_call(provider_config, self._batch)
        self._single_results: list[BatchResult] = []

    @property
    def tokens(self) -> int:
        """Return about how many tokens all calls send together, at most."""
        # Each text alone and in a batch; then base64, dimensions, a wrong key and a wrong model.
        short_texts = 2 * len(TEXTS) + 4 + len(self._input_types)
        long = self._long_tokens if self._long_tokens <= MAX_LONG_TOKENS else 0
        return short_texts * TOKENS + long

    async def run(self) -> list[VerificationFinding]:
        """Make the calls one after the other and return a finding for each check.

        Raises:
            ProviderError: The provider does not embed a short text, so nothing can be compared.
        """
        self._single_results = [await self._embed(items=[text]) for text in TEXTS]
        checks: dict[str, Callable[[], Awaitable[Verdict]]] = {
            "width": self._width,
            "norm": self._norm,
            "order": self._order,
            "tokens": self._tokens,
            "base64": self._base64,
            "dimensions": self._dimensions,
            "input types": self._try_input_types,
            "too long": self._too_long,
            "wrong key": self._wrong_key,
            "unknown model": self._unknown_model,
        }
        return [await self._run_check(*each) for each in checks.items()]

    async def _run_check(
        self, name: str, check: Callable[[], Awaitable[Verdict]]
    ) -> VerificationFinding:
        try:
            outcome, detail = await check()
        except InvalidRequest as error:
            outcome, detail = "not tried", error.message
        except ProviderError as error:
            outcome = "not tried" if error.kind in (*TRANSIENT, "quota") else "differs"
            detail = self._target.explain(error)
        return VerificationFinding(check=name, outcome=outcome, detail=detail)

    # Checks of the two texts that were embedded alone.

    async def _width(self) -> Verdict:
        width, declared = self._full.shape[1], self._deployment.model.dimensions
        if declared is None:
            return "not tried", f"no width is declared for this model; it gives {width} dimensions"
        if width != declared:
            return "differs", f"{width} dimensions, not {declared}"
        return "ok", f"{width} dimensions"

    async def _norm(self) -> Verdict:
        normalised = self._deployment.model.normalised
        length = f"vectors of length {np.linalg.norm(self._full[0]):.4g}"
        if normalised is None:
            return "not tried", f"nobody says whether they have length 1; it gives {length}"
        if normalised and not canaries.are_unit_length(self._full):
            return "differs", f"{length}, not 1"
        return "ok", length

    async def _tokens(self) -> Verdict:
        counted = self._single_results[0].tokens
        with closing(Cl100kTokenizer()) as codec:
            [ids] = await codec.encode([TEXT])
        if counted is None:
            return "not tried", f"it counts no tokens; this gateway estimates {len(ids)}"
        if self._single_results[0].tokens_up_to(self._batch.max_tokens) is None:
            shown = counted if counted >= 0 else "no whole number"
            return "differs", f"it counts {shown}, which cannot be; the estimate is {len(ids)}"
        if self._deployment.model.tokenizer == "cl100k_base":
            outcome: Outcome = "ok" if counted == len(ids) else "differs"
            return outcome, f"it counts {counted}, this gateway {len(ids)}"
        return "ok", f"it counts {counted}, this gateway estimates {len(ids)}"

    # Checks that make further calls.

    async def _order(self) -> Verdict:
        limits = self._provider_config.limits or self._provider_config.row.limits
        if (self._deployment.spec.max_items or limits.max_items) == 1:
            return "not tried", "it takes one text a call"
        both = (await self._embed(items=TEXTS)).vectors
        difference, swapped = _difference(both, self._full), _difference(both[::-1], self._full)
        if difference and not swapped:
            return "differs", "two texts in a batch get each other's vector"
        if difference:
            return "differs", f"two texts get other vectors in a batch than alone: {difference}"
        if not swapped:
            return "differs", "two texts get the same vector"
        return "ok", "two texts get the same vectors in a batch as alone"

    async def _base64(self) -> Verdict:
        row = self._provider_config.row.without_base64()
        numbers = msgspec.structs.replace(self._provider_config, row=row)
        if _encode_call(numbers, self._batch) == self._call:
            return "not tried", "its row does not ask for base64"
        result = await self._embed(provider_config=numbers)
        if difference := _difference(result.vectors, self._full[:1]):
            return "differs", f"the numbers are other vectors than the base64: {difference}"
        return "ok", "base64 and numbers are the same vectors"

    async def _dimensions(self) -> Verdict:
        model = self._deployment.model
        full, trained = model.dimensions or 0, model.trained_dimensions
        widths = [full // 2] if trained == "any" else [] if trained == "unknown" else trained
        width = min((each for each in widths if 0 < each < full), default=0)
        if not width:
            return "not tried", "no smaller width is known for which this model is trained"
        if self._is_same_call(dimensions=width):
            return "not tried", "its row cannot ask for dimensions; this gateway shortens"
        short = (await self._embed(dimensions=width)).vectors
        if short.shape[1] != width:
            return "differs", f"{short.shape[1]} dimensions, where {width} are asked for"
        start = vectors.shorten(self._full[:1], dimensions=width)
        if difference := _difference(vectors.normalise(short), start):
            return "differs", f"{width} dimensions are not the start of all {full}: {difference}"
        length = np.linalg.norm(short[0])
        return "ok", f"{width} dimensions are the start of all {full}, of length {length:.4g}"

    @property
    def _input_types(self) -> list[InputType]:
        """The input types that make a difference to the call."""
        words = self._batch.input_types
        if words is None:
            words = self._provider_config.row.fields.input_types
        types: list[InputType] = [each for each in words if not self._is_same_call(input_type=each)]
        # For `document`, a row may send what it sends without an input type.
        if "query" in types and "document" in words and "document" not in types:
            types.append("document")
        return types

    async def _try_input_types(self) -> Verdict:
        results: dict[InputType, Vectors] = {}
        for each in self._input_types:
            results[each] = (await self._embed(input_type=each)).vectors
        if not results:
            return "not tried", "its calls say no input type for this model"
        query, document = results.get("query"), results.get("document")
        if query is None or document is None:
            return "ok", f"it takes {', '.join(results)}"
        if not (difference := _difference(query, document)):
            return "differs", "query and document get the same vectors"
        return "ok", f"query and document differ ({difference}); it takes {', '.join(results)}"

    @property
    def _long_tokens(self) -> int:
        """The tokens of a text that is too long; 0 if no limit is known."""
        limit = self._deployment.model.max_item_tokens
        return limit + MARGIN_TOKENS if limit else 0

    async def _too_long(self) -> Verdict:
        limit, tokens = self._deployment.model.max_item_tokens, self._long_tokens
        if limit is None:
            return "not tried", "nobody says how long a text may be"
        if tokens > MAX_LONG_TOKENS:
            return (
                "not tried",
                f"a text of {tokens} tokens would cost too much if it were answered",
            )
        # `a` is one token in every vocabulary.
        result = await self._expect_refusal("item_too_long", items=["a " * tokens])
        if not isinstance(result, BatchResult):
            return result
        counts = "" if result.tokens is None else f" and counts {result.tokens}"
        answers = f"it answers a text of {tokens} tokens{counts}"
        if "none" in self._provider_config.row.fields.truncations:
            return "differs", f"{answers}, where {limit} is the limit and it is told not to cut"
        return "ok", f"{answers}; its row cannot tell it not to cut"

    async def _wrong_key(self) -> Verdict:
        config = self._provider_config
        if not config.keys:
            return "not tried", "no key is declared"
        # The start of a key may select the provider's address, so keep it.
        start = next((each for each in config.row.by_key if config.keys[0].startswith(each)), "")
        made_up = msgspec.structs.replace(config, keys=[start + MADE_UP_KEY])
        result = await self._expect_refusal("credentials", provider_config=made_up)
        return self._judge_answer(result, "it answers a made-up key")

    async def _unknown_model(self) -> Verdict:
        name = self._deployment.upstream_name + MADE_UP_SUFFIX
        if self._is_same_call(model=name):
            return "not tried", "its calls name no model"
        result = await self._expect_refusal("model", model=name)
        return self._judge_answer(result, f"it answers for a model {name!r}")

    # Helpers that make calls.

    @property
    def _full(self) -> Vectors:
        """The full-width vectors of `TEXTS`, each from a call of its own."""
        return np.concatenate([each.vectors for each in self._single_results])

    async def _embed(
        self, *, provider_config: ProviderConfig | None = None, **changes: Any
    ) -> BatchResult:
        batch = msgspec.structs.replace(self._batch, **changes)
        batch = msgspec.structs.replace(batch, tokens=[TOKENS] * len(batch.items))
        provider_config = provider_config or self._provider_config
        target = msgspec.structs.replace(self._target, provider=provider_config)
        result = await target.call(batch)
        vectors.check_vectors(result.vectors, items=len(batch.items), dimensions=None)
        return result

    async def _expect_refusal(self, kind: FailureKind, **changes: Any) -> Verdict | BatchResult:
        """Make a call that must be refused as `kind`; return its result if it is answered."""
        try:
            return await self._embed(**changes)
        except ProviderError as error:
            if not error.was_sent:
                return "not tried", f"no call can be made: {self._target.explain(error)}"
            if error.kind == kind:
                return "ok", f"refused as {kind}, HTTP {error.status}"
            if error.kind in TRANSIENT:
                return "not tried", self._target.explain(error)
            return "differs", f"refused as {error.kind}, not {kind}: {self._target.explain(error)}"

    def _judge_answer(self, result: Verdict | BatchResult, answers: str) -> Verdict:
        """Judge an answer to a call that only servers of one's own may answer."""
        if not isinstance(result, BatchResult):
            return result
        if self._provider_config.row.own_server:
            return "ok", f"{answers}, as a server of one's own may"
        return "differs", answers

    def _is_same_call(self, **changes: Any) -> bool:
        """Return whether `changes` make no difference to what is sent to the provider."""
        try:
            batch = msgspec.structs.replace(self._batch, **changes)
            return _encode_call(self._provider_config, batch) == self._call
        except InvalidRequest:
            return True


def _encode_call(provider_config: ProviderConfig, batch: Batch) -> object:
    row = provider_config.row
    return provider.load_object(row.adapter)(row, provider_config.values).encode(batch)


def _difference(actual: Vectors, expected: Vectors) -> str:
    """Return how two matrices of vectors differ, or an empty string if they agree."""
    return canaries.compare(actual, expected, min_cosine=MIN_COSINE).difference
