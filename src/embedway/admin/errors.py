"""Gives every error of the control plane the one body of the contract."""

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from embedway.core.errors import (
    EmbedwayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
)
from embedway.wire import error as wire_error

_log = structlog.get_logger("embedway.admin")


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(EmbedwayError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(Exception, _defect)


def _response(error: EmbedwayError) -> Response:
    return Response(
        wire_error.body(error),
        status_code=error.status,
        headers=dict(error.headers),
        media_type="application/json",
    )


def _ours(_: Request, error: Any) -> Response:
    return _response(error)


def _invalid(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return _response(
        InvalidRequest(f"{name!r} is {first.get('input')!r}: {first['msg']}.", param=name)
    )


def _routing(request: Request, error: Any) -> Response:
    if error.status_code == MethodNotAllowed.status:
        return _response(
            MethodNotAllowed(
                f"{request.method} is not possible on {request.url.path}. Use "
                f"{error.headers['Allow']}.",
                headers=error.headers,
            )
        )
    return _response(
        NotFound(f"There is nothing at {request.url.path}. /docs lists what there is.")
    )


def _defect(request: Request, error: Any) -> Response:
    _log.error("defect", path=request.url.path, exc_info=error)
    return _response(InternalError("This is a defect of ours; the log has it."))
