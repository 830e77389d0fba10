"""The Python client of Embedway, an OpenAI-compatible embeddings gateway.

`SDK` is the entry. `embedway_sdk.errors` shows every error, and `embedway_sdk.types` what the
operations take and give.
"""

from embedway_sdk.client import Hooks
from embedway_sdk.embeddings import EmbedOptions
from embedway_sdk.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConnectionError,
    EmbedwayError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SpaceMismatchError,
    TimeoutError,
)
from embedway_sdk.many import EmbedMany, Progress
from embedway_sdk.pages import Page
from embedway_sdk.retries import BackoffStrategy, RetryConfig
from embedway_sdk.sdk import SDK
from embedway_sdk.types import Budget, RateLimit
from embedway_sdk.vectors import Embedding, EmbeddingsResponse, Usage

__all__ = [
    "SDK",
    "APIError",
    "AuthenticationError",
    "BackoffStrategy",
    "BadRequestError",
    "Budget",
    "ConnectionError",
    "EmbedMany",
    "EmbedOptions",
    "Embedding",
    "EmbeddingsResponse",
    "EmbedwayError",
    "Hooks",
    "InvalidResponseError",
    "RateLimit",
    "NotFoundError",
    "Page",
    "PermissionDeniedError",
    "Progress",
    "RateLimitError",
    "RetryConfig",
    "ServerError",
    "SpaceMismatchError",
    "TimeoutError",
    "Usage",
]
