"""Makes usage records fast, as a year of many customers would leave them.

The frequency of end users, and with them of keys, models and providers, follows a power law, like
that of words. An end user always has the same key, a key mostly uses one model, and a model mostly
one provider.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embedway.storage.tables import usage

COLUMNS = tuple(str(each.name) for each in usage.columns)
AT_ONCE = 100_000
PROJECTS, KEYS, MODELS, PROVIDERS, END_USERS = 8, 40, 12, 5, 10_000
EXPONENT = 1.1
NO_END_USER = 0.2
"""The share of keys whose requests name no end user."""
FAILED = 0.02
NANO_USD_PER_TOKEN = 20
MODELS_OF_A_KEY = np.array([0.75, 0.95, 1.0])
PROVIDERS_OF_A_MODEL = np.array([0.85, 0.98, 1.0])


def make_records(
    count: int, *, start_ms: int, end_ms: int, seed: int = 1
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yield chunks of `count` records in the order of time, from `start_ms` to `end_ms`.

    Each record is a tuple in the order of `COLUMNS`.
    """
    random = np.random.default_rng(seed)
    chances = np.arange(1, END_USERS + 1) ** -EXPONENT
    frequent = np.cumsum(chances / chances.sum())
    key_of = random.permutation(np.arange(END_USERS) % KEYS)
    step_ms = (end_ms - start_ms) / count
    for first in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - first)
        user = np.searchsorted(frequent, random.random(size))
        key = key_of[np.minimum(user, END_USERS - 1)]
        model = (key * 5 + np.searchsorted(MODELS_OF_A_KEY, random.random(size))) % MODELS
        provider = (model + np.searchsorted(PROVIDERS_OF_A_MODEL, random.random(size))) % PROVIDERS
        answered = random.random(size) >= FAILED
        items = np.where(answered, random.geometric(0.2, size), 1)
        tokens = np.where(answered, items * random.integers(5, 400, size), 0)
        cost = tokens * NANO_USD_PER_TOKEN
        at_ms = start_ms + ((first + np.arange(size) + random.random(size)) * step_ms).astype(int)
        ids = random.bytes(12 * size).hex()
        end_user = [
            None if of < KEYS * NO_END_USER else f"user_{who:05d}"
            for who, of in zip(user.tolist(), key.tolist(), strict=True)
        ]
        models = [f"text-embedding-{of}" for of in model.tolist()]
        columns: dict[str, Any] = {
            "id": [f"embd_{ids[at : at + 24]}" for at in range(0, 24 * size, 24)],
            "line": [0] * size,
            "at_ms": at_ms.tolist(),
            "request_id": [f"req_{ids[at : at + 24]}" for at in range(0, 24 * size, 24)],
            "project_id": [f"proj_{of:016x}" for of in (key % PROJECTS).tolist()],
            "key_id": [f"key_{of:016x}" for of in key.tolist()],
            "on_behalf_of": [None] * size,
            "user": end_user,
            "end_user": [each or "" for each in end_user],
            "metadata": ["{}"] * size,
            "model": models,
            "asked": models,
            "provider": [f"provider-{of}" for of in provider.tolist()],
            "items": items.tolist(),
            "tokens": tokens.tolist(),
            "cached_tokens": [0] * size,
            "estimated": [False] * size,
            "priced": [True] * size,
            "cost_nano_usd": cost.tolist(),
            "upstream_cost_nano_usd": cost.tolist(),
            "calls": [1] * size,
            "failed_calls": (~answered).astype(int).tolist(),
            "latency_us": random.integers(2_000, 500_000, size).tolist(),
            "status": np.where(answered, 200, 502).tolist(),
        }
        yield list(zip(*(columns[name] for name in COLUMNS), strict=True))
