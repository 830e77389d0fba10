"""What is sent for a request: its items counted, decoded, fitted, and in the words of a batch."""

from collections.abc import Iterator, Mapping
from typing import cast

from embedway.catalog.model import Served
from embedway.core.batch import Abilities, Batch, Items
from embedway.core.request import EmbedRequest
from embedway.limits import tokens as token_limits
from embedway.ports.engine import Codec, Tokenizer
from embedway.routing.abilities import can_shorten, effective_input_type

PART_CHARACTERS = 2**20
"""Tokenised at a time: what is over a limit is refused before there is more of it."""


Counted = dict[tuple[object, ...], tuple[Items, list[int], bool]]
"""Of one request, by what the counts depend on: what is sent of each item, its tokens, and whether
these are exact."""


class Preparation:
    """Prepares requests; one for all of them."""

    def __init__(self, *, tokenizers: Mapping[str, Tokenizer], cl100k: Codec) -> None:
        """Args name what it needs; `tokenizers` of models that run here, by model id."""
        self._tokenizers = tokenizers
        self._cl100k = cl100k

    async def prepared(
        self, request: EmbedRequest, served: Served, abilities: Abilities, counted: Counted
    ) -> Batch:
        """The batch that asks `served` for what `request` asks for.

        Args:
            request: What is asked for.
            served: Who is asked; can be asked for that.
            abilities: Of the engine that embeds there.
            counted: What was counted for others who are asked for the same; is added to.

        Raises:
            InvalidRequest: Token ids that are of no text, or an item or a request with too many
                tokens.
            Overloaded: Too much is waiting.
        """
        model, dimensions = served.model, request.dimensions
        own = model.id if model.tokenizer == "own" else ""
        limits = (model.max_item_tokens, model.max_request_tokens)
        input_type = effective_input_type(served, request.input_type, abilities)
        prompt = served.prompt(input_type)
        key = (model.tokenizer, own, model.token_ids, abilities.token_ids, prompt, *limits)
        if key not in counted:
            counted[key] = await self._items(request, served, abilities, prompt)
        items, tokens, exact = counted[key]
        if dimensions is not None and can_shorten(model, dimensions):
            dimensions = None  # all of a space are shortened here, and so alike
        # Who ignores `dimensions` that nobody knows the model to have did not fail: the client
        # asked for what is not to be had, and is told so once the answer is there.
        asked = dimensions is not None and model.trained_dimensions == "unknown"
        return Batch(
            model=served.name,
            base_model=served.deployment.base_model,
            items=items,
            tokens=tokens,
            exact=exact,
            dimensions=dimensions,
            width=None if asked else dimensions or model.dimensions,
            normalised=bool(model.normalised),
            input_type=served.forwarded(input_type),
            input_types=served.deployment.input_types,
            truncate=request.truncate,
            user=request.user,
            extra={**served.deployment.parameters, **request.extra_body},
            fixed=frozenset(served.deployment.parameters),
        )

    async def _items(
        self, request: EmbedRequest, served: Served, abilities: Abilities, prompt: str
    ) -> tuple[Items, list[int], bool]:
        """What is sent of each item, its tokens, and whether these are exact."""
        model, items = served.model, request.items
        if isinstance(items[0], list):
            ids = cast("list[list[int]]", items)
            if model.token_ids == "native" or (
                model.tokenizer == "cl100k_base" and abilities.token_ids and not prompt
            ):
                fitting = token_limits.fit(ids, model=model, truncate=request.truncate)
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
            fitted = token_limits.fit(
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
