"""Every error a client can be answered with, as one tree.

Owns status, type, code and param of each case of the contract's error table. Knows nothing of HTTP
beyond these numbers; `wire.error` turns an error into bytes.

    EmbedwayError
    ├── InvalidRequest ............ 400  the caller must change the request
    │   ├── ContextLengthExceeded   400  one item is too long for the model
    │   └── TooManyTokens ......... 400  all items together are
    ├── InvalidKey ................ 401  no key, or not a valid one
    ├── Forbidden ................. 403  the credential lacks the right, or the end user is blocked
    │   └── ModelForbidden ........ 403  the key may not use this model, or those who serve it
    ├── UnknownModel .............. 404
    │   └── ModelRetired .......... 404  its provider no longer serves it
    ├── NotFound .................. 404  no such route
    ├── MethodNotAllowed .......... 405
    ├── SlowRequest ............... 408  the body did not arrive in time
    ├── BodyTooLarge .............. 413
    ├── EncodedBody ............... 415  Content-Encoding is not understood
    ├── InternalError ............. 500  a defect of ours
    ├── RateLimited ............... 429  too many requests
    │   └── TokenRateLimited ...... 429  too many tokens
    ├── BudgetSpent ............... 429  of a key, a project or an end user
    ├── UpstreamFailed ............ 502  an engine or provider failed or answered nonsense
    │   ├── UpstreamRefused ....... 502  a provider refuses the gateway's own key or account
    │   └── UpstreamTimeout ....... 504  a provider did not answer in time
    ├── Overloaded ................ 503  more work than we accept, or than we finished in time
    └── StorageUnavailable ........ 503  keys or the ledger cannot be reached
        └── CommitInDoubt ......... 503  the database may have committed, and does not say
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
"""Before another try, also where a provider says that it may be at once."""
LONGEST_WAIT_S = 60.0
"""Some clients give up when they are told a longer wait, so jitter does not make it one."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def quote_value(value: object) -> str:
    """A field's value for a message, as the client wrote it: JSON, and the start of it if long."""
    try:
        # Piece by piece: a value may be megabytes, of which the start is enough.
        text = "".join(islice(_JSON.iterencode(value), SHOWN_CHARACTERS + 1))
    except RecursionError:
        return "too deeply nested"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def quote_text(text: str) -> str:
    """A name or an id for a message: in single quotes, and the start of it if long."""
    cut = f"{text[:SHOWN_CHARACTERS]}..." if len(text) > SHOWN_CHARACTERS else text
    return repr(cut)


Remedy = Literal["list projects", "list keys", "create a key"]
"""What helps after an error. The command line names its command for it; over HTTP the message
stands alone."""


class EmbedwayError(Exception):
    """The root: what the client is told, and how.

    Args:
        message: What was wrong, with the value, and what to do. Never a secret, never a text.
        param: The request field at fault, if there is one.
        headers: Extra response headers, for instance `Retry-After`.
        remedy: What helps, where a command does.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    reason: ClassVar[str] = "server_error"
    """What logs, metrics and reports of refused requests call this kind of error: its code, unless
    that is null or shared with another kind."""

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
        """The key of the request, if it is known but refused; not told to clients."""
        self.project_id = ""

    def __init_subclass__(cls) -> None:
        if "reason" not in cls.__dict__:
            cls.reason = cls.code or cls.type

    def copy(self) -> Self:
        """The same, to be raised to somebody else."""
        return copy(self)

    def attribute(self, *, key_id: str, project_id: str | None) -> None:
        """Note whose request it is, for the log and the count of refusals."""
        self.key_id = key_id
        self.project_id = project_id or ""


class InvalidRequest(EmbedwayError):
    """A field is missing, of the wrong type, out of range, or cannot be honoured."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """An item has more tokens than the model takes."""

    code = "context_length_exceeded"


class TooManyTokens(InvalidRequest):
    """The items of one request have more tokens together than the model's request limit."""

    type = "max_tokens_per_request"
    code = "max_tokens_per_request"


class InvalidKey(EmbedwayError):
    """No key, a malformed, unknown, expired or revoked one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": 'Bearer realm="embedway"'})


class Forbidden(EmbedwayError):
    """The credential is valid, but has no right to do this."""

    status = 403
    type = "invalid_request_error"
    code: ClassVar[str | None] = "insufficient_permissions"


class ModelForbidden(Forbidden):
    """The key or its project is restricted to other models or providers."""

    code = "model_not_found"
    reason = "model_forbidden"


class UnknownModel(EmbedwayError):
    """Nobody serves a model of this name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class ModelRetired(UnknownModel):
    """The provider of the model no longer serves it."""

    reason = "model_retired"


class NotFound(EmbedwayError):
    """No such route."""

    status = 404
    type = "invalid_request_error"
    reason = "not_found"


class MethodNotAllowed(EmbedwayError):
    """The route exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    reason = "method_not_allowed"


class SlowRequest(EmbedwayError):
    """The body did not arrive within the deadline; the connection is closed."""

    status = 408
    type = "invalid_request_error"
    reason = "slow_request"


class BodyTooLarge(EmbedwayError):
    """The body is larger than the cap."""

    status = 413
    type = "invalid_request_error"
    reason = "body_too_large"


class UnsupportedEncoding(EmbedwayError):
    """The body is compressed or otherwise encoded."""

    status = 415
    type = "invalid_request_error"
    reason = "encoded_body"


class InternalError(EmbedwayError):
    """A defect of ours; the log has the rest under the request id."""

    reason = "internal_error"


class UpstreamError(EmbedwayError):
    """An engine or provider failed or answered something that is not the vectors asked for."""

    status = 502
    type = "upstream_error"
    code = "server_error"
    reason = "upstream_failed"


class UpstreamAccountError(UpstreamError):
    """A provider refuses the gateway's key, or the gateway's account there is spent."""

    code = "client_error"
    reason = "upstream_refused"


class UpstreamTimeout(UpstreamError):
    """A provider did not answer in time."""

    status = 504
    code = "timeout"
    reason = "upstream_timeout"


class RateLimitExceeded(EmbedwayError):
    """More requests than are allowed in a time; `Retry-After` says when there is room again.

    Args:
        message: As of every error.
        retry_after_s: When; None where nobody knows.
        never: Whether no wait helps, for the request alone is more than is allowed.
        headers: More of them.
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
        told = {"x-should-retry": "false"} if never else _retry(retry_after_s)
        super().__init__(message, headers={**(headers or {}), **told})


class TokenRateLimitExceeded(RateLimitExceeded):
    """More tokens than are allowed in a time."""

    type = "tokens"
    reason = "token_limit_exceeded"


class BudgetExceeded(EmbedwayError):
    """What may be spent in a window is spent, or reserved for requests under way."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, soon: bool = False) -> None:
        """Takes whether another try shortly may succeed."""
        headers = _retry() if soon else {"x-should-retry": "false"}
        super().__init__(message, headers=headers)


class ServiceOverloaded(EmbedwayError):
    """More work than this process accepts, or than it could finish before the deadline."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=_retry())


class StorageUnavailable(EmbedwayError):
    """Keys cannot be read or usage cannot be recorded; nothing is answered unmetered."""

    status = 503
    type = "service_unavailable_error"
    code = "storage_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=_retry())

    def copy(self) -> Self:
        """See `EmbedwayError.again`; at a time of its own."""
        return type(self)(self.message)


class CommitInDoubt(StorageUnavailable):
    """The database stopped answering in a commit, which may have happened, or may yet happen."""

    reason = "commit_in_doubt"


def _retry(after_s: float | None = None) -> Mapping[str, str]:
    # Jittered, so that those who were refused together do not come back together.
    wait_s = random.uniform(0.5, 2.0)
    if after_s is not None:
        wait_s = max(after_s, LEAST_WAIT_S) * random.uniform(1.0, 1.1)
        if after_s <= LONGEST_WAIT_S:
            wait_s = min(wait_s, LONGEST_WAIT_S)
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
