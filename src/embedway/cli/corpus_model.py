"""Opens the model that embeds a corpus: of a running gateway, or without one.

A model without a gateway is the built-in one, or a provider's, which is called with the provider's
own key. The usage of a gateway does not include what it embeds.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import msgspec

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.cli import remote
from embedway.cli.gateway_client import SAMPLE, find_gateway
from embedway.cli.setup import Setup
from embedway.cli.terminal import LIST_MODELS, fail
from embedway.cli.trials import Target
from embedway.config.engines import load_tokenizer
from embedway.core.errors import UpstreamTimeout
from embedway.core.provider_error import ProviderError
from embedway.corpora.chunks import TokenOffsets
from embedway.corpora.embedding import Embed, EmbeddingResult
from embedway.corpora.options import ModelOptions
from embedway.pipeline.dry_run import DryRun
from embedway.providers.adapter import ProtocolFields, ProviderRow
from embedway.providers.provider_config import ProviderConfig
from embedway.sending.sender import Sender
from embedway.tokenizing.cl100k import token_offsets

GATEWAY = ProviderRow(
    name="gateway",
    title="A running Embedway gateway",
    base_url="",
    fields=ProtocolFields(
        dimensions="dimensions",
        base64=("encoding_format", "base64"),
        truncate="truncate",
        truncations={"none": "none", "end": "end", "start": "start"},
    ),
    source="docs/api.md",
)
"""How a running gateway is called: as any provider with OpenAI's protocol."""
LOCAL_PARALLEL = 4
"""How many requests to send at a time to a model in this process."""
REMOTE_PARALLEL = 16


class CorpusModel(msgspec.Struct, frozen=True, kw_only=True):
    """An open model."""

    id: str
    space: str
    dimensions: int | None
    """The width of its vectors; None if it is not known before the first."""
    price_per_mtok_usd: Decimal | None
    parallel: int
    """How many requests to send at a time."""
    embed: Embed
    token_offsets: TokenOffsets
    """Finds the tokens of a text."""


@asynccontextmanager
async def open_model(setup: Setup, options: ModelOptions) -> AsyncGenerator[CorpusModel]:
    """Open a model. Exits with status 1 if there is no such model."""
    if options.url is not None:
        gateway = find_gateway(options.url, setup)
        plan = gateway.fetch(
            "/v1/embeddings?dry_run=true", DryRun, body=msgspec.json.encode(_fields(options))
        )
        target = _target_at(gateway.url, gateway.key, plan, options, setup)
        price = plan.candidates[0].price_per_mtok_usd
        async with remote.open_sender(setup.settings, [target.provider]) as sender:
            yield CorpusModel(
                id=plan.candidates[0].id,
                space=plan.space,
                # The name of a space ends with the width of its vectors, 0 if that is not known.
                dimensions=options.dimensions or int(plan.space.rpartition("/")[2]) or None,
                price_per_mtok_usd=None if price is None else Decimal(str(price)),
                parallel=REMOTE_PARALLEL,
                embed=_Embedder(sender, target, options),
                token_offsets=token_offsets,
            )
        return
    if local := setup.find_local_model(options.name):
        deployment = next(
            each for each in setup.offered_by([]).deployments() if each.model.id == local.id
        )
        target = Target(
            ProviderConfig(name=LOCAL, row=GATEWAY), deployment, setup.settings.request_timeout_s
        )
        async with remote.open_sender(setup.settings, [], models=[local]) as sender:
            tokenizer = load_tokenizer(local, setup.settings)
            yield _model(target, options, _Embedder(sender, target, options), tokenizer.offsets)
        return
    # In a thread, because it asks servers on this machine in an event loop of its own.
    catalog = await asyncio.to_thread(lambda: setup.catalog)
    resolved = catalog.find(options.name)
    if resolved is None:
        fail(catalog.unknown_message(options.name, otherwise=LIST_MODELS))
    target = remote.choose_target(options.name, resolved, setup)
    async with remote.open_sender(setup.settings, [target.provider]) as sender:
        yield _model(target, options, _Embedder(sender, target, options), token_offsets)


def _model(
    target: Target, options: ModelOptions, embed: Embed, offsets: TokenOffsets
) -> CorpusModel:
    deployment = target.deployment
    width = options.dimensions or deployment.model.dimensions
    return CorpusModel(
        id=deployment.id,
        space=str(deployment.space(width=width, input_type=options.input_type)),
        dimensions=width,
        price_per_mtok_usd=deployment.spec.price_per_mtok_usd,
        parallel=LOCAL_PARALLEL if deployment.provider == LOCAL else REMOTE_PARALLEL,
        embed=embed,
        token_offsets=offsets,
    )


def _target_at(url: str, key: str, plan: DryRun, options: ModelOptions, setup: Setup) -> Target:
    """Return the model of a running gateway as if the gateway were a provider."""
    if not plan.candidates:
        reasons = "; ".join(each.reason for each in (*plan.unproven, *plan.removed))
        fail(f"The gateway at {url} cannot serve {options.name!r} now: {reasons}.")
    spec = DeploymentSpec(
        provider=GATEWAY.name, name=options.name, parameters={"input_type": options.input_type}
    )
    model = Model(
        id=options.name,
        owned_by=GATEWAY.name,
        trained_dimensions="any",  # the gateway decides
        deployments=[spec],
    )
    config = ProviderConfig(
        name=GATEWAY.name, row=GATEWAY, keys=[key], base_url=f"{url}/v1", models=[model]
    )
    return Target(config, Deployment(model, spec), setup.settings.request_timeout_s)


def _fields(options: ModelOptions, texts: Sequence[str] = (SAMPLE,)) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": options.name,
        "input": list(texts),
        "truncate": options.truncate,
        "input_type": options.input_type,
    }
    if options.dimensions is not None:
        fields["dimensions"] = options.dimensions
    return fields


class _Embedder:
    """Embeds texts by a sender."""

    def __init__(self, sender: Sender, target: Target, options: ModelOptions) -> None:
        self._sender = sender
        self._target = target
        self._options = options

    async def __call__(self, texts: Sequence[str]) -> EmbeddingResult:
        """Return the vectors of texts; raise an `EmbedwayError` if that is not possible now."""
        deployment, seconds = self._target.deployment, self._target.timeout_s
        fields = _fields(self._options, texts) | {"model": deployment.id}
        try:
            attempt, vectors = await remote.send_texts(
                self._sender, deployment, fields, timeout_s=seconds
            )
        except ProviderError as error:
            raise error.client_error(model=deployment.model.id) from None
        except TimeoutError:
            raise UpstreamTimeout(
                f"{deployment.provider} did not answer within {seconds:g} s."
            ) from None
        return EmbeddingResult(
            vectors=vectors,
            tokens=attempt.tokens,
            cost_nano_usd=deployment.cost(attempt.tokens),
        )
