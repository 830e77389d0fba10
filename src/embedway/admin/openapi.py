"""Describes the data plane in OpenAPI, from the annotations it is checked against.

FastAPI describes its own routes; the embeddings doors are not among them, so they are added here.
"""

from typing import Any

import msgspec

from embedway.core.request import EmbedRequest
from embedway.pipeline.dry_run import DryRun

_REF = "#/components/schemas/{name}"

_VECTOR: dict[str, Any] = {
    "oneOf": [
        {"type": "array", "items": {"type": "number"}, "title": "float"},
        {"type": "string", "format": "byte", "title": "base64: little-endian float32"},
    ]
}
_RESPONSE: dict[str, Any] = {
    "type": "object",
    "required": ["object", "data", "model", "usage", "id", "created", "provider"],
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "description": "One entry for each item of the input, in its order.",
            "items": {
                "type": "object",
                "required": ["object", "index", "embedding"],
                "properties": {
                    "object": {"const": "embedding"},
                    "index": {"type": "integer", "minimum": 0},
                    "embedding": _VECTOR,
                },
            },
        },
        "model": {"type": "string", "description": "As asked for; see x-embedway-model."},
        "usage": {
            "type": "object",
            "required": ["prompt_tokens", "total_tokens"],
            "properties": {
                "prompt_tokens": {"type": "integer"},
                "total_tokens": {"type": "integer"},
                "completion_tokens": {"type": "integer", "description": "0, on cortecs' path."},
            },
        },
        "id": {"type": "string", "description": "`embd_...`, the usage record's id too."},
        "created": {"type": "integer", "description": "Seconds since 1970-01-01 UTC."},
        "provider": {"type": "string"},
    },
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_HEADERS = {
    "x-request-id": "The request's id: yours if you sent one.",
    "openai-processing-ms": "Milliseconds spent here.",
    "x-embedway-model": "The model that answered.",
    "x-embedway-provider": "The provider that answered; several are joined by commas.",
    "x-embedway-space": "The vector space: compare only vectors of the same one.",
    "x-embedway-cost-usd": "What the request cost.",
    "x-embedway-overhead-ms": "Milliseconds spent here and not in the model.",
}
_LIMITS = {
    f"x-ratelimit-{told}-{of}": text.format(of=of)
    for of in ("requests", "tokens")
    for told, text in {
        "limit": "The limit of {of} that the smallest share is left of; none if none applies.",
        "remaining": "How many {of} are left of it.",
        "reset": "When all of it is there again if nothing is sent, such as `1m2.5s`.",
    }.items()
}
_WAIT = {
    "retry-after": "Seconds to wait before another try.",
    "retry-after-ms": "The same in milliseconds.",
}
_REFUSED = {"x-should-retry": "`false` where no wait helps; there is no time to wait then."}
_ERRORS = {
    400: "The request cannot be honoured; `param` names the field.",
    401: "No key, or not a valid one.",
    403: "The credential lacks the right (`insufficient_permissions`), its end user is blocked, or "
    "the key may not use this model or those who serve it (`model_not_found`).",
    404: "No such model; the message names near ones.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is encoded.",
    429: "A limit of the key, the project or the end user has no room, or every provider that is "
    "left limits this gateway's rate (`rate_limit_exceeded`); or a budget is spent or reserved "
    "(`insufficient_quota`). Nothing is billed. `Retry-After` says when to come again.",
    502: "The model or its provider failed.",
    503: "Overloaded, or the database is away; see `Retry-After`.",
    504: "The provider did not answer in time.",
}


def add_embeddings(schema: dict[str, Any], doors: list[str]) -> dict[str, Any]:
    """`schema` with the embeddings operation on each of `doors`."""
    (reference, _), parts = msgspec.json.schema_components(
        [EmbedRequest, DryRun], ref_template=_REF
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= parts | {"EmbeddingsResponse": _RESPONSE, "Error": ERROR}
    _nullable(components["EmbedRequest"])
    for door in doors:
        schema["paths"][door] = {"post": _operation(door, reference)}
    return schema


def _nullable(request: dict[str, Any]) -> None:
    # null means the default, for every field that has one; msgspec says so of some only.
    for name, field in request["properties"].items():
        if name not in request["required"]:
            default = field.pop("default")
            kind = field.get("anyOf", [field])[0]
            request["properties"][name] = {
                "description": kind.pop("description"),
                "anyOf": [kind, {"type": "null"}],
                "default": default,
            }


def _operation(door: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["embeddings"],
        "summary": "Embed texts",
        "description": "One vector for each item of `input`, in its order.",
        "operationId": "embed" + door.replace("/", "_"),
        "security": [{"key": []}],
        "parameters": [
            _header("X-On-Behalf-Of", "Your end user, whom limits, budgets and usage are counted "
                    "for; 1 to 150 printable ASCII characters. The key needs the scope "
                    "on_behalf_of."),
            _header("X-Request-Id", "An id of yours for this request; echoed."),
            {
                "name": "dry_run",
                "in": "query",
                "description": "`true`: answer who would be asked, in which order and at what "
                "price, and ask nobody. Nothing is billed; it counts as a request.",
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
                "description": "The vectors; with `dry_run=true` a plan, without most headers. "
                "Where limits apply, also the `x-ratelimit-*` headers of a 429.",
                "headers": _described(_HEADERS),
                "content": _json("EmbeddingsResponse", "DryRun"),
            },
            **{
                str(status): {"description": text, "content": _json("Error")} | _more(status)
                for status, text in _ERRORS.items()
            },
        },
    }  # fmt: skip


def _more(status: int) -> dict[str, Any]:
    """The headers that answers with this status may have."""
    headers = {429: _LIMITS | _WAIT | _REFUSED, 503: _WAIT}.get(status)
    return {"headers": _described(headers)} if headers else {}


def _described(headers: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _json(*components: str) -> dict[str, Any]:
    references = [{"$ref": _REF.format(name=each)} for each in components]
    schema = {"oneOf": references} if len(references) > 1 else references[0]
    return {"application/json": {"schema": schema}}
