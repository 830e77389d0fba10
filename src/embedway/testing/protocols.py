"""Implements the provider's side of each protocol.

It was written from the providers' documentation, independently of `embedway.providers`, so that
each checks the other. It refuses what a provider does not document, in the provider's own words.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import numpy as np

from embedway.testing.vectors import WIDTH, Item, Vectors, shorten_vector, vector_of

FieldCheck = Callable[[Any], bool]

WIDTHS: Mapping[str, int] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "embed-v4.0": 1536,
    "embed-english-v3.0": 1024,
    "embed-multilingual-v3.0": 1024,
    "voyage-4": 1024,
    "voyage-4-large": 1024,
    "voyage-4-lite": 1024,
    "mistral-embed": 1024,
    "codestral-embed": 1536,
    "gemini-embedding-001": 3072,
    "gemini-embedding-2": 3072,
    "text-embedding-005": 768,
    "text-multilingual-embedding-002": 768,
    "cohere.embed-english-v3": 1024,
    "cohere.embed-multilingual-v3": 1024,
    "amazon.titan-embed-text-v1": 1536,
    "amazon.titan-embed-text-v2:0": 1024,
    "@cf/baai/bge-small-en-v1.5": 384,
    "@cf/baai/bge-base-en-v1.5": 768,
    "@cf/baai/bge-large-en-v1.5": 1024,
    "jina-clip-v2": 1024,
    "jina-embeddings-v2-base-en": 768,
    "jina-embeddings-v3": 1024,
    "jina-embeddings-v4": 2048,
    "text-embedding-v4": 1024,
}
"""The widths of models that do not have `WIDTH`."""


class UpstreamCall(msgspec.Struct, frozen=True, kw_only=True):
    """A received call."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """The headers, with names in lower case."""
    body: Any
    """The parsed JSON; None if it is not JSON."""
    content: bytes


class UpstreamReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a call."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed call."""

    items: Sequence[Item]
    model: str = ""
    dimensions: int | None = None
    form: str = "float"
    """The encoding of the vectors: `float`, `base64` or `base64_int8`."""
    purpose: str = ""
    """What the vectors are for, in the protocol's word; empty if the call does not say."""
    echo: str = ""
    """The model's name in the answer; empty for the name in the call."""

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return self.dimensions or self.native

    @property
    def native(self) -> int:
        """The model's own width."""
        return WIDTHS.get(self.model, WIDTH)

    @property
    def reported_model(self) -> str:
        """The model's name in the answer."""
        return self.echo or self.model

    @property
    def tokens(self) -> int:
        """The token count of all items."""
        return sum(map(count, self.items))


class ReplyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A vector in an answer. A misbehaviour may put anything into it."""

    index: Any
    embedding: Any


class RequestRejected(Exception):
    """The provider refuses the call with a 4xx."""

    def __init__(self, status: int, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's side of a protocol."""

    path: str
    """The pattern of the path; its group `model`, if any, is the model."""
    read: Callable[[UpstreamCall, str], UpstreamRequest]
    """Parses a call, given the model in the path."""
    write: Callable[[UpstreamRequest, list[ReplyEntry], Any], Any]
    """Returns the JSON of an answer; the last argument is the token count."""
    error: Callable[[int, str, str], Any]
    """Returns the JSON of a refusal, given its status, message and code."""
    most: int
    """The most items in a call."""
    too_many: str = "batch size {count} > maximum allowed batch size {most}"
    key: str | None = "authorization"
    """The header with the key; None if the provider needs no key."""
    invalid: int = 400
    """The status of a refused call."""
    indexed: bool = False
    """Whether answers number the vectors."""


def count(item: Item) -> int:
    """Return the tokens of an item; a word is a token."""
    return max(1, len(item.split())) if isinstance(item, str) else len(item)


def embedding(item: Item, request: UpstreamRequest, vectors: Vectors) -> Any:
    """Return the vector of an item, encoded as the call asks."""
    # `vector_of` shortens by itself, so that tests get the same bits from it.
    if request.width >= request.native or vectors is vector_of:
        vector = vectors(item, request.width)
    else:
        vector = shorten_vector(vectors(item, request.native), request.width)
    if request.form == "float":
        return [float(value) for value in vector]
    if request.form == "base64_int8":
        vector = np.rint(vector / np.abs(vector).max() * 127).astype(np.int8)
    return base64.b64encode(vector.tobytes()).decode()


# Checks of fields.


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _texts(value: Any) -> bool:
    return _text(value) or (_list(value) and all(map(_text, value)))


def _listed_texts(value: Any) -> bool:
    return _list(value) and all(map(_text, value))


def _list(value: Any) -> bool:
    return isinstance(value, list) and value != []


def _ids(value: Any) -> bool:
    return _list(value) and all(type(each) is int and each >= 0 for each in value)


def _items(value: Any) -> bool:
    """Return whether the value is one or several texts, or one or several lists of token ids."""
    return _texts(value) or _ids(value) or (_list(value) and all(map(_ids, value)))


def _positive(value: Any) -> bool:
    return type(value) is int and value >= 1


def _integer(value: Any) -> bool:
    return type(value) is int


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _one_of(*values: Any) -> FieldCheck:
    return lambda value: value in values


_NUMERIC = _one_of("float", "int8", "uint8", "binary", "ubinary")
_FORMAT = _one_of("float", "base64")
_SIDE = _one_of("NONE", "START", "END")


def _checked(
    value: Any,
    required: Mapping[str, FieldCheck],
    optional: Mapping[str, FieldCheck],
    *,
    invalid: int,
) -> dict[str, Any]:
    """Return the fields of an object after checking each.

    Raises:
        RequestRejected: A field is missing, unknown or invalid.
    """
    if not isinstance(value, dict):
        raise RequestRejected(invalid, "the body is no JSON object")
    fields = cast("dict[str, Any]", value)
    checks = {**optional, **required}
    for name in required.keys() - fields.keys():
        raise RequestRejected(invalid, f"{name}: field required")
    for name, held in fields.items():
        if name not in checks:
            raise RequestRejected(invalid, f"{name}: extra inputs are not permitted")
        if not checks[name](held):
            raise RequestRejected(invalid, f"'$.{name}' is invalid")
    return fields


def _each(value: Any) -> list[Item]:
    """Return the items of a field that may hold one or several."""
    if isinstance(value, str) or _ids(value):
        return [value]
    return cast("list[Item]", value)


# The shapes of errors.


def _nested(status: int, message: str, code: str) -> Any:
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004
    return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


def _detail(_: int, message: str, __: str) -> Any:
    return {"detail": message}


def _details(_: int, message: str, __: str) -> Any:
    return {"detail": [{"loc": ["body", "input"], "msg": message, "type": "value_error"}]}


def _flat(_: int, message: str, __: str) -> Any:
    return {"message": message, "id": "0000"}


def _siliconflow(status: int, message: str, _: str) -> Any:
    if status in {401, 403, 404, 504}:
        return message
    return {"code": 20012, "message": message, "data": None}


def _dashscope(_: int, message: str, code: str) -> Any:
    return {"code": code or "InvalidParameter", "message": message, "request_id": "0000"}


def _google(status: int, message: str, _: str) -> Any:
    words = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}
    word = words.get(status, "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": message, "status": word, "details": []}}


def _jina(status: int, message: str, code: str) -> Any:
    code = code or ("AUTH_INVALID_API_KEY" if status == 401 else "")  # noqa: PLR2004
    return {"detail": message, "code": code, "request_id": "0000"}


def _tei(status: int, message: str, _: str) -> Any:
    kinds = {400: "Empty", 422: "Validation", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
    return {"error": message, "error_type": kinds.get(status, "Backend")}


def _ollama(_: int, message: str, __: str) -> Any:
    return {"error": message}


def _cloudflare(_: int, message: str, __: str) -> Any:
    return {"result": None, "success": False, "errors": [{"code": 5004, "message": message}]}


def _pinecone(status: int, message: str, code: str) -> Any:
    return {"error": {"code": code or "INVALID_ARGUMENT", "message": message}, "status": status}


def _watsonx(status: int, message: str, _: str) -> Any:
    said = [{"code": "invalid_input_argument", "message": message, "more_info": ""}]
    return {"errors": said, "trace": "0000", "status_code": status}


# The dialects of OpenAI's protocol.


def _openai(
    *,
    path: str = "/v1/embeddings",
    fields: Mapping[str, FieldCheck] | None = None,
    required: Mapping[str, FieldCheck] | None = None,
    dimensions: str = "dimensions",
    form: str = "encoding_format",
    ids: bool = False,
    named: bool = True,
    usage: Sequence[str] = ("prompt_tokens", "total_tokens"),
    most: int = 2048,
    error: Callable[[int, str, str], Any] = _nested,
    **more: Any,
) -> Protocol:
    """Make a dialect of OpenAI's protocol.

    Args:
        path: The pattern of the path.
        fields: The optional fields beside input and model.
        required: The further required fields.
        dimensions: The field for the width.
        form: The field for the encoding.
        ids: Whether it accepts token ids.
        named: Whether the model must be in the body.
        usage: The token counts in an answer.
        most: The most items in a call.
        error: The shape of its errors.
        more: Further fields of `Protocol`.
    """
    optional = {**(fields or {}), **({} if named else {"model": _text})}
    must = {"input": _items if ids else _texts, **(required or {})}
    if named:
        must["model"] = _text

    def read(call: UpstreamCall, model: str) -> UpstreamRequest:
        body = _checked(call.body, must, optional, invalid=more.get("invalid", 400))
        return UpstreamRequest(
            items=_each(body["input"]),
            model=body.get("model") or model,
            dimensions=body.get(dimensions),
            form=body.get(form) or "float",
            purpose=body.get("input_type") or body.get("task") or "",
        )

    def write(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
        answer: dict[str, Any] = {
            "object": "list",
            "data": _data(entries),
            "model": request.reported_model,
        }
        if usage:
            answer["usage"] = dict.fromkeys(usage, tokens)
        return answer

    return Protocol(path=path, read=read, write=write, error=error, most=most, indexed=True, **more)


def _data(entries: list[ReplyEntry]) -> list[dict[str, Any]]:
    # Leave out an index or a vector that is None; a misbehaviour writes null itself.
    return [
        {
            "object": "embedding",
            **({} if each.index is None else {"index": each.index}),
            **({} if each.embedding is None else {"embedding": each.embedding}),
        }
        for each in entries
    ]


# Every other protocol.


def _vectors(entries: list[ReplyEntry]) -> list[Any]:
    return [each.embedding for each in entries]


_COHERE_TYPES: FieldCheck = lambda value: (  # noqa: E731  # one of many checks
    _list(value)
    and all(
        _one_of("float", "int8", "uint8", "binary", "ubinary", "base64")(each) for each in value
    )
)
_COHERE_PURPOSES = _one_of("search_document", "search_query", "classification", "clustering")


def _read_cohere(call: UpstreamCall, model: str) -> UpstreamRequest:
    required: dict[str, FieldCheck] = {"texts": _listed_texts, "input_type": _COHERE_PURPOSES}
    if not model:
        required["model"] = _text
    optional: dict[str, FieldCheck] = {
        "embedding_types": _COHERE_TYPES,
        "output_dimension": _one_of(256, 512, 768, 1024, 1536, 2048),
        "truncate": _SIDE,
        "max_tokens": _positive,
        "priority": _integer,
    }
    body = _checked(call.body, required, optional, invalid=400)
    return UpstreamRequest(
        items=body["texts"],
        model=body.get("model") or model,
        dimensions=body.get("output_dimension"),
        form=body.get("embedding_types", ["float"])[0],
        purpose=body["input_type"],
    )


def _write_cohere(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    return {
        "id": "0000",
        "embeddings": {request.form: _vectors(entries)},
        "texts": request.items,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
        "response_type": "embeddings_by_type",
    }


def _read_pinecone(call: UpstreamCall, _: str) -> UpstreamRequest:
    if call.headers.get("x-pinecone-api-version") is None:
        raise RequestRejected(400, "X-Pinecone-Api-Version is missing")
    body = _checked(
        call.body, {"model": _text, "inputs": _list, "parameters": _object}, {}, invalid=400
    )
    inputs = [_checked(each, {"text": _text}, {}, invalid=400) for each in body["inputs"]]
    parameters = _checked(
        body["parameters"],
        {"input_type": _one_of("query", "passage")},
        {"truncate": _SIDE, "dimension": _positive},
        invalid=400,
    )
    return UpstreamRequest(
        items=[each["text"] for each in inputs],
        model=body["model"],
        dimensions=parameters.get("dimension"),
        purpose=parameters["input_type"],
    )


def _write_pinecone(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    return {
        "model": request.reported_model,
        "vector_type": "dense",
        "data": [{"values": each, "vector_type": "dense"} for each in _vectors(entries)],
        "usage": {"total_tokens": tokens},
    }


def _read_snowflake(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(call.body, {"text": _listed_texts, "model": _text}, {}, invalid=400)
    return UpstreamRequest(items=body["text"], model=body["model"])


def _write_snowflake(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    # Leave out a vector that is None, as elsewhere.
    nested = [
        msgspec.structs.replace(
            each, embedding=None if each.embedding is None else [each.embedding]
        )
        for each in entries
    ]
    return {
        "object": "list",
        "data": _data(nested),
        "model": request.reported_model,
        "usage": {"total_tokens": tokens},
    }


_NOMIC_PURPOSES = _COHERE_PURPOSES


def _read_nomic(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"texts": _listed_texts},
        {
            "model": _text,
            "task_type": _NOMIC_PURPOSES,
            "long_text_mode": _one_of("truncate", "mean"),
            "max_tokens_per_text": _positive,
            "dimensionality": _positive,
        },
        invalid=422,
    )
    return UpstreamRequest(
        items=body["texts"],
        model=body.get("model", ""),
        dimensions=body.get("dimensionality"),
        purpose=body.get("task_type", ""),
    )


def _write_nomic(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"embeddings": _vectors(entries), "usage": usage, "model": request.reported_model}


_GOOGLE_TASKS = _one_of(
    *("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION"),
    *("CLUSTERING", "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"),
)
_GEMINI_CONFIG: Mapping[str, FieldCheck] = {
    "taskType": _GOOGLE_TASKS,
    "title": _text,
    "outputDimensionality": _positive,
    "autoTruncate": _boolean,
}


def _read_gemini(call: UpstreamCall, model: str, *, named: bool = True) -> UpstreamRequest:
    body = _checked(call.body, {"requests": _list}, {}, invalid=400)
    items: list[Item] = []
    widths: set[int | None] = set()
    purposes: set[str] = set()
    for each in body["requests"]:
        request = _checked(
            each,
            {"content": _object, **({"model": _one_of(f"models/{model}")} if named else {})},
            {"embedContentConfig": _object, **_GEMINI_CONFIG},
            invalid=400,
        )
        content = _checked(request["content"], {"parts": _list}, {"role": _text}, invalid=400)
        parts = [_checked(part, {"text": _text}, {}, invalid=400) for part in content["parts"]]
        items.append("".join(part["text"] for part in parts))
        config = request.get("embedContentConfig", {})
        config = _checked(config, {}, _GEMINI_CONFIG, invalid=400)
        widths.add(config.get("outputDimensionality", request.get("outputDimensionality")))
        purposes.add(config.get("taskType", request.get("taskType", "")))
    purpose = "" if _ignores_tasks(model) else purposes.pop()
    return UpstreamRequest(items=items, model=model, dimensions=widths.pop(), purpose=purpose)


def _ignores_tasks(model: str) -> bool:
    # Recorded: one text with two task types gives vectors that are equal to the bit.
    return model.startswith("gemini-embedding-2")


def _write_gemini(_: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    return {
        "embeddings": [{"values": each} for each in _vectors(entries)],
        "usageMetadata": {"promptTokenCount": tokens},
    }


def _read_gemini_one(call: UpstreamCall, model: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"content": _object},
        {"model": _text, "embedContentConfig": _object, **_GEMINI_CONFIG},
        invalid=400,
    )
    content = _checked(body["content"], {"parts": _list}, {"role": _text}, invalid=400)
    parts = [_checked(part, {"text": _text}, {}, invalid=400) for part in content["parts"]]
    config = _checked(body.get("embedContentConfig", {}), {}, _GEMINI_CONFIG, invalid=400)
    return UpstreamRequest(
        items=["".join(part["text"] for part in parts)],
        model=model,
        dimensions=config.get("outputDimensionality", body.get("outputDimensionality")),
        purpose="" if _ignores_tasks(model) else config.get("taskType", body.get("taskType", "")),
    )


def _write_gemini_one(_: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    # A misbehaviour may have removed the only vector.
    values = next(iter(_vectors(entries)), None)
    return {"embedding": {"values": values}, "usageMetadata": {"promptTokenCount": tokens}}


def _read_vertex(call: UpstreamCall, model: str) -> UpstreamRequest:
    body = _checked(
        call.body, {"instances": _list}, {"parameters": _object, "labels": _object}, invalid=400
    )
    instances = [
        _checked(
            each, {"content": _text}, {"task_type": _GOOGLE_TASKS, "title": _text}, invalid=400
        )
        for each in body["instances"]
    ]
    parameters = _checked(
        body.get("parameters", {}),
        {},
        {"autoTruncate": _boolean, "outputDimensionality": _positive},
        invalid=400,
    )
    return UpstreamRequest(
        items=[each["content"] for each in instances],
        model=model,
        dimensions=parameters.get("outputDimensionality"),
        purpose=instances[0].get("task_type", ""),
    )


def _write_vertex(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    # Vertex reports tokens for each item. Their sum is right unless the misbehaviour changed it.
    right = tokens == request.tokens
    counts = [count(item) for item in request.items] if right else [tokens] * len(request.items)
    counts += [0] * len(entries)
    return {
        "predictions": [
            {"embeddings": {"values": each, "statistics": {"token_count": n, "truncated": False}}}
            for each, n in zip(_vectors(entries), counts, strict=False)
        ],
        "metadata": {"billableCharacterCount": sum(map(len, request.items))},
    }


def _read_titan(call: UpstreamCall, model: str) -> UpstreamRequest:
    optional: dict[str, FieldCheck] = {}
    if model.startswith("arn:"):
        model = "amazon.titan-embed-text-v2:0"  # the model of every inference profile here
    if "v2" in model:
        optional = {
            "dimensions": _one_of(256, 512, 1024),
            "normalize": _boolean,
            "embeddingTypes": _one_of(["float"]),
        }
    body = _checked(call.body, {"inputText": _text}, optional, invalid=400)
    return UpstreamRequest(
        items=[body["inputText"]], model=model, dimensions=body.get("dimensions")
    )


def _write_titan(_: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    vector = next(iter(_vectors(entries)), None)
    return {
        "embedding": vector,
        "embeddingsByType": {"float": vector},
        "inputTextTokenCount": tokens,
    }


def _read_ollama(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"model": _text, "input": _texts},
        {
            "truncate": _boolean,
            "dimensions": _positive,
            "keep_alive": lambda value: isinstance(value, str | int),
            "options": _object,
        },
        invalid=400,
    )
    return UpstreamRequest(
        items=_each(body["input"]), model=body["model"], dimensions=body.get("dimensions")
    )


def _write_ollama(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    return {
        "model": request.reported_model,
        "embeddings": _vectors(entries),
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": tokens,
    }


def _tei_items(value: Any) -> bool:
    return _text(value) or _ids(value) or (_list(value) and all(_text(x) or _ids(x) for x in value))


def _read_tei(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"inputs": _tei_items},
        {
            "truncate": _boolean,
            "truncation_direction": _one_of("left", "right", "Left", "Right"),
            "prompt_name": _text,
            "normalize": _boolean,
            "dimensions": _positive,
        },
        invalid=422,
    )
    return UpstreamRequest(
        items=_each(body["inputs"]),
        dimensions=body.get("dimensions"),
        purpose=body.get("prompt_name", ""),
    )


def _read_huggingface(call: UpstreamCall, model: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"inputs": _texts},
        {
            "truncate": _boolean,
            "truncation_direction": _one_of("Left", "Right", "left", "right"),
            "prompt_name": _text,
            "normalize": _boolean,
        },
        invalid=422,
    )
    return UpstreamRequest(
        items=_each(body["inputs"]), model=model, purpose=body.get("prompt_name", "")
    )


def _write_bare(_: UpstreamRequest, entries: list[ReplyEntry], __: Any) -> Any:
    return _vectors(entries)


def _read_cloudflare(call: UpstreamCall, model: str) -> UpstreamRequest:
    pooled: dict[str, FieldCheck] = {}
    if model.endswith("-en-v1.5"):
        pooled = {"pooling": _one_of("mean", "cls")}
    optional = {"truncate_inputs": _boolean, **pooled}
    body = _checked(call.body, {"text": _texts}, optional, invalid=400)
    # The pooling changes the vectors, as the purpose does elsewhere.
    purpose = body.get("pooling", "mean") if pooled else ""
    return UpstreamRequest(items=_each(body["text"]), model=model, purpose=purpose)


def _write_cloudflare(request: UpstreamRequest, entries: list[ReplyEntry], _: Any) -> Any:
    result: dict[str, Any] = {
        "shape": [len(request.items), request.width],
        "data": _vectors(entries),
    }
    if request.purpose:
        result["pooling"] = request.echo or request.purpose
    return {"result": result, "success": True, "errors": [], "messages": []}


def _read_dashscope(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(
        call.body, {"model": _text, "input": _object}, {"parameters": _object}, invalid=400
    )
    texts = _checked(body["input"], {"texts": _listed_texts}, {}, invalid=400)["texts"]
    known: dict[str, FieldCheck] = {
        "text_type": _one_of("query", "document"),
        "dimension": _positive,
        "output_type": _one_of("dense", "sparse", "dense&sparse"),
        "instruct": _text,
    }
    parameters = _checked(body.get("parameters", {}), {}, known, invalid=400)
    return UpstreamRequest(
        items=texts,
        model=body["model"],
        dimensions=parameters.get("dimension"),
        purpose=parameters.get("text_type", ""),
    )


def _write_dashscope(_: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    listed = [
        {
            **({} if each.index is None else {"text_index": each.index}),
            **({} if each.embedding is None else {"embedding": each.embedding}),
        }
        for each in entries
    ]
    output = {"embeddings": listed}
    return {"output": output, "usage": {"total_tokens": tokens}, "request_id": "0000"}


def _read_watsonx(call: UpstreamCall, _: str) -> UpstreamRequest:
    body = _checked(
        call.body,
        {"inputs": _listed_texts, "model_id": _text},
        {"project_id": _text, "space_id": _text, "parameters": _object},
        invalid=400,
    )
    if ("project_id" in body) == ("space_id" in body):
        raise RequestRejected(400, "one of project_id and space_id is needed")
    if "version" not in call.query:
        raise RequestRejected(400, "version: query parameter required")
    known: dict[str, FieldCheck] = {"truncate_input_tokens": _integer, "return_options": _object}
    _checked(body.get("parameters", {}), {}, known, invalid=400)
    return UpstreamRequest(items=body["inputs"], model=body["model_id"])


def _write_watsonx(request: UpstreamRequest, entries: list[ReplyEntry], tokens: Any) -> Any:
    return {
        "model_id": request.reported_model,
        "created_at": "2026-11-20T10:00:00.000Z",
        "results": [{"embedding": each} for each in _vectors(entries)],
        "input_token_count": tokens,
    }


def _azure(
    call: UpstreamCall, model: str, *, read: Callable[[UpstreamCall, str], UpstreamRequest]
) -> UpstreamRequest:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", call.query.get("api-version", "")):
        raise RequestRejected(404, "Resource not found", code="404")
    request = read(call, model)
    return msgspec.structs.replace(request, model=model)


_DIMENSIONS: Mapping[str, FieldCheck] = {"dimensions": _positive}
_BASE64: Mapping[str, FieldCheck] = {"encoding_format": _FORMAT}
_USER: Mapping[str, FieldCheck] = {"user": _text}
_OURS = {**_DIMENSIONS, **_BASE64, **_USER}
_NVIDIA: Mapping[str, FieldCheck] = {
    **_OURS,
    "truncate": _SIDE,
    "modality": _text,
    "embedding_type": _NUMERIC,
}
_NVIDIA_PURPOSE: Mapping[str, FieldCheck] = {"input_type": _one_of("query", "passage")}
_GEMINI = r"/v1beta/models/(?P<model>[^/:]+)"
_VERTEX = r"/v1/projects/[^/]+/locations/[^/]+/publishers/google/models/(?P<model>[^/:]+)"
_AZURE = _openai(
    path=r"/openai/deployments/(?P<model>[^/]+)/embeddings",
    fields={**_OURS, "input_type": _text},
    ids=True,
    named=False,
    key="api-key",
)

SPOKEN: Mapping[str, Sequence[Protocol]] = {
    "openai": [
        _openai(
            fields=_OURS,
            ids=True,
            too_many="'$.input' is invalid. Please check the API reference: array length must be "
            "{most} or less.",
        )
    ],
    "azure": [
        msgspec.structs.replace(_AZURE, read=partial(_azure, read=_AZURE.read)),
    ],
    "mistral": [
        _openai(
            fields={
                **_BASE64,
                "output_dimension": _positive,
                "output_dtype": _NUMERIC,
                "metadata": _object,
            },
            dimensions="output_dimension",
            usage=("prompt_tokens", "completion_tokens", "total_tokens"),
            error=_details,
            invalid=422,
        )
    ],
    "voyage": [
        _openai(
            fields={
                "input_type": _one_of(None, "query", "document"),
                "truncation": _boolean,
                "output_dimension": _positive,
                "output_dtype": _NUMERIC,
                "encoding_format": _one_of(None, "base64"),
            },
            dimensions="output_dimension",
            usage=("total_tokens",),
            most=1000,
            too_many="The batch size limit is {most}. Your batch size is {count}.",
            error=_detail,
        )
    ],
    "jina": [
        _openai(
            fields={
                **_DIMENSIONS,
                "embedding_type": _one_of("float", "base64"),
                "task": _text,
                "normalized": _boolean,
                "truncate": _boolean,
                "late_chunking": _boolean,
                "return_multivector": _boolean,
            },
            form="embedding_type",
            too_many="input length is larger than the largest allowed size {most}",
            error=_jina,
        )
    ],
    "together": [_openai(usage=())],
    "fireworks": [
        _openai(
            path="/inference/v1/embeddings",
            fields={
                **_DIMENSIONS,
                "prompt_template": _text,
                "return_logits": _list,
                "normalize": _boolean,
            },
        )
    ],
    "deepinfra": [
        _openai(
            fields={
                **_BASE64,
                "dimensions": lambda value: _positive(value) and value >= 32,  # noqa: PLR2004
                "service_tier": _one_of("default", "priority", "flex"),
            },
            most=1024,
            error=_details,
            invalid=422,
        )
    ],
    "nebius": [_openai(fields={**_OURS, "service_tier": _text}, error=_details, invalid=422)],
    "scaleway": [_openai()],
    "ovh": [_openai(fields=_OURS, ids=True)],
    "siliconflow": [_openai(fields={**_DIMENSIONS, **_BASE64}, most=32, error=_siliconflow)],
    "dashscope": [
        Protocol(
            path="/api/v1/services/embeddings/text-embedding/text-embedding",
            read=_read_dashscope,
            write=_write_dashscope,
            indexed=True,
            most=10,
            too_many="<400> InternalError.Algo.InvalidParameter: Value error, batch size is "
            "invalid, it should not be larger than {most}.: input.contents",
            error=_dashscope,
        )
    ],
    "databricks": [_openai(path="/serving-endpoints/embeddings", fields={"instruction": _text})],
    "perplexity": [
        _openai(
            fields=_DIMENSIONS,
            required={"encoding_format": _one_of("base64_int8")},
            most=512,
        )
    ],
    "nvidia": [_openai(fields=_NVIDIA, required=_NVIDIA_PURPOSE)],
    "nim": [_openai(fields=_NVIDIA, required=_NVIDIA_PURPOSE, key=None)],
    "lmstudio": [_openai(key=None)],
    "llamacpp": [_openai(fields=_BASE64, key=None)],
    "vllm": [
        _openai(
            fields={
                **_OURS,
                "truncate_prompt_tokens": _integer,
                "truncation_side": _one_of("left", "right"),
                "add_special_tokens": _boolean,
                "priority": _integer,
                "embed_dtype": _one_of("float32"),
                "endianness": _one_of("native", "little"),
                "use_activation": _boolean,
            },
            ids=True,
            key=None,
        )
    ],
    "openrouter": [
        _openai(
            path="/api/v1/embeddings", fields={**_OURS, "input_type": _text, "provider": _object}
        )
    ],
    "vercel": [_openai(fields=_DIMENSIONS)],
    "novita": [_openai(path="/openai/v1/embeddings", fields=_BASE64)],
    "venice": [_openai(path="/api/v1/embeddings", fields=_OURS)],
    "mixedbread": [
        _openai(
            fields={**_DIMENSIONS, **_BASE64, "normalized": _boolean, "prompt": _text}, most=256
        )
    ],
    "xinference": [_openai(key=None)],
    "localai": [_openai(key=None)],
    "dockermodelrunner": [_openai(path="/engines/v1/embeddings", key=None)],
    "infinity": [
        _openai(path="/embeddings", fields={**_OURS, "modality": _text}, key=None, invalid=422)
    ],
    "cohere": [
        Protocol(
            path="/v2/embed",
            read=_read_cohere,
            write=_write_cohere,
            error=_flat,
            most=96,
            too_many="invalid request: total number of texts must be at most {most} - received "
            "{count}",
        )
    ],
    "foundry": [
        Protocol(
            path="/providers/cohere/v2/embed",
            read=_read_cohere,
            write=_write_cohere,
            error=_flat,
            most=96,
            key="api-key",
        )
    ],
    "pinecone": [
        Protocol(
            path="/embed",
            read=_read_pinecone,
            write=_write_pinecone,
            error=_pinecone,
            most=96,
            too_many="Input length '{count}' exceeds inputs limit of {most} for model",
            key="api-key",
        )
    ],
    "snowflake": [
        Protocol(
            path="/api/v2/cortex/inference:embed",
            read=_read_snowflake,
            write=_write_snowflake,
            error=_flat,
            most=2048,
            indexed=True,
        )
    ],
    "nomic": [
        Protocol(
            path="/v1/embedding/text",
            read=_read_nomic,
            write=_write_nomic,
            error=_details,
            most=2048,
            invalid=422,
        )
    ],
    "gemini": [
        Protocol(
            path=_GEMINI + ":batchEmbedContents",
            read=_read_gemini,
            write=_write_gemini,
            error=_google,
            most=100,
            too_many="* BatchEmbedContentsRequest.requests: at most {most} requests can be in one "
            "batch",
            key="x-goog-api-key",
        ),
        Protocol(
            path=_GEMINI + ":embedContent",
            read=_read_gemini_one,
            write=_write_gemini_one,
            error=_google,
            most=1,
            key="x-goog-api-key",
        ),
    ],
    "vertex": [
        Protocol(
            path=_VERTEX + ":predict",
            read=_read_vertex,
            write=_write_vertex,
            error=_google,
            most=250,
            too_many="{count} instance(s) are allowed per prediction. Actual: {most}",
        ),
        Protocol(
            path=_VERTEX + ":batchEmbedContents",
            read=partial(_read_gemini, named=False),
            write=_write_gemini,
            error=_google,
            most=100,
        ),
        Protocol(
            path=_VERTEX + ":embedContent",
            read=_read_gemini_one,
            write=_write_gemini_one,
            error=_google,
            most=1,
        ),
    ],
    "bedrock": [
        Protocol(
            path=r"/model/(?P<model>(?:\w+\.)?amazon\.titan-embed[^/]*|arn:[^/]+/\w+)/invoke",
            read=_read_titan,
            write=_write_titan,
            error=_flat,
            most=1,
        ),
        Protocol(
            path=r"/model/(?P<model>(?:\w+\.)?cohere\.embed[^/]*)/invoke",
            read=_read_cohere,
            write=_write_cohere,
            error=_flat,
            most=96,
            too_many="invalid request: total number of texts must be at most {most}",
        ),
    ],
    "ollama": [
        Protocol(
            path="/api/embed",
            read=_read_ollama,
            write=_write_ollama,
            error=_ollama,
            most=2048,
            key=None,
        )
    ],
    "tei": [
        Protocol(
            path="/embed",
            read=_read_tei,
            write=_write_bare,
            error=_tei,
            most=32,
            key=None,
            invalid=422,
        )
    ],
    "huggingface": [
        Protocol(
            path=r"/(?:hf-inference/)?models/(?P<model>.+?)(?:/pipeline/feature-extraction)?",
            read=_read_huggingface,
            write=_write_bare,
            error=_ollama,
            most=2048,
        )
    ],
    "cloudflare": [
        Protocol(
            path=r"/client/v4/accounts/[^/]+/ai/run/(?P<model>.+)",
            read=_read_cloudflare,
            write=_write_cloudflare,
            error=_cloudflare,
            most=100,
        )
    ],
    "watsonx": [
        Protocol(
            path="/ml/v1/text/embeddings",
            read=_read_watsonx,
            write=_write_watsonx,
            error=_watsonx,
            most=1000,
        )
    ],
}
"""The protocols of each provider. Without a name in the path, the first that matches answers."""
