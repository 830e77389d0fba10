"""The data plane: one ASGI application that answers `POST` on all embeddings paths.

Owns the HTTP side: headers in and out, and the one place where any failure becomes an answer. The
pipeline embeds the request.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote

import msgspec
import structlog

from embedway.api.admission import Admission, RequestSlot
from embedway.api.asgi import Headers, Receive, Scope, Send
from embedway.api.connection import (
    BodyLimits,
    ClientConnection,
    ClientDisconnect,
    IncompleteBody,
    Reply,
    error_response,
)
from embedway.auth import rights
from embedway.auth.authenticator import Authenticator
from embedway.catalog.lifetimes import CatalogToday, ModelLifetimes
from embedway.core import ids, money
from embedway.core.errors import (
    EmbedwayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    StorageUnavailable,
    quote_value,
)
from embedway.core.in_flight import reply_bytes
from embedway.core.keys import Caller
from embedway.core.redaction import redact
from embedway.core.request import EmbedRequest
from embedway.core.usage import CLIENT_LEFT
from embedway.metering.account import Account
from embedway.observe.metrics import Metrics
from embedway.observe.refusals import RefusalCounts
from embedway.observe.trace_context import TracedAnswer, note_answer
from embedway.observe.tracing import Tracer
from embedway.pipeline.dry_run import DryRun
from embedway.pipeline.embed import Embedder
from embedway.pipeline.encoding import encode_result
from embedway.pipeline.result import EmbedResult
from embedway.ratelimits.headers import rate_limit_headers
from embedway.wire.decode import decode_body
from embedway.wire.lifetime_headers import lifetime_headers

CORTECS_PATH = "/api/v1/models/serverless/embeddings"
PATHS = {
    "/v1/embeddings": "embed",
    "/api/v1/llm/embeddings": "embed_mka1",
    CORTECS_PATH: "embed_cortecs",
}
"""The paths of the embeddings operation, each with its operation id in OpenAPI."""

_HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F)))
_BROKEN_BODY = InvalidRequest("The body broke off or its chunks are malformed. Send it whole.")
_log = structlog.get_logger("embedway.api")


class _Facts:
    """What is known so far about one request, for its log line and for counting refusals.

    It does not keep the request, whose texts may be megabytes, while its answer is sent slowly.
    """

    __slots__ = ("end_user", "key_id", "model", "project_id", "reason")

    def __init__(self) -> None:
        self.project_id = ""
        self.key_id = ""
        self.end_user: str | None = None
        self.model = ""
        self.reason = ""

    def identify(self, caller: Caller) -> None:
        """Note who sent the request."""
        self.key_id = caller.key_id
        self.project_id = caller.project.id if caller.project else ""
        self.end_user = caller.on_behalf_of

    def read(self, request: EmbedRequest) -> None:
        """Note the fields of the request that are logged."""
        self.model = request.model
        self.end_user = self.end_user or request.user

    def refuse(self, error: EmbedwayError) -> None:
        """Note why the request is refused, and whose key was refused."""
        self.reason = error.reason
        self.key_id = self.key_id or error.key_id
        self.project_id = self.project_id or error.project_id

    def fields(self) -> dict[str, str]:
        """Return the known fields for the log line."""
        end_user = self.end_user
        known = {
            "project": self.project_id,
            "key": self.key_id,
            # A client may have put a key in the wrong place: never log it.
            "end_user": end_user and redact(end_user),
            "model": self.model,
            "reason": self.reason,
        }
        return {name: value for name, value in known.items() if value}


class EmbeddingsEndpoint:
    """Answers every request on the embeddings paths."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        embedder: Embedder,
        admission: Admission,
        lifetimes: ModelLifetimes,
        metrics: Metrics,
        refusals: RefusalCounts,
        tracer: Tracer | None = None,
        body_limits: BodyLimits,
        max_items: int,
    ) -> None:
        self._authenticator = authenticator
        self._embedder = embedder
        self._admission = admission
        self._lifetimes = lifetimes
        self._metrics = metrics
        self._refusals = refusals
        self._tracer = tracer
        self._body_limits = body_limits
        self._max_items = max_items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, from reading it to the last byte of the answer."""
        started_s = time.perf_counter()
        trace = None if self._tracer is None else self._tracer.begin(scope["headers"])
        sent_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = ids.for_request(sent_id.decode("latin-1"))
        client, ticket, facts = (
            ClientConnection(receive, send),
            RequestSlot(self._admission),
            _Facts(),
        )
        request = result = None
        is_refused = False
        try:
            try:
                request, caller, account = await self._read(scope, client, ticket, facts)
                reply_bytes.set(ticket)
                with client.cancel_on_disconnect():
                    if _is_dry_run(scope):
                        result = await self._embedder.dry_run(request, caller, admitted=account)
                    else:
                        result = await self._embedder.embed(
                            request,
                            caller,
                            admitted=account,
                            request_id=request_id,
                            started_s=started_s,
                        )
                reply = await self._answer(scope["path"], request, result, ticket, started_s)
            except ClientDisconnect:
                raise
            except Exception as error:  # noqa: BLE001  # the client gets an answer whatever failed
                # Encoded here and not kept, because its traceback would keep the whole request.
                reply, is_refused = self._refuse(error, facts, request_id), True
            finally:
                # Free the texts and vectors, because the client may take the answer slowly.
                request = result = None
            if is_refused:
                ticket.release()
                await client.drain(self._body_limits)
            status = await self._send(client, reply, request_id)
        except IncompleteBody:
            # The client may still be there, if only the framing of its body is wrong.
            await self._send(client, error_response(_BROKEN_BODY), request_id)
            status = CLIENT_LEFT
        except ClientDisconnect:
            status = CLIENT_LEFT
        finally:
            ticket.release()
        elapsed_s = time.perf_counter() - started_s
        self._metrics.count_request(scope["path"], status)
        self._metrics.latency.observe(elapsed_s)
        known = facts.fields()
        _log.info(
            "answered",
            request_id=request_id,
            path=scope["path"],
            status=status,
            ms=round(elapsed_s * 1000, 2),
            **known,
        )
        if self._tracer is not None and trace is not None:
            self._tracer.end(
                trace,
                method=scope["method"],
                path=scope["path"],
                status=status,
                request_id=request_id,
                facts=known,
            )

    async def _read(
        self, scope: Scope, client: ClientConnection, ticket: RequestSlot, facts: _Facts
    ) -> tuple[EmbedRequest, Caller, Account]:
        """Identify the caller, check its rights and limits, and then read the body."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(
                f"{scope['method']} is not possible here. Use POST.", headers={"allow": "POST"}
            )
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            _check_sent_once(scope)
        caller = await self._authenticator.authenticate(
            headers.get(b"authorization"), headers.get(b"x-on-behalf-of")
        )
        facts.identify(caller)
        rights.require_scope(caller, "embeddings")
        _is_dry_run(scope)  # refuses a wrong query before reading the body
        account = await self._embedder.admit(caller, body_bytes=_declared_bytes(headers))
        self._admission.admit(ticket, caller)
        body = await client.read_body(headers, self._body_limits, ticket)
        request = await decode_body(body, max_items=self._max_items)
        facts.read(request)
        return request, caller, account

    async def _answer(
        self,
        path: str,
        request: EmbedRequest,
        result: EmbedResult | DryRun,
        ticket: RequestSlot,
        started_s: float,
    ) -> Reply:
        """Encode a result; `ticket` then counts its bytes instead of the body's."""
        if isinstance(result, DryRun):
            return 200, [msgspec.json.encode(result)], []
        # Clients of cortecs' API expect a third count of tokens.
        pieces = await encode_result(request, result, with_completion_tokens=path == CORTECS_PATH)
        ticket.swap(sum(map(len, pieces)))
        if self._tracer is not None:
            answer = TracedAnswer(
                request.encoding_format,
                len(result.vectors),
                tokens=result.tokens,
                cost_nano_usd=result.cost_nano_usd,
                space=result.space,
            )
            note_answer(answer)
        self._metrics.count_answer(
            result.deployments,
            costs_nano_usd=result.costs_nano_usd,
            items=len(result.vectors),
            tokens=result.tokens,
        )
        ending = _lifetime(result, self._lifetimes.today())
        return 200, pieces, _headers(result, started_s) + ending

    def _refuse(self, error: Exception, facts: _Facts, request_id: str) -> Reply:
        """Log, count and encode an error."""
        if not isinstance(error, EmbedwayError):
            _log.exception("defect", request_id=request_id, exc_info=error)
            error = InternalError(f"This is a defect of ours, logged under {request_id}.")
        # The store logs an unavailable database once, instead of for each request.
        elif error.__cause__ is not None and not isinstance(error, StorageUnavailable):
            _log.error("failed", request_id=request_id, cause=repr(error.__cause__))
        facts.refuse(error)
        self._metrics.refusals.labels(facts.reason).inc()
        self._refusals.add(facts.reason, project_id=facts.project_id, key_id=facts.key_id)
        return error_response(error)

    async def _send(self, client: ClientConnection, reply: Reply, request_id: str) -> int:
        status, pieces, headers = reply
        headers.append((b"x-request-id", request_id.encode()))
        if self._admission.is_draining:
            headers.append((b"connection", b"close"))
        await client.send_response(status, pieces, headers, self._body_limits)
        return status


def _check_sent_once(scope: Scope) -> None:
    """Refuse a request with two callers, because a proxy may have checked the other one.

    Raises:
        InvalidRequest: A header that names the caller is there twice.
    """
    names = [name for name, _ in scope["headers"]]
    for name in (b"authorization", b"x-on-behalf-of"):
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode()} is there twice. Send it once.")


def _declared_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the Content-Length, or None."""
    declared = headers.get(b"content-length", b"")
    return int(declared) if declared.isdigit() else None


def _is_dry_run(scope: Scope) -> bool:
    """Whether the query string has `dry_run=true`."""
    if not scope["query_string"]:
        return False
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise InvalidRequest("A parameter of the query is there twice. Send it once.")
    value = parameters.get("dry_run", "false")
    if value not in {"true", "false"}:
        raise InvalidRequest(
            f"'dry_run' is {quote_value(value)}. Use 'true' or 'false', or leave it out.",
            param="dry_run",
        )
    return value == "true"


def _headers(result: EmbedResult, started_s: float) -> Headers:
    elapsed_s = time.perf_counter() - started_s
    headers = [
        (b"openai-processing-ms", b"%d" % round(elapsed_s * 1000)),
        (b"x-embedway-model", _header(result.deployments[0].model.id)),
        (b"x-embedway-provider", _header(result.providers)),
        (b"x-embedway-space", _header(str(result.space))),
        (b"x-embedway-cost-usd", money.format_usd(result.cost_nano_usd).encode()),
        (b"x-embedway-overhead-ms", b"%.2f" % ((elapsed_s - result.engine_s) * 1000)),
    ]
    if result.limit_statuses:
        limits = rate_limit_headers(result.limit_statuses)
        headers += [(name.encode(), value.encode()) for name, value in limits]
    return headers


def _lifetime(result: EmbedResult, today: CatalogToday) -> Headers:
    """Return the headers for deployments that are deprecated or retire soon."""
    if not today.ending:
        return []
    ending = [today.ending[each.id] for each in result.deployments if each.id in today.ending]
    headers = lifetime_headers(
        deprecated=[each.deprecated for each in ending if each.deprecated],
        retires=[each.retires for each in ending if each.retires],
    )
    return [(name.encode(), value.encode()) for name, value in headers]


@lru_cache(maxsize=1024)
def _header(value: str) -> bytes:
    # A client may name a provider's model in any characters.
    if not (value.isascii() and value.isprintable()):
        value = quote(value, safe=_HEADER_SAFE)
    return value.encode()
