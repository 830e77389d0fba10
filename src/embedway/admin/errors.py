"""Gives every error of the control plane the one body of the contract."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

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

Model = TypeVar("Model", bound=BaseModel)

_PLACES = frozenset(("body", "query", "path", "header", "cookie"))
_SECRET_NAME = re.compile(
    r"secret|token|password|key|auth|assertion|credential|value", re.IGNORECASE
)
_SECRET_LOOK = re.compile(r"sk-|eyJ")
"""How keys, ours and those of providers, and tokens look."""


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(EmbedwayError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(SQLAlchemyError, _storage)
    app.add_exception_handler(Exception, _defect)


def _response(error: EmbedwayError) -> Response:
    return Response(
        wire_error.encode_error(error),
        status_code=error.status,
        headers=dict(error.headers),
        media_type="application/json",
    )


def _ours(_: Request, error: Any) -> Response:
    return _response(error)


def _invalid(_: Request, error: Any) -> Response:
    return _response(validation_error(error.errors()[0]))


def read_json(body: bytes, model: type[Model]) -> Model:
    """The JSON object in `body`, whatever its content type says.

    Raises:
        RequestValidationError: It is no such object.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def validation_error(wrong: Mapping[str, Any]) -> InvalidRequest:
    """What the client is told of one thing that is wrong with a request.

    A value is repeated only if it is short, plain, and neither is a secret nor could be one.

    Args:
        wrong: As pydantic has it.
    """
    if wrong["type"] == "json_invalid":
        reason = wrong.get("ctx", {}).get("error", "it ends early")
        return InvalidRequest(f"The body is not JSON: {reason}. Correct it.")
    name = _name(wrong["loc"])
    if not name:
        return InvalidRequest("The body must be a JSON object. Send one, with its content type.")
    match wrong["type"]:
        case "missing":
            return InvalidRequest(f"'{name}' is missing. Send it.", param=name)
        case "extra_forbidden":
            return InvalidRequest(f"'{name}' is not known here. Leave it out.", param=name)
        case _:
            told = wrong["msg"].removeprefix("Value error, ")
            value = _value(name, wrong.get("input"))
            return InvalidRequest(f"'{name}' is {value}: {told}.", param=name)


def _name(place: Sequence[str | int]) -> str:
    """Where in the request it is: `limits[0].amount`."""
    steps = place[1:] if place and place[0] in _PLACES else place
    name = ""
    for step in steps:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    # A name that the client chose may be anything, and long.
    return name if len(name) <= 100 and name.isprintable() else f"{name[:100]!a}..."  # noqa: PLR2004


def _value(name: str, value: object) -> str:
    if isinstance(value, dict | list):
        return "not of the right form"
    if _SECRET_NAME.search(name):
        return "not possible"
    if isinstance(value, str):
        if _SECRET_LOOK.search(value):
            return "not possible"
        # An answer is UTF-8, which lone surrogates are not.
        value = value.encode(errors="replace").decode()
    return quote_value(value) if isinstance(value, str | int | float | None) else "not possible"


def _routing(request: Request, error: Any) -> Response:
    if error.status_code == MethodNotAllowed.status:
        # The web framework names the methods of the first route at this path alone.
        allowed = ", ".join(sorted(_methods(request)))
        return _response(
            MethodNotAllowed(
                f"{request.method} is not possible on {request.url.path}. Use {allowed}.",
                headers={"allow": allowed},
            )
        )
    if error.status_code == InvalidRequest.status:
        # The web framework could not read the body at all: not UTF-8, nested too deep.
        return _response(InvalidRequest("The body cannot be read as JSON. Correct it."))
    return _response(
        NotFound(f"There is nothing at {request.url.path}. /docs lists what there is.")
    )


def _methods(request: Request) -> set[str]:
    """All that there are at the request's path."""
    return {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


def _storage(request: Request, error: Any) -> Response:
    # Its text may hold values of the statement; what kind it is of does not.
    _log.error("database failed", path=request.url.path, kind=type(error).__name__)
    return _response(StorageUnavailable("The database cannot be used right now. Try again."))


def _defect(request: Request, error: Any) -> Response:
    _log.error("defect", path=request.url.path, exc_info=error)
    return _response(InternalError("This is a defect of ours; the log has it."))
