"""Answers every error of the control plane with the same JSON body."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from embedway.admin import request_ids
from embedway.core.errors import (
    EmbedwayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StorageUnavailable,
    quote_value,
)
from embedway.wire import error as wire_error

_log = structlog.get_logger("embedway.admin")

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_PLACES = frozenset(("body", "query", "path", "header", "cookie"))
_SECRET_NAME = re.compile(
    r"secret|token|password|key|auth|assertion|credential|value", re.IGNORECASE
)
_SECRET_LOOK = re.compile(r"sk-|eyJ")
"""What the keys of this gateway, the keys of providers, and tokens contain."""


def install(app: FastAPI) -> None:
    """Register the error handlers."""
    for kind in (EmbedwayError, RequestValidationError, HTTPException, SQLAlchemyError, Exception):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, exception: Exception) -> Response:
    error = _to_error(request, exception)
    return Response(
        wire_error.encode_error(error),
        status_code=error.status,
        headers={request_ids.HEADER: request_ids.request_id(request), **error.headers},
        media_type="application/json",
    )


def _to_error(request: Request, exception: Exception) -> EmbedwayError:
    path = request.url.path
    match exception:
        case EmbedwayError():
            return exception
        case RequestValidationError():
            return validation_error(exception.errors()[0])
        case HTTPException():
            return _http_error(request, exception.status_code)
        case SQLAlchemyError():
            # Log the error's type only: its text may contain values of the SQL statement.
            _log.error("database failed", path=path, kind=type(exception).__name__)
            if _may_have_changed(request, exception):
                return StorageUnavailable(
                    "The database stopped answering, so the change may have been made. "
                    "Look whether it was before you try again.",
                    in_doubt=True,
                )
            return StorageUnavailable("The database cannot be used right now. Try again.")
        case _:
            _log.error("defect", path=path, exc_info=exception)
            return InternalError("The gateway has a defect. Its log has the details.")


def _may_have_changed(request: Request, error: SQLAlchemyError) -> bool:
    """Return whether the connection broke while the request changed something."""
    broke = isinstance(error, DBAPIError) and error.connection_invalidated
    return broke and request.method not in {"GET", "HEAD"}


def read_json(body: bytes, model: type[AnyModel]) -> AnyModel:
    """Return the JSON object in `body`, whatever its content type.

    Raises:
        RequestValidationError: It is not such an object.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def validation_error(problem: Mapping[str, Any]) -> InvalidRequest:
    """Return the client's error for one of pydantic's.

    The message repeats the value only if it is short, printable and cannot be a secret.
    """
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "it ends early")
        return InvalidRequest(f"The body is not JSON: {reason}. Correct it.")
    name = _field_name(problem["loc"])
    if not name:
        return InvalidRequest(
            "The body is not a JSON object. Send one, with the content type application/json."
        )
    match problem["type"]:
        case "missing":
            return InvalidRequest(f"'{name}' is missing. Send it.", param=name)
        case "extra_forbidden":
            return InvalidRequest(f"'{name}' is not known here. Leave it out.", param=name)
        case _:
            reason = problem["msg"].removeprefix("Value error, ")
            value = _describe_value(name, problem.get("input"))
            return InvalidRequest(f"'{name}' is {value}: {reason}.", param=name)


def _field_name(place: Sequence[str | int]) -> str:
    """Return the field's place in the request, such as `limits[0].amount`."""
    steps = place[1:] if place and place[0] in _PLACES else place
    name = ""
    for step in steps:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    # The client may have chosen the name, so cut it if it is long or unprintable.
    return name if len(name) <= 100 and name.isprintable() else f"{name[:100]!a}..."  # noqa: PLR2004


def _describe_value(name: str, value: object) -> str:
    if isinstance(value, dict | list):
        return "not of the right form"
    if _SECRET_NAME.search(name):
        return "not possible"
    if isinstance(value, str):
        if _SECRET_LOOK.search(value):
            return "not possible"
        # Responses are UTF-8, which cannot encode lone surrogates.
        value = value.encode(errors="replace").decode()
    return quote_value(value) if isinstance(value, str | int | float | None) else "not possible"


def _http_error(request: Request, status: int) -> EmbedwayError:
    if status == MethodNotAllowed.status:
        # The web framework would list only the methods of the first route at this path.
        allowed = ", ".join(sorted(_allowed_methods(request)))
        return MethodNotAllowed(
            f"{request.method} is not allowed on {request.url.path}. Use {allowed}.",
            headers={"allow": allowed},
        )
    if status == InvalidRequest.status:
        # The web framework could not read the body, for example because it is not UTF-8.
        return InvalidRequest("The body cannot be read as JSON. Correct it.")
    return NotFound(f"There is nothing at {request.url.path}. See /docs for all paths.")


def _allowed_methods(request: Request) -> set[str]:
    """Return the methods of all routes at the request's path."""
    return {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
