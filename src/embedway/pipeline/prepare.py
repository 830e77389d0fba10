"""What is sent for a request: its items counted, decoded, fitted, and in the words of a batch."""

from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Model, Served
from embedway.core.batch import Abilities, Batch, Items
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest
from embedway.limits import tokens as token_limits
from embedway.ports.engine import Codec, Tokenizer

PART_CHARACTERS = 2**20
"""Tokenised at a time: what is over a limit is refused before there is more of it."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request as one batch, before it is cut."""

    batch: Batch
    exact: bool
    """Whether its tokens are counted as the model counts them, not estimated."""
    shorten_to: int | None
    """What the vectors are to be shortened to here."""


class Preparation:
    """Prepares requests; one for all of them."""

    def __init__(self, *, tokenizers: Mapping[str, Tokenizer], cl100k: Codec) -> None:
        """Args name what it needs; `tokenizers` of models that run here, by model id."""
        self._tokenizers = tokenizers
        self._cl100k = cl100k

    async def prepared(
        self, request: EmbedRequest, candidate: Served, abilities: Abilities
    ) -> Prepared:
        """The batch that asks `candidate` for what `request` asks for.

        Raises:
            InvalidRequest: Token ids that are of no text, an item or a request with too many
                tokens, or something that this candidate cannot be asked.
            Overloaded: Too much is waiting.
        """
        model, deployment = candidate.model, candidate.deployment
        _check(request, candidate, abilities)
        items, tokens, exact = await self._items(request, candidate, abilities)
        asks = abilities.dimensions
        dimensions = request.dimensions if asks else None
        if not asks and not _can_shorten(model, request.dimensions):
            raise InvalidRequest(
                f"'dimensions' is {request.dimensions}, but {deployment.provider} cannot be asked "
                f"for it, and {model.id!r} is not known to be trained for vectors cut to that. "
                "Leave it out, or declare the model with its dimensions and trained_dimensions.",
                param="dimensions",
            )
        batch = Batch(
            model=candidate.name,
            items=items,
            tokens=tokens,
            dimensions=dimensions,
            width=dimensions or model.dimensions,
            input_type=request.input_type,
            truncate=request.truncate,
            user=request.user,
            extra=request.extra_body,
        )
        return Prepared(batch=batch, exact=exact, shorten_to=None if asks else request.dimensions)

    async def _items(
        self, request: EmbedRequest, candidate: Served, abilities: Abilities
    ) -> tuple[Items, list[int], bool]:
        """What is sent of each item, its tokens, and whether these are exact."""
        model, items = candidate.model, request.items
        if isinstance(items[0], list):
            ids = cast("list[list[int]]", items)
            if model.token_ids == "native" or (
                model.tokenizer == "cl100k_base" and abilities.token_ids
            ):
                fitting = token_limits.fit(ids, model=model, truncate=request.truncate)
                return fitting, [len(item) for item in fitting], True
            items = await self._cl100k.decode(ids)
        texts = cast("list[str]", items)
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


def _can_shorten(model: Model, to: int | None) -> bool:
    return to is None or (model.trained_for(to) and to <= (model.dimensions or 0))


def _check(request: EmbedRequest, candidate: Served, abilities: Abilities) -> None:
    model, provider = candidate.model, candidate.deployment.provider
    told = request.truncate in abilities.truncations
    if request.extra_body and provider == LOCAL:
        name = next(iter(request.extra_body))
        raise InvalidRequest(
            f"The field {name!r} is not known, and the model runs here: there is no provider to "
            "hand it to. Take it out.",
            param=name,
        )
    counted = model.tokenizer == "cl100k_base"
    if (
        request.truncate != "none"
        and model.tokenizer != "own"
        and not (abilities.token_ids if counted else told)
    ):
        raise InvalidRequest(
            f"'truncate' is {request.truncate!r}, which {provider} cannot be asked for. Leave it "
            "out and shorten what is too long.",
            param="truncate",
        )
    if (
        model.token_ids == "native"
        and not abilities.token_ids
        and not isinstance(request.items[0], str)
    ):
        raise InvalidRequest(
            f"{provider} takes texts, not token ids. Send 'input' as a string or a list of "
            "strings.",
            param="input",
        )


def _parts(texts: list[str]) -> Iterator[list[str]]:
    """`texts` in order, in parts that are safe to hold as tokens, whatever they turn out to be."""
    start = characters = 0
    for end, text in enumerate(texts):
        if characters and characters + len(text) > PART_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]
