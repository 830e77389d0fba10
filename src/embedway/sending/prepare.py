"""Makes a batch of a request: its items decoded, counted and fitted to the model's limits."""

from collections.abc import Iterator, Mapping
from typing import cast

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, EngineAbilities, Items
from embedway.core.request import EmbedRequest
from embedway.tokenizing import truncate as token_limits
from embedway.tokenizing.tokenizer import TokenCodec, Tokenizer

PART_CHARACTERS = 2**20
"""Tokenise this much at a time: what is over a limit is refused before there is more of it."""


TokenCounts = dict[tuple[object, ...], tuple[Items, list[int], bool]]
"""The counts of one request, by what they depend on: what is sent of each item, its tokens, and
whether these are exact."""


class InputPreparer:
    """Prepares requests; one for all of them."""

    def __init__(self, *, tokenizers: Mapping[str, Tokenizer], cl100k: TokenCodec) -> None:
        """Take the tokenizers.

        Args:
            tokenizers: Those of models that run here, by model id.
            cl100k: Counts for all other models, exactly or as an estimate.
        """
        self._tokenizers = tokenizers
        self._cl100k = cl100k

    async def prepare(
        self,
        request: EmbedRequest,
        served: Deployment,
        abilities: EngineAbilities,
        counts: TokenCounts,
    ) -> Batch:
        """Make the batch that asks a deployment for all items of a request.

        Args:
            request: What the client asks for.
            served: The deployment; it can be asked for that.
            abilities: What its engine can be asked for.
            counts: What was counted for other deployments of the same request; is added to.

        Raises:
            InvalidRequest: Token ids that are of no text, or an item or a request with too many
                tokens.
            ServiceOverloaded: Too much is waiting.
        """
        model, dimensions = served.model, request.dimensions
        own = model.id if model.tokenizer == "own" else ""
        limits = (model.max_item_tokens, model.max_request_tokens)
        input_type = served.effective_input_type(request.input_type, abilities)
        prompt = served.prompt(input_type)
        key = (model.tokenizer, own, model.token_ids, abilities.token_ids, prompt, *limits)
        if key not in counts:
            counts[key] = await self._items(request, served, abilities, prompt)
        items, tokens, exact = counts[key]
        if dimensions is not None and model.can_shorten(dimensions):
            dimensions = None  # all of a space are shortened here, and so alike
        # Who ignores `dimensions` that nobody knows the model to have did not fail: the client
        # asked for what is not to be had, and is told so once the answer is there.
        asked = dimensions is not None and model.trained_dimensions == "unknown"
        return Batch(
            model=served.upstream_name,
            base_model=served.spec.base_model,
            items=items,
            tokens=tokens,
            exact=exact,
            dimensions=dimensions,
            width=None if asked else dimensions or model.dimensions,
            normalised=bool(model.normalised),
            input_type=served.forwarded_input_type(input_type),
            input_types=served.spec.input_types,
            truncate=request.truncate,
            user=request.user,
            extra={**served.spec.parameters, **request.extra_body},
            fixed=frozenset(served.spec.parameters),
        )

    async def _items(
        self, request: EmbedRequest, served: Deployment, abilities: EngineAbilities, prompt: str
    ) -> tuple[Items, list[int], bool]:
        """What is sent of each item, its tokens, and whether these are exact."""
        model, items = served.model, request.items
        if isinstance(items[0], list):
            ids = cast("list[list[int]]", items)
            if model.token_ids == "native" or (
                model.tokenizer == "cl100k_base" and abilities.token_ids and not prompt
            ):
                fitting = token_limits.fit_to_limits(ids, model=model, truncate=request.truncate)
                return fitting, [len(item) for item in fitting], True
            items = await self._cl100k.decode(ids)
        texts = cast("list[str]", items)
        if prompt:
            texts = [prompt + text for text in texts]
        if model.tokenizer == "unknown":
            counts = [
                len(item) for part in _parts(texts) for item in await self._cl100k.encode(part)
            ]
            return texts, counts, False
        own = model.tokenizer == "own"
        tokenizer = self._tokenizers[model.id] if own else self._cl100k
        fitting: list[list[int]] = []
        cut = own
        for part in _parts(texts):
            tokenised = await tokenizer.encode(part)
            fitted = token_limits.fit_to_limits(
                [*fitting, *tokenised], model=model, truncate=request.truncate
            )
            cut = cut or fitted[len(fitting) :] != tokenised
            fitting = fitted
        # Texts that fit are sent as they are; what was cut exists as token ids only.
        return (fitting if cut else texts), [len(item) for item in fitting], True


def _parts(texts: list[str]) -> Iterator[list[str]]:
    """`texts` in order, in parts that are safe to hold as tokens, whatever they turn out to be."""
    start = characters = 0
    for end, text in enumerate(texts):
        if characters and characters + len(text) > PART_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]
