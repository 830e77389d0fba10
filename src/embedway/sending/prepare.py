"""Makes a batch from a request: decodes its items, counts them and fits them to the model."""

from collections.abc import Iterator, Mapping
from typing import cast

from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch, EngineAbilities, Items
from embedway.core.request import EmbedRequest
from embedway.tokenizing import truncate as token_limits
from embedway.tokenizing.tokenizer import TokenCodec, Tokenizer

PART_CHARACTERS = 2**20
"""Tokenise this much at a time, so that an excess is refused before more is tokenised."""

TokenCounts = dict[tuple[object, ...], tuple[Items, list[int], bool]]
"""The counts of one request, by all that they depend on: the items to send, the tokens of each, and
whether these are exact."""


class InputPreparer:
    """Prepares requests; one for the process."""

    def __init__(self, *, tokenizers: Mapping[str, Tokenizer], cl100k: TokenCodec) -> None:
        """Store the tokenizers.

        Args:
            tokenizers: Those of local models, by model id.
            cl100k: Counts for all other models, exactly or as an estimate.
        """
        self._tokenizers = tokenizers
        self._cl100k = cl100k

    async def prepare(
        self,
        request: EmbedRequest,
        deployment: Deployment,
        abilities: EngineAbilities,
        counts: TokenCounts,
        tenant: str,
    ) -> Batch:
        """Make the batch of all items of a request for one deployment.

        Args:
            request: The client's request.
            deployment: A deployment that passed the filters for this request.
            abilities: What its engine can be asked for.
            counts: The counts made for other deployments of the request; new ones are added.
            tenant: Who sent it.

        Raises:
            InvalidRequest: Token ids do not decode to text, or there are too many tokens in an
                item or in the request.
            ServiceOverloaded: Too much is waiting to be counted.
        """
        model, dimensions = deployment.model, request.dimensions
        own = model.id if model.tokenizer == "own" else ""
        limits = (model.max_item_tokens, model.max_request_tokens)
        input_type = deployment.effective_input_type(request.input_type, abilities)
        prompt = deployment.prompt(input_type)
        key = (model.tokenizer, own, model.token_ids, abilities.token_ids, prompt, *limits)
        if key not in counts:
            counts[key] = await self._items(request, deployment, abilities, prompt)
        items, tokens, exact = counts[key]
        if dimensions is not None and model.can_shorten(dimensions):
            dimensions = None  # shortened here, so that all deployments of a space do it alike
        # A provider that ignores `dimensions` has not failed if the model's widths are unknown.
        # `finish` then tells the client.
        is_unsure = dimensions is not None and model.trained_dimensions == "unknown"
        return Batch(
            model=deployment.upstream_name,
            base_model=deployment.spec.base_model,
            items=items,
            tokens=tokens,
            exact=exact,
            dimensions=dimensions,
            width=None if is_unsure else dimensions or model.dimensions,
            normalised=bool(model.normalised),
            input_type=deployment.forwarded_input_type(input_type),
            input_types=deployment.spec.input_types,
            truncate=request.truncate,
            user=request.user,
            tenant=tenant,
            extra={**deployment.spec.parameters, **request.extra_body},
            fixed=frozenset(deployment.spec.parameters),
        )

    async def _items(
        self, request: EmbedRequest, deployment: Deployment, abilities: EngineAbilities, prompt: str
    ) -> tuple[Items, list[int], bool]:
        """Return the items to send, the tokens of each, and whether these are exact."""
        model, items = deployment.model, request.items
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
        is_cut = own
        for part in _parts(texts):
            tokenised = await tokenizer.encode(part)
            fitted = token_limits.fit_to_limits(
                [*fitting, *tokenised], model=model, truncate=request.truncate
            )
            is_cut = is_cut or fitted[len(fitting) :] != tokenised
            fitting = fitted
        # Texts that fit are sent unchanged; cut ones exist only as token ids.
        return (fitting if is_cut else texts), [len(item) for item in fitting], True


def _parts(texts: list[str]) -> Iterator[list[str]]:
    """Yield `texts` in parts of about `PART_CHARACTERS`, which bounds the tokens in memory."""
    start = characters = 0
    for end, text in enumerate(texts):
        if characters and characters + len(text) > PART_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]
