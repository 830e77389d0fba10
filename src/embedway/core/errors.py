"""Defines every error that a client can receive, as one tree.

Each class sets the status, type and code of a row in the API's error table. `wire.error` turns an
error into bytes.

    EmbedwayError
    ├── InvalidRequest ............. 400
    │   ├── ContextLengthExceeded .. 400  one item is too long for the model
    │   └── TooManyTokens .......... 400  all items together are too long
    ├── InvalidKey ................. 401
    ├── Forbidden .................. 403
    │   └── ModelForbidden ......... 403
    ├── UnknownModel ............... 404
    │   └── ModelRetired ........... 404
    ├── NotFound ................... 404
    ├── MethodNotAllowed ........... 405
    ├── SlowRequest ................ 408
    ├── BodyTooLarge ............... 413
    ├── UnsupportedEncoding ........ 415
    ├── RateLimitExceeded .......... 429  too many requests
    │   └── TokenRateLimitExceeded . 429  too many tokens
    ├── BudgetExceeded ............. 429
    ├── InternalError .............. 500  a defect of this gateway
    ├── UpstreamError .............. 502  an engine or provider failed
    │   ├── UpstreamAccountError ... 502  a provider refuses the gateway's key or account
    │   └── UpstreamTimeout ........ 504
    ├── ServiceOverloaded .......... 503
    ├── FilesUnavailable ........... 503
    └── StorageUnavailable ......... 503
        ├── CommitInDoubt .......... 503  the database may have committed
        └── UsageInDoubt ........... 503  the request may have been charged
"""

import json
import math
import random
from collections.abc import Mapping
from copy import copy
from itertools import islice
from typing import ClassVar, Literal, Self

SHOWN_CHARACTERS = 60
MODELS_LISTED = "GET /v1/models lists those there are."
"""The end of a message about an unknown model. The command line replaces it with its own."""
LEAST_WAIT_S = 0.25
"""The shortest wait to suggest, even if a provider allows an immediate retry."""
MINUTE_S = 60.0
LONGEST_WAIT_S = 59.999
"""The longest wait to suggest for a limit per second or minute, because version 4 of OpenAI's
JavaScript client and Vercel's AI SDK ignore 60 s or more. The missing millisecond passes on the way
to the client."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def quote_value(value: object) -> str:
    """Return a value for a message: as JSON, cut after `SHOWN_CHARACTERS`."""
    try:
        # Encode piece by piece: a value may be megabytes long, and its start is enough.
        text = "".join(islice(_JSON.iterencode(value), SHOWN_CHARACTERS + 1))
    except RecursionError:
        return "too deeply nested"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def quote_text(text: str) -> str:
    """Return a name or an id for a message: in single quotes, cut after `SHOWN_CHARACTERS`."""
    cut = f"{text[:SHOWN_CHARACTERS]}..." if len(text) > SHOWN_CHARACTERS else text
    return repr(cut)


Remedy = Literal["list projects", "list keys", "create a key"]
"""An action that helps after an error. The command line adds its command for it to the message."""


class EmbedwayError(Exception):
    """The root of all errors that clients receive.

    Args:
        message: What is wrong, with the value, and what to do. Never holds a secret or an input.
        param: The request field at fault, if there is one.
        headers: Extra response headers, such as `Retry-After`.
        remedy: The action that helps, if the command line has a command for it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    reason: ClassVar[str] = "server_error"
    """The word for this kind of error in logs, metrics and reports. It is `code`, unless that is
    null or shared with another kind."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        remedy: Remedy | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.remedy: Remedy | None = remedy
        self.headers: Mapping[str, str] = headers or {}
        self.key_id = ""
        """The key that sent the request, if known, for the log. Clients do not see it."""
        self.project_id = ""
        """The project of that key."""

    def __init_subclass__(cls) -> None:
        if "reason" not in cls.__dict__:
            cls.reason = cls.code or cls.type

    def copy(self) -> Self:
        """Return a copy to raise to another waiting request."""
        return copy(self)

    def attribute(self, *, key_id: str, project_id: str | None) -> None:
        """Note whose request failed, for the log and the refusal counts."""
        self.key_id = key_id
        self.project_id = project_id or ""


class InvalidRequest(EmbedwayError):
    """A field is missing, has the wrong type, is out of range or cannot be honoured."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """An item has more tokens than the model accepts."""

    code = "context_length_exceeded"


class TooManyTokens(InvalidRequest):
    """All items together have more tokens than the model accepts in one request."""

    type = "max_tokens_per_request"
    code = "max_tokens_per_request"


class InvalidKey(EmbedwayError):
    """The key is missing, malformed, unknown, expired or revoked."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": 'Bearer realm="embedway"'})


class Forbidden(EmbedwayError):
    """The credential lacks the right to do this, or its end user is blocked."""

    status = 403
    type = "invalid_request_error"
    code: ClassVar[str | None] = "insufficient_permissions"


class ModelForbidden(Forbidden):
    """The key or its project may use only other models or providers."""

    code = "model_not_found"
    reason = "model_forbidden"


class UnknownModel(EmbedwayError):
    """No enabled provider serves a model of this name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class ModelRetired(UnknownModel):
    """The provider of the model no longer serves it."""

    reason = "model_retired"


class NotFound(EmbedwayError):
    """The route does not exist."""

    status = 404
    type = "invalid_request_error"
    reason = "not_found"


class MethodNotAllowed(EmbedwayError):
    """The route does not support this method."""

    status = 405
    type = "invalid_request_error"
    reason = "method_not_allowed"


class SlowRequest(EmbedwayError):
    """The body did not arrive in time; the connection is closed."""

    status = 408
    type = "invalid_request_error"
    reason = "slow_request"


class BodyTooLarge(EmbedwayError):
    """The body is larger than this gateway accepts."""

    status = 413
    type = "invalid_request_error"
    reason = "body_too_large"


class UnsupportedEncoding(EmbedwayError):
    """The body has a `Content-Encoding` that this gateway does not support."""

    status = 415
    type = "invalid_request_error"
    reason = "encoded_body"


class InternalError(EmbedwayError):
    """A defect of this gateway; the log has the details under the request id."""

    reason = "internal_error"


class UpstreamError(EmbedwayError):
    """An engine or provider failed, or returned something other than the requested vectors."""

    status = 502
    type = "upstream_error"
    code = "server_error"
    reason = "upstream_failed"


class UpstreamAccountError(UpstreamError):
    """A provider refuses the gateway's key, or the gateway's account there has no credit left."""

    code = "client_error"
    reason = "upstream_refused"


class UpstreamTimeout(UpstreamError):
    """A provider did not answer in time."""

    status = 504
    code = "timeout"
    reason = "upstream_timeout"


class RateLimitExceeded(EmbedwayError):
    """A rate limit leaves no room; `Retry-After` says when to try again.

    Args:
        message: What is wrong and what to do.
        retry_after_s: When there is room again, in seconds from now; None if unknown.
        never: Whether the request alone exceeds the limit, so that waiting does not help.
        headers: Extra response headers.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        never: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        retry = {"x-should-retry": "false"} if never else _retry(retry_after_s)
        super().__init__(message, headers={**(headers or {}), **retry})


class TokenRateLimitExceeded(RateLimitExceeded):
    """A rate limit of tokens leaves no room."""

    type = "tokens"
    reason = "token_limit_exceeded"


class BudgetExceeded(EmbedwayError):
    """A budget is spent, or reserved for unfinished requests.

    Args:
        message: What is wrong and what to do.
        soon: Whether another try shortly may succeed.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, soon: bool = False) -> None:
        headers = _retry() if soon else {"x-should-retry": "false"}
        super().__init__(message, headers=headers)


class ServiceOverloaded(EmbedwayError):
    """This process has more work than it accepts, or than it can finish in time."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=_retry())


class FilesUnavailable(EmbedwayError):
    """The folder or the object store of files cannot be read or written."""

    status = 503
    type = "service_unavailable_error"
    code = "files_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=_retry())


class StorageUnavailable(EmbedwayError):
    """The database is unavailable; without it, no request is answered."""

    status = 503
    type = "service_unavailable_error"
    code = "storage_unavailable"

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        """If it is in doubt whether something was done, no client is asked to try again."""
        super().__init__(message, headers={"x-should-retry": "false"} if in_doubt else _retry())

    def copy(self) -> Self:
        """Return an error with a `Retry-After` of its own, so that the waiting requests spread."""
        return type(self)(self.message)


class CommitInDoubt(StorageUnavailable):
    """The database stopped answering during a commit, which may or may not have happened."""

    reason = "commit_in_doubt"


class UsageInDoubt(StorageUnavailable):
    """The database stopped answering while the usage of an answer was committed.

    It has no `Retry-After`, so that no client sends the request again by itself and pays twice.
    """

    reason = "usage_in_doubt"

    def __init__(self, message: str) -> None:
        super().__init__(message, in_doubt=True)


def _retry(after_s: float | None = None) -> Mapping[str, str]:
    # Jitter keeps clients that were refused together from coming back together.
    wait_s = random.uniform(0.5, 2.0)
    if after_s is not None:
        wait_s = max(after_s, LEAST_WAIT_S) * random.uniform(1.0, 1.1)
        if after_s <= MINUTE_S:
            wait_s = min(wait_s, LONGEST_WAIT_S)
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
