"""Writes an `embedway.toml` with every setting as a comment, from the settings' docstrings."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, cast

from embedway.config.issuers import IssuerSettings
from embedway.config.models import PolicySettings
from embedway.config.schema import SettingsSection
from embedway.config.sections import ModelSettings, ProviderSettings
from embedway.config.settings import SECTIONS, Settings
from embedway.config.webhooks import WebhookSettings

WIDTH = 98
HEADER = """
The settings of this gateway. Nothing here is in force yet: every line is a comment. To set one,
remove the '# ' before it, and before the [section] that it is in. Lines that begin with '##'
explain. Values are the defaults, or examples where there is no default. Then run
`embedway config reload`.
"""
EXAMPLES: Mapping[type[SettingsSection], Mapping[str, Any]] = {
    Settings: {
        "database_url": "postgresql://embedway:password@db.internal/embedway",
        "redis_url": "redis://:password@redis.internal:6379/0",
        "file_store": "s3://bucket/embedway",
        "threads": 4,
        "token_audiences": ["embedway"],
        "cors_origins": ["https://app.example.com"],
        "auto": "text-embedding-3-small",
        "otlp_endpoint": "http://localhost:4318",
    },
    ProviderSettings: {
        "kind": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "$OPENAI_API_KEY",
        "api_keys": ["$FIRST_KEY", "$SECOND_KEY"],
        "api_key_file": "/run/secrets/openai",
        "api_key_files": ["/run/secrets/first", "/run/secrets/second"],
        "max_items": 512,
        "max_batch_tokens": 100_000,
        "max_in_flight": 32,
        "base64": True,
        "catalog": True,
        "eu_native": False,
        "hq_country": "US",
        "region": "eu",
        "zero_data_retention": False,
    },
    ModelSettings: {
        "id": "my-model",
        "name": "my-model-v2",
        "base_model": "text-embedding-3-small",
        "dimensions": 1536,
        "native_dimensions": 3072,
        "trained_dimensions": [256, 512],
        "max_item_tokens": 8192,
        "pooling": "mean",
        "normalised": True,
        "same_space_as": "text-embedding-3-small",
        "prompts": {"query": "query: ", "document": "passage: "},
        "licence": "Apache-2.0",
        "price_per_mtok_usd": "0.02",
        "batch_price_factor": "0.5",
        "price_date": "2026-11-28",
        "quantisation": "fp16",
        "region": "eu",
        "tokenizer": "cl100k_base",
        "token_ids": "cl100k_base",
        "max_items": 512,
        "max_batch_tokens": 100_000,
        "released": "2026-01-15",
        "deprecated": "2027-01-15",
        "retires": "2028-01-15",
        "successor": "my-next-model",
        "source": "https://example.com/deprecations",
        "parameters": {"user_tier": "standard"},
        "input_types": {"query": "search_query", "document": "search_document"},
        "apply_prompts": True,
    },
    PolicySettings: {
        "order": ["openai", "azure"],
        "weights": {"openai": 3, "azure": 1},
        "only": ["openai", "azure"],
        "reference": "openai",
        "canaries": "text-embedding-3-small.json",
    },
    IssuerSettings: {
        "issuer": "https://login.example.com",
        "audience": ["embedway"],
        "jwks_url": "https://login.example.com/keys",
        "project": "proj_default",
        "scopes_claim": "scope",
    },
    WebhookSettings: {
        "url": "https://ops.example.com/embedway",
        "secret": "$OPS_WEBHOOK_SECRET",
    },
}
"""A value of each setting that has no default or an empty one."""
EXPLAINED = frozenset({"pepper", "project_claim"})
"""The settings without a line: an example of a pepper would be known to all, and a claim cannot
name the project of an issuer that has one."""


def write_template() -> str:
    """Return the settings file."""
    lines = [*_explain(HEADER), "", *_settings(Settings, without=SECTIONS)]
    for header, meaning, schema in (
        ("[aliases]", "A name of your own for a model, or for several deployments of one.", None),
        ("[providers.openai-eu]", ProviderSettings.__doc__, ProviderSettings),
        ("[[providers.openai-eu.models]]", ModelSettings.__doc__, ModelSettings),
        ('[models."text-embedding-3-small"]', PolicySettings.__doc__, PolicySettings),
        ("[issuers.corp]", IssuerSettings.__doc__, IssuerSettings),
        ("[webhooks.ops]", WebhookSettings.__doc__, WebhookSettings),
    ):
        lines += ["", *_explain(meaning or ""), f"# {header}"]
        if schema is None:
            lines += ['# docs = "text-embedding-3-small"']
        else:
            lines += _settings(schema, without={"models": ""})
    return "\n".join(lines) + "\n"


def _settings(schema: type[SettingsSection], *, without: Mapping[str, object]) -> Iterator[str]:
    """Yield the meaning of each setting of a section, and the line that sets it."""
    examples, at_start = EXAMPLES[schema], schema is Settings and Settings.fixed_at_start()
    for name, field in schema.model_fields.items():
        if name in without:
            continue
        meaning = schema.meanings()[name]
        if name in (at_start or ()):
            meaning += " Takes effect at the next start."
        if name in EXPLAINED:
            yield from ("", *_explain(f"{name}: {meaning}"))
            continue
        value = examples.get(name, field.get_default(call_default_factory=True))
        yield from ("", *_explain(meaning), f"# {name} = {_toml(value)}")


def _explain(text: str) -> Iterator[str]:
    yield from (f"## {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH - 3))


def _toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, Any]", value)
        return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in entries.items())} }}"
    return json.dumps(value, default=str, ensure_ascii=False)
