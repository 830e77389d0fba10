"""Completes the OpenAPI document that FastAPI makes of its own routes.

Adds the embeddings paths, from the annotations that their requests are checked against, and gives
schemas the names that users of generated clients see.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from embedway.core.request import MAX_CHARACTERS, MAX_TOKEN_ID, EmbedRequest
from embedway.pipeline.dry_run import DryRun

_REF = "#/components/schemas/{name}"

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_OPTIONAL_STRING = {"type": ["string", "null"]}


def _object(properties: dict[str, Any], *, optional: str = "") -> dict[str, Any]:
    """Describe an object that has all of `properties`, except perhaps the one named `optional`."""
    required = [name for name in properties if name != optional]
    return {"type": "object", "required": required, "properties": properties}


_VECTOR: dict[str, Any] = {
    "oneOf": [
        {"type": "array", "items": {"type": "number"}, "title": "float"},
        _STRING | {"format": "byte", "title": "base64: little-endian float32"},
    ]
}
_EMBEDDING = _object(
    {
        "object": _STRING | {"const": "embedding"},
        "index": _INTEGER | {"minimum": 0},
        "embedding": _VECTOR,
    }
)
_USAGE = _object(
    {
        "prompt_tokens": _INTEGER,
        "total_tokens": _INTEGER,
        "completion_tokens": _INTEGER | {"description": "Always 0; only on cortecs' path."},
    },
    optional="completion_tokens",
)
_MODEL = "The model as requested; x-embedway-model has its id."
_RESPONSE = _object(
    {
        "object": _STRING | {"const": "list"},
        "data": {
            "type": "array",
            "description": "One entry for each item of the input, in its order.",
            "items": {"$ref": _REF.format(name="Embedding")},
        },
        "model": _STRING | {"description": _MODEL},
        "usage": {"$ref": _REF.format(name="EmbeddingsUsage")},
        "id": _STRING | {"description": "`embd_...`, also the id of the usage record."},
        "created": _INTEGER | {"description": "Unix time in seconds."},
        "provider": _STRING,
    }
)
_ERROR_DETAILS = _object(
    {
        "message": _STRING | {"description": "What is wrong, with the value, and what to do."},
        "type": _STRING,
        "param": _OPTIONAL_STRING | {"description": "The field at fault."},
        "code": _OPTIONAL_STRING,
    }
)
_SCHEMAS = {
    "EmbeddingsResponse": _RESPONSE,
    "Embedding": _EMBEDDING,
    "EmbeddingsUsage": _USAGE,
    "Error": _object({"error": {"$ref": _REF.format(name="ErrorDetails")}}),
    "ErrorDetails": _ERROR_DETAILS,
}
_REQUEST_ID = {"x-request-id": "The request's id; your own if you sent one."}
_HEADERS = _REQUEST_ID | {
    "openai-processing-ms": "Milliseconds from receiving the request to answering it.",
    "x-embedway-model": "The model that answered.",
    "x-embedway-provider": "The provider that answered; several are separated by commas.",
    "x-embedway-space": "The vector space. Compare only vectors of the same space.",
    "x-embedway-cost-usd": "The cost of the request in USD.",
    "x-embedway-overhead-ms": "Milliseconds spent in the gateway, without the provider or model.",
}
_LIFETIMES = {
    "deprecation": "Since when the model is deprecated at its provider (RFC 9745).",
    "sunset": "When its provider stops serving it, if that is soon (RFC 8594).",
}
_LIMITS = {
    f"x-ratelimit-{name}-{of}": text.format(of=of)
    for of in ("requests", "tokens")
    for name, text in {
        "limit": "The limit on {of} that is closest to its end; absent if none applies.",
        "remaining": "How many {of} it still allows.",
        "reset": "The time until all of it is available again, such as `1m2.5s`.",
    }.items()
}
_WAIT = {
    "retry-after": "Seconds to wait before retrying.",
    "retry-after-ms": "The same in milliseconds.",
}
_CHALLENGE = {"www-authenticate": "The kind of credential to send, `Bearer`."}
_SHOULD_RETRY = {
    "x-should-retry": "`false` if waiting does not help, or the request may have been charged; "
    "there is no `retry-after` then."
}
_ERRORS = {
    400: "The request is invalid; `param` names the field.",
    401: "The key is missing or invalid.",
    403: "The credential lacks the right (`insufficient_permissions`), its end user is blocked, or "
    "the key may not use this model or its providers (`model_not_found`).",
    404: "There is no such model; the message suggests similar names.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body has a content encoding.",
    429: "A rate limit of the key, the project or the end user is reached, or every provider "
    "limits this gateway's rate (`rate_limit_exceeded`); or a budget is spent or reserved "
    "(`insufficient_quota`). Nothing is billed. `Retry-After` says when to retry.",
    500: "The gateway has a defect.",
    502: "The model or its provider failed.",
    503: "The gateway is overloaded, or its database is unavailable; see `Retry-After`.",
    504: "The provider did not answer in time.",
}


def complete(schema: dict[str, Any], paths: Mapping[str, str], *, max_items: int) -> dict[str, Any]:
    """Add the embeddings operation to `schema` at each of `paths`, and name all schemas.

    Args:
        schema: FastAPI's document, which is changed.
        paths: The paths of the operation, each with its operation id.
        max_items: The most items of a request.
    """
    (reference, _), parts = msgspec.json.schema_components(
        [EmbedRequest, DryRun], ref_template=_REF
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= parts | _SCHEMAS
    _allow_null(components["EmbedRequest"])
    components["EmbedRequest"]["title"] = "EmbeddingsRequest"
    _describe_input(components["EmbedRequest"]["properties"]["input"], max_items)
    components["DryRun"]["required"] = list(components["DryRun"]["properties"])
    for path, operation_id in paths.items():
        schema["paths"][path] = {"post": _operation(operation_id, reference)}
    return _name_by_titles(schema)


def _name_by_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Name every schema by its title, and make the schemas of request bodies components too."""
    components = schema["components"]["schemas"]
    for operation in (each for path in schema["paths"].values() for each in path.values()):
        for body in operation.get("requestBody", {}).get("content", {}).values():
            if name := body["schema"].get("title"):
                components[name] = body["schema"]
                body["schema"] = {"$ref": _REF.format(name=name)}
    for part in components.values():
        for field in part.get("properties", {}).values():
            field.pop("title", None)  # the field's name again, with capitals
    titles = {name: part.get("title", name) for name, part in components.items()}
    schema["components"]["schemas"] = {titles[name]: part for name, part in components.items()}
    references = {_REF.format(name=name): _REF.format(name=titles[name]) for name in titles}
    return _refer(schema, references)


def _refer(node: Any, references: Mapping[str, str]) -> Any:
    """Return a copy of `node` in which each reference is what `references` has for it."""
    match node:
        case {"$ref": str(reference)}:
            return node | {"$ref": references[reference]}
        case dict():
            items = cast("dict[str, Any]", node).items()
            return {name: _refer(each, references) for name, each in items}
        case list():
            return [_refer(each, references) for each in cast("list[Any]", node)]
        case _:
            return node


def _allow_null(request: dict[str, Any]) -> None:
    # null means the default for every field that has one, but msgspec says so only of some.
    for name, field in request["properties"].items():
        if name not in request["required"]:
            default = field.pop("default")
            kind = field.get("anyOf", [field])[0]
            request["properties"][name] = {
                "description": kind.pop("description"),
                "anyOf": [kind, {"type": "null"}],
                "default": default,
            }


def _describe_input(input: dict[str, Any], max_items: int) -> None:
    # No annotation says that a list has items of one kind, or how many the operator allows.
    input["description"] += f" At most {max_items:,} items."
    ids = _array(_INTEGER | {"minimum": 0, "maximum": MAX_TOKEN_ID}, MAX_CHARACTERS)
    input["anyOf"] = [_STRING, _array(_STRING, max_items), ids, _array(ids, max_items)]


def _array(items: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _operation(operation_id: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["embeddings"],
        "summary": "Embed texts",
        "description": "One vector for each item of `input`, in its order.",
        "operationId": operation_id,
        "security": [{"key": []}],
        "parameters": [
            _header("X-On-Behalf-Of", "Your end user, for whom limits, budgets and usage count; 1 "
                    "to 150 printable ASCII characters. The key needs the scope on_behalf_of."),
            _header("X-Request-Id", "Your own id for this request; the response repeats it."),
            {
                "name": "dry_run",
                "in": "query",
                "description": "`true` to list the deployments that would be tried, in order and "
                "with prices, without calling any. It is free, but counts as a request.",
                "schema": {"type": "boolean", "default": False},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": request,
                    "example": {"model": "auto", "input": ["The quick brown fox."]},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The vectors; with `dry_run=true` the plan, without most headers.",
                "headers": _header_schemas(_HEADERS | _LIFETIMES | _LIMITS),
                "content": _json_content("EmbeddingsResponse", "DryRun"),
            },
            **{
                str(status): {"description": text, "content": _json_content("Error"),
                              "headers": _header_schemas(_error_headers(status))}
                for status, text in _ERRORS.items()
            },
        },
    }  # fmt: skip


def _error_headers(status: int) -> dict[str, str]:
    """Return the headers that errors with this status may have."""
    headers = {
        401: _CHALLENGE,
        429: _LIMITS | _WAIT | _SHOULD_RETRY,
        502: _WAIT,
        503: _WAIT | _SHOULD_RETRY,
    }
    return _REQUEST_ID | headers.get(status, {})


def _header_schemas(headers: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": _STRING} for name, text in headers.items()}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": _STRING}


def _json_content(*components: str) -> dict[str, Any]:
    references = [{"$ref": _REF.format(name=each)} for each in components]
    schema = {"oneOf": references} if len(references) > 1 else references[0]
    return {"application/json": {"schema": schema}}


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be honoured.", "content": _json_content("Error")},
    "5XX": {"description": "The gateway cannot answer now.", "content": _json_content("Error")},
}
"""The errors of every route that FastAPI describes."""
