"""What a provider's error reply means: from status, code and words to a `ProviderError`, by table.

Reads every shape there is: `{"error": {...}}`, `{"error": "..."}`, flat `message`, `detail` as a
string or a list, `errors`, a bare string, nothing at all.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import msgspec

from embedway.core.provider_error import Billed, Kind, ProviderError
from embedway.providers import waits
from embedway.providers.adapter import Reply

MAX_REASON_CHARACTERS = 240
MAX_READ_CHARACTERS = 4096

_JSON = msgspec.json.Decoder()

# By what the error's code or type says, in lower case; the first that matches wins. Most providers
# put the same few words there.
CODES: tuple[tuple[str, Kind], ...] = (
    (r"insufficient_quota|insufficient_balance|billing|quota_exceeded|arrearage", "quota"),
    (r"max_tokens_per_request", "batch_too_large"),
    (r"context_length_exceeded|input_token_limit_exceeded|exceed_context_size", "item_too_long"),
    (r"model_not_found|input_model_not_found|deploymentnotfound|resourcenotfound", "model"),
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
WORDS: tuple[tuple[str, Kind], ...] = (
    # Whole phrases of one provider each, in replies that tests/wire holds.
    (r"quota of [\w/ ]{1,40} per (minute|second)", "rate_limit"),  # Scaleway, 429: no spent account
    (r"'loc': \('body', 'dimensions'\)", "dimensions"),  # NVIDIA: Pydantic's, as Python writes it
    (r"instance\(s\) is allowed per prediction", "batch_too_large"),  # Vertex AI
    (r"exceeds the available context size", "item_too_long"),  # llama.cpp
    (r"not allowed to generate embeddings from this model", "model"),  # OpenAI, 403
    (r"^model disabled", "model"),  # SiliconFlow, 403
    (r"^no models loaded", "model"),  # LM Studio, 400
    (r"^no route for that uri", "model"),  # Cloudflare, 400, of a name without @cf/
    (r"reduced rate limits", "rate_limit"),  # Voyage, of accounts without a means of payment
    (r"calls / month|daily free allocation", "quota"),
    (r"does not support (specifying )?(the parameter )?[`'\"]?dimensions|"
     r"[`'\"]?(output_?)?dimension(s|ality)?[`'\"]? (is|are|must|not|should|has)|"
     r"matryoshka|invalid (output_?)?dimension|\[output_dimension\] is not permitted|"
     r"#/(\w+/)*\w*dimensions?:", "dimensions"),
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
    (r"model[ =].{0,80}(not found|does not exist|is not supported|not available|unknown)|"
     r"no such model|unknown model|invalid model|does not have access to model|"
     r"supported by provider|model identifier is invalid|"
     r"deployment for this resource does not exist", "model"),
    # Only at its beginning: further on it may be quoting a text.
    (r"^.{0,60}(api[ _-]?key|api token|invalid token|unauthori[sz]ed|forbidden|permission)",
     "credentials"),
    (r"^.{0,60}(quota|billing|credit|balance|payment)", "quota"),
    (r"^.{0,60}(rate[ _]limit|too many requests|per minute|tpm limit|rpm limit)", "rate_limit"),
    (r"^.{0,60}(overloaded|no capacity|out of capacity|currently loading|unavailable)",
     "overloaded"),
)  # fmt: skip

# By the status alone.
STATUSES: Mapping[int, Kind] = {
    401: "credentials",
    402: "quota",
    403: "credentials",
    404: "model",
    408: "timeout",
    409: "overloaded",
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
REFINED: Mapping[Kind, frozenset[Kind]] = {
    "credentials": frozenset({"quota", "model"}),
    "rate_limit": frozenset({"quota"}),
    "model": frozenset(),
}

_OF_CLIENT: frozenset[Kind] = frozenset(
    {"dimensions", "batch_too_large", "item_too_long", "model", "request"}
)
_OF_CONTENT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_BILLED: Mapping[Kind, Billed] = {"failed": "maybe", "timeout": "maybe", "malformed": "yes"}
# https://github.com/ggml-org/llama.cpp says so with a 500.
_TOO_LARGE_FOR_LLAMA_CPP = "increase the physical batch size"
_TOKENS = re.compile(r"token|\btpm\b", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+")
# Keys and what looks like one; a provider likes to repeat it in "Incorrect API key provided: ...".
_SECRET = re.compile(
    r"\b(?:sk|pk|jina|hf|gsk|nvapi|org|proj)[-_][\w\-.*/+=]{4,}|\bBearer\s+\S+|"
    r"\b(?:AIza|ya29|eyJ|AKIA|ASIA)[\w\-.]{8,}|[\w\-]*\*{3,}[\w\-]*|"
    r"\b(?=[A-Za-z_\-+/=]*\d)[\w\-+/=]{28,}",
    re.IGNORECASE,
)


def read(reply: Reply) -> ProviderError:
    """The failure that `reply` reports, be its status what it may."""
    message, code = _said(reply.body)
    kind = classify(reply.status, code, message)
    return ProviderError(
        kind,
        clean(message) if kind in _OF_CLIENT else "",
        billed=_BILLED.get(kind, "no"),
        retry_after_s=waits.retry_after_s(reply.headers, message),
        of_tokens=bool(_TOKENS.search(f"{code} {message}")),
    )


def classify(status: int, code: str, message: str) -> Kind:
    """What kind of failure this is."""
    by_status = STATUSES.get(status, "request")
    found = _first(CODES, code.lower()) or _first(WORDS, message.lower())
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if _TOO_LARGE_FOR_LLAMA_CPP in message.lower():
            return "item_too_long"
        # Only its own troubles: what it says of the input may be a part of its traceback.
        return found if found in {"overloaded", "timeout"} else STATUSES.get(status, "failed")
    if status < HTTPStatus.BAD_REQUEST:
        return found or "failed"
    if found not in _OF_CLIENT and status in _OF_CONTENT and not _first(CODES, code.lower()):
        # It may be quoting the request: of other troubles only a key's is told with this status.
        found = found if found == "credentials" else None
    if by_status in REFINED:
        return found if found in REFINED[by_status] else by_status
    return found or by_status


def clean(message: str) -> str:
    """`message` fit for a client: short, printable, and without what looks like a secret."""
    text = _UNPRINTABLE.sub(" ", message[: 4 * MAX_REASON_CHARACTERS])
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]}..."


def _first(table: tuple[tuple[str, Kind], ...], text: str) -> Kind | None:
    return next((kind for pattern, kind in table if text and re.search(pattern, text)), None)


def _said(body: bytes) -> tuple[str, str]:
    """Message and code of an error body of any shape."""
    try:
        said = _JSON.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body[:MAX_READ_CHARACTERS].decode("utf-8", "replace"), ""
    code: list[str] = []
    for _ in range(4):
        if isinstance(said, dict):
            fields = cast("dict[str, Any]", said)
            code += [
                str(fields[name])
                for name in ("code", "type", "status", "error_type", "error_code", "__type")
                if isinstance(fields.get(name), str | int)
            ]
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
    return said[:MAX_READ_CHARACTERS] if isinstance(said, str) else "", " ".join(code)[:256]
