"""Turns providers' error replies into `ProviderError`s, by tables of statuses, codes and words.

Reads every shape of body: `{"error": {...}}`, `{"error": "..."}`, a flat `message`, `detail` as a
string or a list, `errors`, a bare string, or nothing.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import msgspec

from embedway.core.provider_error import Billable, FailureKind, ProviderError
from embedway.http.call import HttpReply
from embedway.providers import waits

MAX_REASON_CHARACTERS = 240
MAX_READ_CHARACTERS = 4096

_JSON = msgspec.json.Decoder()

# Patterns for the error's code or type in lower case. The first match wins. Most providers use the
# same few words there.
CODES: tuple[tuple[str, FailureKind], ...] = (
    (r"insufficient_quota|insufficient_balance|billing|quota_exceeded|arrearage", "quota"),
    (r"authz_resource_limit_exceeded", "quota"),  # Jina, 403: a limit of the plan
    (r"freetieronly", "quota"),  # DashScope, 403 AllocationQuota.FreeTierOnly
    (r"max_tokens_per_request", "batch_too_large"),
    (r"context_length_exceeded|input_token_limit_exceeded|exceed_context_size", "item_too_long"),
    (r"model_not_found|input_model_not_found|deploymentnotfound|resourcenotfound", "model"),
    # Azure, 400 (github.com/Azure-Samples/azure-search-openai-demo, 3057, 2026-05-11)
    (r"unavailable_model|unknown_model", "model"),
    (r"invalid_api_key|auth_|authz_|authentication|unauthenticated|permission_denied|"
     r"unrecognizedclient|expiredtoken|accessdenied|invalidsignature|invalidapikey|"
     r"incompletesignature|missingauthenticationtoken", "credentials"),
    (r"rate_limit|ratelimit|(?<![a-z])rate_|resource_exhausted|throttl|too_?many_?requests|slow_down|"
     r"toomanyrequests|servicequotaexceeded", "rate_limit"),
    (r"overloaded|service_unavailable|serviceunavailable|unavailable|modelnotready|unhealthy",
     "overloaded"),
    (r"modeltimeout|timeout|deadline_exceeded", "timeout"),
)  # fmt: skip

# Patterns for the message.
WORDS: tuple[tuple[str, FailureKind], ...] = (
    # Phrases of single providers, from the replies in tests/providers/wire.
    (r"quota of [\w/ ]{1,40} per (minute|second)", "rate_limit"),  # Scaleway, 429: not the account
    (r"'loc': \('body', 'dimensions'\)", "dimensions"),  # NVIDIA: Pydantic's error as Python text
    (r"instance\(s\) is allowed per prediction", "batch_too_large"),  # Vertex AI
    (r"exceeds the available context size", "item_too_long"),  # llama.cpp
    (r"not allowed to generate embeddings from this model", "model"),  # OpenAI, 403
    (r"^model disabled", "model"),  # SiliconFlow, 403
    (r"^\S+ is not a valid model id", "model"),  # OpenRouter, 400
    (r"^no models loaded", "model"),  # LM Studio, 400
    (r"^no route for that uri", "model"),  # Cloudflare, 400, for names without @cf/
    (r"reduced rate limits", "rate_limit"),  # Voyage, for accounts without a means of payment
    # Fireworks, 412 (github.com/pollinations/pollinations, 12136, 2026-07-01)
    (r"^account .{0,80} is suspended", "quota"),
    (r"^\[authz_resource_limit_exceeded\]", "quota"),  # Jina, 403, without a code
    (r"^user location is not supported|not available in your (country|region)", "quota"),  # Gemini
    (r"calls / month|daily free allocation", "quota"),
    (r"does not support (specifying )?(the parameter )?[`'\"]?dimensions|"
     r"[`'\"]?(output_?)?dimension(s|ality)?[`'\"]? (is|are|must|not|should|has)|"
     r"matryoshka|invalid (output_?)?dimension|\[output_dimension\] is not permitted|"
     r"#/(\w+/)*\w*dimensions?:", "dimensions"),
    # OpenAI, for text-embedding-ada-002
    (r"unrecognized request argument supplied: dimensions", "dimensions"),
    # Cohere (docs.cohere.com/reference/errors). The next row would take it for a large batch.
    (r"number of tokens in the prompt cannot exceed", "item_too_long"),
    (r"max \d+ tokens per request|total number of (texts|tokens)|number of texts must|"
     r"batch[ _-]?size|too many (inputs|texts|items)|array length|largest allowed size|"
     r"at most \d+ (texts|inputs|requests|items)|number of inputs|"
     r"expected maximum item count|list should have at most|"
     r"supports up to \d+|max allowed tokens per submitted batch|split into more batches|"
     r"too many tokens (in batch|overall)", "batch_too_large"),
    (r"maximum context length|context[ _]length|too long|token limit|exceeds? the (max|context)|"
     r"too many (input )?tokens|n_ctx|must have less than \d+ tokens|range of input length|"
     r"longer than the (specified )?maximum|expected maxlength|"
     r"maximum (allowed |input )?(number of )?token|"
     r"prefill \d+ tokens|input is too large", "item_too_long"),
    (r"maximum input length is \d+", "item_too_long"),  # OpenAI: Invalid 'input[1]': ...
    (r"must have less than \d+ characters", "item_too_long"),  # TEI, 413 or 422
    (r"(text|input) cannot exceed \d+ tokens", "item_too_long"),  # Jina (pingcap/autoflow, 282)
    (r"^max tokens of \d+ exceeded", "item_too_long"),  # Snowflake, 400 (embed REST API)
    (r"model[ =].{0,80}(not found|does not exist|is not supported|not available|unknown)|"
     r"no such model|unknown model|invalid model|does not have access to model|"
     r"supported by provider|model identifier is invalid|"
     r"deployment for this resource does not exist", "model"),
    (r"with on-demand throughput isn.t supported", "model"),  # Bedrock: needs a profile
    # Only at the beginning, because the rest may quote a text.
    (r"^.{0,60}(api[ _-]?key|api token|invalid token|unauthori[sz]ed|forbidden|permission)",
     "credentials"),
    (r"^.{0,60}(quota|billing|credit|balance|payment)", "quota"),
    (r"^.{0,60}(rate[ _]limit|too many requests|per minute|tpm limit|rpm limit)", "rate_limit"),
    (r"^.{0,60}(overloaded|no capacity|out of capacity|currently loading|unavailable)",
     "overloaded"),
)  # fmt: skip

# Messages with a status of 500 and above that are about the input or the model. Only phrases of
# known servers, because other messages may be part of a traceback.
SERVER_WORDS: tuple[tuple[str, FailureKind], ...] = (
    (r"increase the physical batch size", "item_too_long"),  # llama.cpp, 500
    # Ollama, 500
    (r"exceeds? (the )?(maximum |available )?context (length|size)", "item_too_long"),
    (r"failed to encode response: json: unsupported value: (nan|[+-]inf)", "item_failed"),  # Ollama
    (r"this server does not support embeddings", "model"),  # llama.cpp and Ollama, 501
)  # fmt: skip

# Kinds by the status alone.
STATUSES: Mapping[int, FailureKind] = {
    401: "credentials",
    402: "quota",
    403: "credentials",
    404: "model",
    408: "timeout",
    409: "overloaded",
    410: "model",  # NVIDIA, for retired models
    412: "quota",  # Fireworks, for the account (docs.fireworks.ai, inference error codes)
    413: "batch_too_large",
    424: "failed",  # TEI, for its backend
    425: "overloaded",
    429: "rate_limit",
    498: "request",  # Cohere, for a token on its deny list
    499: "failed",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}

# The kinds that words may turn a status's own kind into, where not all are possible.
REFINEMENTS: Mapping[FailureKind, frozenset[FailureKind]] = {
    "credentials": frozenset({"quota", "model"}),
    "rate_limit": frozenset({"quota"}),
    "model": frozenset(),
    "quota": frozenset(),  # Cohere and Gemini, 402, whatever the words
}

# Words about the operator's account. Clients never read messages that have one.
OPERATOR_WORDS = re.compile(
    r"\b(account|billing|invoice|payment|credits?\b|balance|quota|subscription|permission|region|"
    r"location|country|organi[sz]ation|workspace|tenant|free tier|spending|precondition check|"
    r"acct\b|(team|user|project) (?!field|param|value|name|id\b)\S+ "
    r"(has (been|exceeded|reached|no)|is (not (verified|active|allowed|enabled)|inactive|disabled|"
    r"suspended|blocked)))\b",
    re.IGNORECASE,
)

_CLIENT_KINDS: frozenset[FailureKind] = frozenset(
    {"dimensions", "batch_too_large", "item_too_long", "model", "request"}
)
_OPERATOR_KINDS: frozenset[FailureKind] = frozenset({"credentials", "quota"})
_CONTENT_STATUSES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_BILLED: Mapping[FailureKind, Billable] = {
    "failed": "maybe",
    "timeout": "maybe",
    "malformed": "yes",
}
_TOKENS = re.compile(
    # The last two are DashScope's words for its limit of tokens per minute.
    r"token|\btpm\b|insufficient_quota|allocation_?quota",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)(['\"`]).*?(?:\1(?!\w)|$)", re.DOTALL)
# How messages name the field at fault, and the index if it is a list.
_FIELDS = (
    re.compile(r"^unrecognized request arguments? supplied: (\w+)()", re.IGNORECASE),  # OpenAI
    re.compile(r"extraneous key \[(\w+)\]()"),  # Bedrock
    re.compile(r"^invalid '(\w+)(?:\[(\d{1,6})\])?'", re.IGNORECASE),  # OpenAI
    # vLLM: Pydantic's errors as Python text
    re.compile(r"'loc': \('body', '(\w+)'(?:, (\d{1,6}))?"),
    re.compile(r"\b(encoding_?format|embedding_?types?)\b()", re.IGNORECASE),  # anywhere
)
_PARAM = re.compile(r"(\w{1,64})(?:\[(\d{1,6})\])?", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+")
# Keys and what looks like one, which providers quote in "Incorrect API key provided: ...". Also
# accounts of AWS and Google, which are in names of models, and people's addresses.
_SECRET = re.compile(
    r"\b(?:sk|pk|jina|hf|gsk|nvapi|org|proj)[-_][\w\-.*/+=]{4,}|\bBearer\s+\S+|"
    r"\b(?:AIza|ya29|eyJ|AKIA|ASIA)[\w\-.]{8,}|[\w\-]*\*{3,}[\w\-]*|"
    r"\b(?=[A-Za-z_\-+/=]*\d)[\w\-+/=]{28,}|"
    r"\barn:[^\s'\"`]+|\bprojects/[^\s/'\"`]+|\b[\w.+\-]{1,64}@[\w\-]{1,64}\.[\w.\-]+",
    re.IGNORECASE,
)


def read_error(reply: HttpReply, patterns: Sequence[tuple[str, FailureKind]] = ()) -> ProviderError:
    """Return the failure that `reply` reports, whatever its status.

    Args:
        reply: The provider's reply.
        patterns: The provider's own patterns and kinds. They come before all tables.
    """
    message, code, field, item = _parse(reply.body)
    kind = _first_match(patterns, f"{code} {message}".lower()) or classify(
        reply.status, code, message, field=field, client_words=reply.client_words
    )
    is_quotable = kind in _CLIENT_KINDS and not OPERATOR_WORDS.search(message)
    was_refused = kind == "failed" and reply.status in _CONTENT_STATUSES
    return ProviderError(
        kind,
        clean_reason(message) if is_quotable else "",
        billed="no" if was_refused else _BILLED.get(kind, "no"),
        retry_after_s=waits.retry_after_s(reply.headers, message),
        of_tokens=bool(_TOKENS.search(f"{code} {message}")),
        field=field,
        item=item,
    )


def classify(
    status: int,
    code: str,
    message: str,
    *,
    field: str = "",
    client_words: Collection[str] = (),
) -> FailureKind:
    """Return the kind of a failure.

    Args:
        status: The status of the reply.
        code: The error's code, type and the like, separated by spaces.
        message: The error's message.
        field: The field of the request that the error names; empty if none.
        client_words: Words that the client chose, in lower case. In a message they say nothing
            about the operator.
    """
    by_status, text = STATUSES.get(status, "request"), message.lower()
    by_code = _first_match(CODES, code.lower())
    kind = by_code or _first_match(WORDS, text)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if server_kind := _first_match(SERVER_WORDS, text):
            return server_kind
        # Other words about the input may be part of a traceback.
        return kind if kind in {"overloaded", "timeout"} else STATUSES.get(status, "failed")
    if status < HTTPStatus.BAD_REQUEST:
        return kind or "failed"
    unquoted = _QUOTED.sub("", text)
    if client_words:
        unquoted = re.sub(r"\w+", lambda word: "" if word[0] in client_words else word[0], unquoted)
    if kind not in _CLIENT_KINDS and status in _CONTENT_STATUSES and not by_code:
        # Quoted words may be the client's, and must not blame the operator.
        kind = _first_match(WORDS, unquoted)
        kind = kind if kind in _OPERATOR_KINDS else None
    if by_status in REFINEMENTS:
        return kind if kind in REFINEMENTS[by_status] else by_status
    kind = kind or by_status
    if kind == "request" and not field and OPERATOR_WORDS.search(unquoted):
        return "failed"  # not the client's fault, so fail over; one such failure ejects nothing
    return kind


def clean_reason(message: str) -> str:
    """Return `message` for clients: short, printable, and without what looks like a secret."""
    text = _UNPRINTABLE.sub(" ", message[: 4 * MAX_REASON_CHARACTERS])
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]}..."


def _first_match(table: Sequence[tuple[str, FailureKind]], text: str) -> FailureKind | None:
    return next((kind for pattern, kind in table if text and re.search(pattern, text)), None)


def _parse(body: bytes) -> tuple[str, str, str, int | None]:
    """Return the message and the code of an error body, and the field and item that it names."""
    try:
        value = _JSON.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = body[:MAX_READ_CHARACTERS].decode("utf-8", "replace")
        return message, "", *_find_field([], message)
    code: list[str] = []
    named_fields: list[Any] = []
    for _ in range(4):
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            code += [
                str(fields[name])
                for name in ("code", "type", "status", "error_type", "error_code", "__type")
                if isinstance(fields.get(name), str | int)
            ]
            named_fields += [fields[name] for name in ("param", "loc") if fields.get(name)]
            value = next(
                (
                    fields[name]
                    for name in ("error", "errors", "detail", "message", "msg", "Message")
                    if fields.get(name)
                ),
                "",
            )
        elif isinstance(value, list):
            value = cast("list[Any]", value)[0] if value else ""
        else:
            break
    message = value[:MAX_READ_CHARACTERS] if isinstance(value, str) else ""
    return message, " ".join(code)[:256], *_find_field(named_fields, message)


def _find_field(named_fields: list[Any], message: str) -> tuple[str, int | None]:
    """Return the field that an error names, or "", and the index of the item, or None."""
    for each in named_fields:
        if isinstance(each, str) and (found := _PARAM.fullmatch(each)):
            return found[1], int(found[2]) if found[2] else None
        # FastAPI writes ["body", "input", 3], or leaves out the first.
        if isinstance(each, list):
            path = [step for step in cast("list[Any]", each) if step != "body"]
            if path and isinstance(path[0], str):
                index = path[1] if len(path) > 1 else None
                return path[0], index if type(index) is int and index >= 0 else None
    for pattern in _FIELDS:
        if found := pattern.search(message):
            return found[1], int(found[2]) if found[2] else None
    return "", None
