"""Every error that a call can raise.

EmbedwayError
├── APIError ................... the answer has an error status; these are told apart by it:
│   ├── BadRequestError ........ 400  the request is wrong; `param` names the field
│   ├── AuthenticationError .... 401  no key or token, or not a valid one
│   ├── PermissionDeniedError .. 403  the key or token may not do this
│   ├── NotFoundError .......... 404  no such model, or nothing of this id
│   ├── RateLimitError ......... 429  a rate limit is full, or a budget is spent
│   └── ServerError ............ 5xx  the gateway or every provider failed
├── ConnectionError ............ no answer: not connected, or the connection broke
│   └── TimeoutError ........... no answer in time
├── InvalidResponseError ....... an answer of status 200 that is not what was asked for
└── SpaceMismatchError ......... `embed_many` got vectors of two spaces
"""

from __future__ import annotations

import builtins
import json
import math
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, cast

from embedway_sdk.http import httpx

SHOWN_CHARACTERS = 200
"""The most characters of an unknown answer to quote in a message."""


class EmbedwayError(Exception):
    """A call failed."""

    may_be_billed: bool = False
    """Whether the gateway may have done the work, and charged for it, although the call failed."""
    first_index: int = 0
    """In `embed_many`, the index of the first input of the request that failed."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Process pools send errors to the process that waits.
        return _unpickle, (type(self), self.args, self.__dict__)

    @property
    def message(self) -> str:
        """What is wrong and what to do: the server's own words if the server answered."""
        return str(self.args[0])


def _unpickle(
    kind: type[EmbedwayError], args: tuple[object, ...], attributes: dict[str, Any]
) -> EmbedwayError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class APIError(EmbedwayError):
    """The answer has an error status."""

    def __init__(
        self,
        message: str,
        response: httpx.Response,
        *,
        body: Any = None,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status_code = response.status_code
        """The HTTP status."""
        self.headers = response.headers
        """The headers of the answer."""
        self.body = body
        """The body of the answer: decoded JSON, or text if it is no JSON."""
        self.code = code
        """The kind of error, such as `context_length_exceeded`; None if it has no name."""
        self.type = type
        """The class of error, such as `invalid_request_error`."""
        self.param = param
        """The field that is wrong, such as `input`; None if no single field is."""
        self.may_be_billed = may_be_billed

    @property
    def request_id(self) -> str | None:
        """The id under which the gateway logged the request."""
        return self.headers.get("x-request-id")

    @property
    def retry_after_s(self) -> float | None:
        """The seconds to wait before another try, as the server asks; None if it does not."""
        milliseconds = _number(self.headers.get("retry-after-ms"))
        if milliseconds is not None:
            return milliseconds / 1000
        value = self.headers.get("retry-after", "")
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except (ValueError, TypeError, OverflowError):
            return _number(value)

    @property
    def should_retry(self) -> bool | None:
        """What `x-should-retry` says: whether another try can help; None if it is not sent."""
        return {"true": True, "false": False}.get(self.headers.get("x-should-retry", ""))


class BadRequestError(APIError):
    """The request is wrong (400). `param` names the field."""


class AuthenticationError(APIError):
    """The key or token is missing or not valid (401)."""


class PermissionDeniedError(APIError):
    """The key or token may not do this (403)."""


class NotFoundError(APIError):
    """There is no such model, or nothing of this id (404)."""


class RateLimitError(APIError):
    """A rate limit is full, or a budget is spent (429). `code` tells which."""


class ServerError(APIError):
    """The gateway failed, or every provider that could answer (5xx)."""


class ConnectionError(EmbedwayError, builtins.ConnectionError):
    """No answer came: there was no connection, or it broke."""

    def __init__(self, message: str, *, may_be_billed: bool = False) -> None:
        super().__init__(message)
        self.may_be_billed = may_be_billed


class TimeoutError(ConnectionError, builtins.TimeoutError):
    """No answer came in time."""


class InvalidResponseError(EmbedwayError):
    """The answer has status 200 but is not what was asked for."""

    may_be_billed = True


class SpaceMismatchError(EmbedwayError):
    """Vectors of two spaces would be joined. Comparing them means nothing."""

    may_be_billed = True


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}


def _number(text: str | None) -> float | None:
    """Return a header's number, or None if it is not a finite number from 0 on."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def error_of(response: httpx.Response) -> APIError:
    """Return the error that an answer of another status than 2xx stands for."""
    status = response.status_code
    kind = _BY_STATUS.get(status, ServerError if response.is_server_error else APIError)
    try:
        body: Any = json.loads(response.content)
    except (ValueError, RecursionError):
        body = response.text
    error: Any = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        # A proxy's own answer: the gateway behind it may have answered, and charged.
        shown = response.text[:SHOWN_CHARACTERS].strip() or "nothing"
        message = f"Status {status}, and not as an Embedway gateway answers: {shown}"
        return kind(message, response, body=body, may_be_billed=response.is_server_error)
    fields = cast("dict[str, Any]", error)
    # The gateway says so if its database stopped answering while the usage was committed.
    in_doubt = response.is_server_error and response.headers.get("x-should-retry") == "false"
    return kind(
        str(fields.get("message")),
        response,
        body=cast("Any", body),
        code=fields.get("code"),
        type=fields.get("type"),
        param=fields.get("param"),
        may_be_billed=in_doubt,
    )


def failure_of(failure: httpx.RequestError, *, timeout_ms: int) -> EmbedwayError:
    """Return the error that a failure of the HTTP client stands for."""
    url = failure.request.url.copy_with(query=None)
    if isinstance(failure, httpx.DecodingError):
        return InvalidResponseError(f"The answer of {url} cannot be decoded: {failure}")
    # These happen before anything is sent.
    was_sent = not isinstance(
        failure,
        (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
            httpx.ProxyError,
            httpx.LocalProtocolError,
        ),
    )
    if isinstance(failure, httpx.TimeoutException):
        verb = "answer" if was_sent else "accept a connection"
        message = f"{url} did not {verb} within timeout_ms={timeout_ms}."
        return TimeoutError(message, may_be_billed=was_sent)
    reason = str(failure) or type(failure).__name__
    message = f"The connection to {url} {'broke' if was_sent else 'failed'}: {reason}"
    return ConnectionError(message, may_be_billed=was_sent)
