"""The data plane: `POST` embeddings, on all its doors, as one raw ASGI callable.

Owns what is HTTP about it: headers in and out, and the one edge where any failure becomes an
result. What an embedding request is and how it is answered is the pipeline's.
"""

import asyncio
import re
import time
from collections.abc import Mapping
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
from embedway.catalog.deployment import Deployment
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
from embedway.core.keys import Caller
from embedway.core.redaction import contains_secret, redact
from embedway.core.request import EmbedRequest
from embedway.core.usage import CLIENT_LEFT
from embedway.metering.account import Account
from embedway.observe.metrics import Metrics
from embedway.observe.refusals import RefusalCounts
from embedway.pipeline.dry_run import DryRun
from embedway.pipeline.embed import Embedder
from embedway.pipeline.result import EmbedResult
from embedway.ratelimits.headers import rate_limit_headers
from embedway.wire.decode import decode
from embedway.wire.encode import ResponseHead, encode
from embedway.wire.lifetime_headers import lifetime_headers

CORTECS_PATH = "/api/v1/models/serverless/embeddings"
PATHS = frozenset({"/v1/embeddings", "/api/v1/llm/embeddings", CORTECS_PATH})

YIELD_BYTES = 65_536
"""After rendering a piece of this size the event loop gets a turn."""

_HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F)))
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_BROKEN_BODY = InvalidRequest("The body broke off or its chunks are malformed. Send it whole.")
_log = structlog.get_logger("embedway.api")


class _Facts:
    """What is known so far about one request, for its log line and for counting refusals.

    The request itself is not kept: its texts may be megabytes, and its answer is sent slowly.
    """

    __slots__ = ("end_user", "key_id", "model", "project_id", "reason")

    def __init__(self) -> None:
        self.project_id = ""
        self.key_id = ""
        self.end_user: str | None = None
        self.model = ""
        self.reason = ""

    def identify(self, caller: Caller) -> None:
        """Take who sent the request."""
        self.key_id = caller.key_id
        self.project_id = caller.project.id if caller.project else ""
        self.end_user = caller.on_behalf_of

    def read(self, request: EmbedRequest) -> None:
        """Take what is logged of the request itself."""
        self.model = request.model
        self.end_user = self.end_user or request.user

    def refuse(self, error: EmbedwayError) -> None:
        """Take why the request is refused, and whose it is if no caller came of its key."""
        self.reason = error.reason
        self.key_id = self.key_id or error.key_id
        self.project_id = self.project_id or error.project_id

    def fields(self) -> dict[str, str]:
        """The fields of the log line, without those that are not known."""
        end_user = self.end_user
        known = {
            "project": self.project_id,
            "key": self.key_id,
            # A key that a client sends where none belongs is not logged.
            "end_user": end_user and redact(end_user),
            "model": self.model,
            "reason": self.reason,
        }
        return {name: value for name, value in known.items() if value}


class EmbeddingsEndpoint:
    """Answers every request on the embeddings doors."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        embedder: Embedder,
        admission: Admission,
        lifetimes: ModelLifetimes,
        metrics: Metrics,
        refusals: RefusalCounts,
        body_limits: BodyLimits,
    ) -> None:
        self._authenticator = authenticator
        self._embedder = embedder
        self._admission = admission
        self._lifetimes = lifetimes
        self._metrics = metrics
        self._refusals = refusals
        self._body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, from its head to the last byte of its answer."""
        started_s = time.perf_counter()
        request_id = _request_id(scope)
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
                with client.cancel_on_disconnect():
                    if _dry_run(scope):
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
            except Exception as error:  # noqa: BLE001  # the request edge: the client gets an answer
                # Rendered here and not kept: with its traceback an error keeps the whole request.
                reply, is_refused = self._refuse(error, facts, request_id), True
            finally:
                # The texts and vectors may be megabytes, and the answer may be taken slowly.
                request = result = None
            if is_refused:
                ticket.release()
                await client.drain(self._body_limits)
            status = await self._send(client, reply, request_id)
        except IncompleteBody:
            # Perhaps the client is still there and only the framing of its body is broken.
            await self._send(client, error_response(_BROKEN_BODY), request_id)
            status = CLIENT_LEFT
        except ClientDisconnect:
            status = CLIENT_LEFT
        finally:
            ticket.release()
        elapsed_s = time.perf_counter() - started_s
        self._metrics.count_request(scope["path"], status)
        self._metrics.latency.observe(elapsed_s)
        _log.info(
            "answered",
            request_id=request_id,
            path=scope["path"],
            status=status,
            ms=round(elapsed_s * 1000, 2),
            **facts.fields(),
        )

    async def _read(
        self, scope: Scope, client: ClientConnection, ticket: RequestSlot, facts: _Facts
    ) -> tuple[EmbedRequest, Caller, Account]:
        """Read who sends what; a body is read only of a caller that may be answered."""
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
        _dry_run(scope)  # refused before the body is read, if it is wrong
        account = await self._embedder.admit(caller, body_bytes=_declared_bytes(headers))
        ticket.admit(caller)
        request = decode(await client.read_body(headers, self._body_limits, ticket))
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
        """Render a result; its bytes take the place of the body's on `ticket`."""
        if isinstance(result, DryRun):
            return 200, msgspec.json.encode(result), []
        content = await _body(path, request, result)
        ticket.swap(len(content))
        self._metrics.count_embeddings(
            _label(result.deployments[0]), items=len(result.vectors), tokens=result.tokens
        )
        ending = _lifetime(result, self._lifetimes.today())
        return 200, content, _headers(result, started_s) + ending

    def _refuse(self, error: Exception, facts: _Facts, request_id: str) -> Reply:
        """Render an error, after logging and counting it."""
        if not isinstance(error, EmbedwayError):
            _log.exception("defect", request_id=request_id, exc_info=error)
            error = InternalError(f"This is a defect of ours, logged under {request_id}.")
        # The store logs once that the database is unavailable, not for each request.
        elif error.__cause__ is not None and not isinstance(error, StorageUnavailable):
            _log.error("failed", request_id=request_id, cause=repr(error.__cause__))
        facts.refuse(error)
        self._metrics.refusals.labels(facts.reason).inc()
        self._refusals.add(facts.reason, project_id=facts.project_id, key_id=facts.key_id)
        return error_response(error)

    async def _send(self, client: ClientConnection, reply: Reply, request_id: str) -> int:
        status, content, headers = reply
        headers.append((b"x-request-id", request_id.encode()))
        if self._admission.draining:
            headers.append((b"connection", b"close"))
        await client.send_response(status, content, headers, self._body_limits)
        return status


def _check_sent_once(scope: Scope) -> None:
    """Refuses a request that names two senders: whoever is before this gateway may see the other.

    Raises:
        InvalidRequest: So it is.
    """
    names = [name for name, _ in scope["headers"]]
    for name in (b"authorization", b"x-on-behalf-of"):
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode()} is there twice. Send it once.")


def _declared_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """The length of the body, if its head says it."""
    declared = headers.get(b"content-length", b"")
    return int(declared) if declared.isdigit() else None


def _dry_run(scope: Scope) -> bool:
    """Whether the query asks for one."""
    if not scope["query_string"]:
        return False
    sent = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    asked = dict(sent)
    if len(asked) < len(sent):
        raise InvalidRequest("A parameter of the query is there twice. Send it once.")
    value = asked.get("dry_run", "false")
    if value not in {"true", "false"}:
        raise InvalidRequest(
            f"'dry_run' is {quote_value(value)}. Use 'true' or 'false', or leave it out.",
            param="dry_run",
        )
    return value == "true"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given = value.decode("ascii")
            return ids.new_id("req") if contains_secret(given) else given
    return ids.new_id("req")


async def _body(path: str, request: EmbedRequest, result: EmbedResult) -> bytes:
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    if path == CORTECS_PATH:  # its clients read this one too
        usage["completion_tokens"] = 0
    head = ResponseHead(
        model=request.model,
        usage=usage,
        id=result.id,
        created=result.created_s,
        provider=result.providers,
    )
    pieces: list[bytes] = []
    for piece in encode(head, result.vectors, encoding_format=request.encoding_format):
        pieces.append(piece)
        if len(piece) > YIELD_BYTES:
            await asyncio.sleep(0)
    return b"".join(pieces)


def _label(served: Deployment) -> str:
    """The model as metrics know it: names that clients make up are not told apart."""
    return served.model.id if served.model.declared else f"{served.provider}:*"


def _headers(result: EmbedResult, started_s: float) -> Headers:
    elapsed_s = time.perf_counter() - started_s
    values = (
        (b"openai-processing-ms", str(round(elapsed_s * 1000))),
        (b"x-embedway-model", result.deployments[0].model.id),
        (b"x-embedway-provider", result.providers),
        (b"x-embedway-space", str(result.space)),
        (b"x-embedway-cost-usd", money.format_usd(result.cost_nano_usd)),
        (b"x-embedway-overhead-ms", f"{(elapsed_s - result.engine_s) * 1000:.2f}"),
    )
    # A client may name a provider's model as it likes; a header holds no such text as it is.
    headers = [(name, _header(value)) for name, value in values]
    if result.limit_statuses:
        limits = rate_limit_headers(result.limit_statuses)
        headers += [(name.encode(), value.encode()) for name, value in limits]
    return headers


def _lifetime(result: EmbedResult, today: CatalogToday) -> Headers:
    """What is told of deployments that will not be there for long."""
    if not today.ending:
        return []
    ending = [today.ending[each.id] for each in result.deployments if each.id in today.ending]
    headers = lifetime_headers(
        deprecated=[each.deprecated for each in ending if each.deprecated],
        retires=[each.retires for each in ending if each.retires],
    )
    return [(name.encode(), value.encode()) for name, value in headers]


def _header(value: str) -> bytes:
    if not (value.isascii() and value.isprintable()):
        value = quote(value, safe=_HEADER_SAFE)
    return value.encode()
