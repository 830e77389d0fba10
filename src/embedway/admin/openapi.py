"""Describes the data plane in OpenAPI, from the annotations that its requests are checked against.

FastAPI describes its own routes. The embeddings paths are not among them, so this module adds them.
"""

from typing import Any

import msgspec

from embedway.core.request import EmbedRequest
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
_DATA = {
    "type": "array",
    "description": "One entry for each item of the input, in its order.",
    "items": _object(
        {
            "object": {"const": "embedding"},
            "index": _INTEGER | {"minimum": 0},
            "embedding": _VECTOR,
        }
    ),
}
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
        "object": {"const": "list"},
        "data": _DATA,
        "model": _STRING | {"description": _MODEL},
        "usage": _USAGE,
        "id": _STRING | {"description": "`embd_...`, also the id of the usage record."},
        "created": _INTEGER | {"description": "Unix time in seconds."},
        "provider": _STRING,
    }
)
_DETAILS = {
    "message": _STRING,
    "type": _STRING,
    "param": _OPTIONAL_STRING,
    "code": _OPTIONAL_STRING,
}
ERROR = _object({"error": _object(_DETAILS)})
_HEADERS = {
    "x-request-id": "The request's id; your own if you sent one.",
    "openai-processing-ms": "Milliseconds from receiving the request to answering it.",
    "x-embedway-model": "The model that answered.",
    "x-embedway-provider": "The provider that answered; several are separated by commas.",
    "x-embedway-space": "The vector space. Compare only vectors of the same space.",
    "x-embedway-cost-usd": "The cost of the request in USD.",
    "x-embedway-overhead-ms": "Milliseconds spent in the gateway, without the provider or model.",
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
_SHOULD_RETRY = {
    "x-should-retry": "`false` if waiting does not help; there is no `retry-after` then."
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
    502: "The model or its provider failed.",
    503: "The gateway is overloaded, or its database is unavailable; see `Retry-After`.",
    504: "The provider did not answer in time.",
}


def add_embeddings(schema: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """Add the embeddings operation to `schema` at each of `paths`."""
    (reference, _), parts = msgspec.json.schema_components(
        [EmbedRequest, DryRun], ref_template=_REF
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= parts | {"EmbeddingsResponse": _RESPONSE, "Error": ERROR}
    _allow_null(components["EmbedRequest"])
    for path in paths:
        schema["paths"][path] = {"post": _operation(path, reference)}
    return schema


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


def _operation(path: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["embeddings"],
        "summary": "Embed texts",
        "description": "One vector for each item of `input`, in its order.",
        "operationId": "embed" + path.replace("/", "_"),
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
                "description": "The vectors; with `dry_run=true` the plan, without most headers. "
                "If limits apply, also the `x-ratelimit-*` headers of a 429.",
                "headers": _header_schemas(_HEADERS),
                "content": _json_content("EmbeddingsResponse", "DryRun"),
            },
            **{
                str(status): {"description": text, "content": _json_content("Error"),
                              **_response_headers(status)}
                for status, text in _ERRORS.items()
            },
        },
    }  # fmt: skip


def _response_headers(status: int) -> dict[str, Any]:
    """Return the headers that responses with this status may have."""
    headers = {429: _LIMITS | _WAIT | _SHOULD_RETRY, 503: _WAIT}.get(status)
    return {"headers": _header_schemas(headers)} if headers else {}


def _header_schemas(headers: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": _STRING} for name, text in headers.items()}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": _STRING}


def _json_content(*components: str) -> dict[str, Any]:
    references = [{"$ref": _REF.format(name=each)} for each in components]
    schema = {"oneOf": references} if len(references) > 1 else references[0]
    return {"application/json": {"schema": schema}}
