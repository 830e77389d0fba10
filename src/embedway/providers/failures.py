"""What a provider's error reply means: from status, code and words to a `ProviderError`, by table.

Reads every shape there is: `{"error": {...}}`, `{"error": "..."}`, flat `message`, `detail` as a
string or a list, `errors`, a bare string, nothing at all.
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

# By what the error's code or type says, in lower case; the first that matches wins. Most providers
# put the same few words there.
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

# By what the message says.
WORDS: tuple[tuple[str, FailureKind], ...] = (
    # Whole phrases of one provider each, in replies that tests/providers/wire holds.
    (r"quota of [\w/ ]{1,40} per (minute|second)", "rate_limit"),  # Scaleway, 429: no spent account
    (r"'loc': \('body', 'dimensions'\)", "dimensions"),  # NVIDIA: Pydantic's, as Python writes it
    (r"instance\(s\) is allowed per prediction", "batch_too_large"),  # Vertex AI
    (r"exceeds the available context size", "item_too_long"),  # llama.cpp
    (r"not allowed to generate embeddings from this model", "model"),  # OpenAI, 403
    (r"^model disabled", "model"),  # SiliconFlow, 403
    (r"^\S+ is not a valid model id", "model"),  # OpenRouter, 400
    (r"^no models loaded", "model"),  # LM Studio, 400
    (r"^no route for that uri", "model"),  # Cloudflare, 400, of a name without @cf/
    (r"reduced rate limits", "rate_limit"),  # Voyage, of accounts without a means of payment
    # Fireworks, 412 (github.com/pollinations/pollinations, 12136, 2026-07-01)
    (r"^account .{0,80} is suspended", "quota"),
    (r"^\[authz_resource_limit_exceeded\]", "quota"),  # Jina, 403, where it gives no code
    (r"^user location is not supported|not available in your (country|region)", "quota"),  # Gemini
    (r"calls / month|daily free allocation", "quota"),
    (r"does not support (specifying )?(the parameter )?[`'\"]?dimensions|"
     r"[`'\"]?(output_?)?dimension(s|ality)?[`'\"]? (is|are|must|not|should|has)|"
     r"matryoshka|invalid (output_?)?dimension|\[output_dimension\] is not permitted|"
     r"#/(\w+/)*\w*dimensions?:", "dimensions"),
    # OpenAI, of text-embedding-ada-002
    (r"unrecognized request argument supplied: dimensions", "dimensions"),
    # Cohere (docs.cohere.com/reference/errors); in the next row it would be of a whole batch.
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
    (r"^max tokens of \d+ exceeded", "item_too_long"),  # Snowflake, 400 (its embed REST API)
    (r"model[ =].{0,80}(not found|does not exist|is not supported|not available|unknown)|"
     r"no such model|unknown model|invalid model|does not have access to model|"
     r"supported by provider|model identifier is invalid|"
     r"deployment for this resource does not exist", "model"),
    (r"with on-demand throughput isn.t supported", "model"),  # Bedrock: only by a profile
    # Only at its beginning: further on it may be quoting a text.
    (r"^.{0,60}(api[ _-]?key|api token|invalid token|unauthori[sz]ed|forbidden|permission)",
     "credentials"),
    (r"^.{0,60}(quota|billing|credit|balance|payment)", "quota"),
    (r"^.{0,60}(rate[ _]limit|too many requests|per minute|tpm limit|rpm limit)", "rate_limit"),
    (r"^.{0,60}(overloaded|no capacity|out of capacity|currently loading|unavailable)",
     "overloaded"),
)  # fmt: skip

# What a status of 500 and above says of the input or the model, not of the server's own trouble.
# Whole phrases of known servers only: such a message may as well be a part of a traceback.
SERVER_WORDS: tuple[tuple[str, FailureKind], ...] = (
    (r"increase the physical batch size", "item_too_long"),  # llama.cpp, 500
    # Ollama, 500
    (r"exceeds? (the )?(maximum |available )?context (length|size)", "item_too_long"),
    (r"failed to encode response: json: unsupported value: (nan|[+-]inf)", "item_failed"),  # Ollama
    (r"this server does not support embeddings", "model"),  # llama.cpp and Ollama, 501
)  # fmt: skip

# By the status alone.
STATUSES: Mapping[int, FailureKind] = {
    401: "credentials",
    402: "quota",
    403: "credentials",
    404: "model",
    408: "timeout",
    409: "overloaded",
    410: "model",  # NVIDIA: its end of life
    412: "quota",  # Fireworks: the account's standing (docs.fireworks.ai, inference error codes)
    413: "batch_too_large",
    424: "failed",  # TEI: its backend
    425: "overloaded",
    429: "rate_limit",
    498: "request",  # Cohere: a token on its deny list
    499: "failed",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}

# Statuses that words may make no more than this of.
REFINED: Mapping[FailureKind, frozenset[FailureKind]] = {
    "credentials": frozenset({"quota", "model"}),
    "rate_limit": frozenset({"quota"}),
    "model": frozenset(),
    "quota": frozenset(),  # Cohere and Gemini, 402, in whatever words
}

# What a message speaks of that is the operator's alone. No client reads it, whatever failed.
OPERATORS = re.compile(
    r"\b(account|billing|invoice|payment|credits?\b|balance|quota|subscription|permission|region|"
    r"location|country|organi[sz]ation|workspace|tenant|free tier|spending|precondition check|"
    r"acct\b|(team|user|project) (?!field|param|value|name|id\b)\S+ "
    r"(has (been|exceeded|reached|no)|is (not (verified|active|allowed|enabled)|inactive|disabled|"
    r"suspended|blocked)))\b",
    re.IGNORECASE,
)

_OF_CLIENT: frozenset[FailureKind] = frozenset(
    {"dimensions", "batch_too_large", "item_too_long", "model", "request"}
)
_OF_OPERATOR: frozenset[FailureKind] = frozenset({"credentials", "quota"})
_OF_CONTENT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_BILLED: Mapping[FailureKind, Billable] = {
    "failed": "maybe",
    "timeout": "maybe",
    "malformed": "yes",
}
_TOKENS = re.compile(
    # DashScope's two words for its limit of tokens a minute are the last.
    r"token|\btpm\b|insufficient_quota|allocation_?quota",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)(['\"`]).*?(?:\1(?!\w)|$)", re.DOTALL)
# How messages name the field of the request at fault, and of a list the item.
_FIELDS = (
    re.compile(r"^unrecognized request arguments? supplied: (\w+)()", re.IGNORECASE),  # OpenAI
    re.compile(r"extraneous key \[(\w+)\]()"),  # Bedrock
    re.compile(r"^invalid '(\w+)(?:\[(\d{1,6})\])?'", re.IGNORECASE),  # OpenAI
    # vLLM: Pydantic's errors, as Python writes them.
    re.compile(r"'loc': \('body', '(\w+)'(?:, (\d{1,6}))?"),
    re.compile(r"\b(encoding_?format|embedding_?types?)\b()", re.IGNORECASE),  # in any words
)
_PARAM = re.compile(r"(\w{1,64})(?:\[(\d{1,6})\])?", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+")
# Keys and what looks like one; a provider likes to repeat it in "Incorrect API key provided: ...".
# And names of accounts: of AWS and Google in the name of a model, or a person's address.
_SECRET = re.compile(
    r"\b(?:sk|pk|jina|hf|gsk|nvapi|org|proj)[-_][\w\-.*/+=]{4,}|\bBearer\s+\S+|"
    r"\b(?:AIza|ya29|eyJ|AKIA|ASIA)[\w\-.]{8,}|[\w\-]*\*{3,}[\w\-]*|"
    r"\b(?=[A-Za-z_\-+/=]*\d)[\w\-+/=]{28,}|"
    r"\barn:[^\s'\"`]+|\bprojects/[^\s/'\"`]+|\b[\w.+\-]{1,64}@[\w\-]{1,64}\.[\w.\-]+",
    re.IGNORECASE,
)


def read_error(reply: HttpReply, own: Sequence[tuple[str, FailureKind]] = ()) -> ProviderError:
    """The failure that `reply` reports, be its status what it may.

    Args:
        reply: What the provider answered.
        own: What this provider's words mean; they go before all tables.
    """
    message, code, field, item = _said(reply.body)
    own_kind = _first(own, f"{code} {message}".lower()) if own else None
    kind = own_kind or classify(
        reply.status, code, message, field=field, clients_words=reply.clients_words
    )
    quoted = kind in _OF_CLIENT and not OPERATORS.search(message)
    refused = kind == "failed" and reply.status in _OF_CONTENT
    return ProviderError(
        kind,
        clean_reason(message) if quoted else "",
        billed="no" if refused else _BILLED.get(kind, "no"),
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
    clients_words: Collection[str] = (),
) -> FailureKind:
    """What kind of failure this is.

    Args:
        status: Of the reply.
        code: The words of its code, type and the like.
        message: Its message.
        field: The field of the request that it names; empty if none.
        clients_words: Words that the client chose, in lower case. A message that repeats them says
            nothing of the operator.
    """
    by_status, text = STATUSES.get(status, "request"), message.lower()
    by_code = _first(CODES, code.lower())
    found = by_code or _first(WORDS, text)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if said := _first(SERVER_WORDS, text):
            return said
        # Only its own troubles: what it says of the input may be a part of its traceback.
        return found if found in {"overloaded", "timeout"} else STATUSES.get(status, "failed")
    if status < HTTPStatus.BAD_REQUEST:
        return found or "failed"
    unquoted = _QUOTED.sub("", text)
    if clients_words:
        unquoted = re.sub(
            r"\w+", lambda word: "" if word[0] in clients_words else word[0], unquoted
        )
    if found not in _OF_CLIENT and status in _OF_CONTENT and not by_code:
        # What it quotes may be the request: nobody's texts can make it the operator's trouble.
        found = _first(WORDS, unquoted)
        found = found if found in _OF_OPERATOR else None
    if by_status in REFINED:
        return found if found in REFINED[by_status] else by_status
    kind = found or by_status
    if kind == "request" and not field and OPERATORS.search(unquoted):
        return "failed"  # nothing of the client's: others are asked, and nobody is blamed at once
    return kind


def clean_reason(message: str) -> str:
    """`message` fit for a client: short, printable, and without what looks like a secret."""
    text = _UNPRINTABLE.sub(" ", message[: 4 * MAX_REASON_CHARACTERS])
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]}..."


def _first(table: Sequence[tuple[str, FailureKind]], text: str) -> FailureKind | None:
    return next((kind for pattern, kind in table if text and re.search(pattern, text)), None)


def _said(body: bytes) -> tuple[str, str, str, int | None]:
    """Message and code of an error body of any shape, and the field and item that it names."""
    try:
        said = _JSON.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = body[:MAX_READ_CHARACTERS].decode("utf-8", "replace")
        return message, "", *_named([], message)
    code: list[str] = []
    named: list[Any] = []
    for _ in range(4):
        if isinstance(said, dict):
            fields = cast("dict[str, Any]", said)
            code += [
                str(fields[name])
                for name in ("code", "type", "status", "error_type", "error_code", "__type")
                if isinstance(fields.get(name), str | int)
            ]
            named += [fields[name] for name in ("param", "loc") if fields.get(name)]
            said = next(
                (
                    fields[name]
                    for name in ("error", "errors", "detail", "message", "msg", "Message")
                    if fields.get(name)
                ),
                "",
            )
        elif isinstance(said, list):
            said = cast("list[Any]", said)[0] if said else ""
        else:
            break
    message = said[:MAX_READ_CHARACTERS] if isinstance(said, str) else ""
    return message, " ".join(code)[:256], *_named(named, message)


def _named(named: list[Any], message: str) -> tuple[str, int | None]:
    """The field of the request that an error names, and the item of a list, if it says which."""
    for each in named:
        if isinstance(each, str) and (found := _PARAM.fullmatch(each)):
            return found[1], int(found[2]) if found[2] else None
        # FastAPI: ["body", "input", 3], or without the first.
        if isinstance(each, list):
            path = [part for part in cast("list[Any]", each) if part != "body"]
            if path and isinstance(path[0], str):
                at = path[1] if len(path) > 1 else None
                return path[0], at if type(at) is int and at >= 0 else None
    for pattern in _FIELDS:
        if found := pattern.search(message):
            return found[1], int(found[2]) if found[2] else None
    return "", None
