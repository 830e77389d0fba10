"""Serves the routes that issue tokens for keys: MKA1's exchange and OAuth's client credentials.

Parses the requests. `embedway.auth.exchange` decides which tokens to issue.
"""

import base64
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from embedway.admin.amounts import StrictBody
from embedway.admin.errors import read_json
from embedway.admin.strict_request import refuse_repeated
from embedway.auth import exchange
from embedway.auth.authenticator import Authenticator
from embedway.auth.tokens import GatewayTokens
from embedway.core.errors import InvalidKey, InvalidRequest, quote_value
from embedway.core.keys import Caller
from embedway.core.response_model import ResponseModel

OAUTH_PATH = "/api/v1/oauth2/token"
"""The path that takes a client's credentials in the body."""
MAX_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"
_GRANT = "client_credentials"


class TokenExchangeBody(StrictBody, title="TokenExchange"):
    """A request of MKA1's clients for a token for one end user."""

    model_config = ConfigDict(alias_generator=to_camel)

    audience: Annotated[str, Field(description="The token's audience, such as 'embedway'.")]
    external_user_id: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 150})]
    expires_in: Annotated[
        int | None,
        Field(
            description="The token's lifetime in seconds.",
            json_schema_extra={
                "minimum": exchange.LIFETIMES_S.start,
                "maximum": exchange.LIFETIMES_S.stop - 1,
            },
        ),
    ] = exchange.DEFAULT_LIFETIME_S
    permissions: Annotated[
        list[str] | None, Field(json_schema_extra={"items": {"enum": [*exchange.END_USER_SCOPES]}})
    ] = ["embeddings"]  # noqa: RUF012  # pydantic copies it


class ClientCredentialsBody(BaseModel, title="ClientCredentials"):
    """A request of an OAuth client for a token."""

    model_config = ConfigDict(strict=True, json_schema_extra={"required": ["grant_type"]})

    grant_type: Annotated[str | None, Field(json_schema_extra={"const": _GRANT})] = None
    client_id: Annotated[str | None, Field(description="A key's id, `key_...`.")] = None
    client_secret: Annotated[str | None, Field(description="The key itself.")] = None


class ExchangedToken(ResponseModel):
    """A token for one end user."""

    token: str
    expiresAt: int  # noqa: N815  # MKA1's spelling
    """In Unix seconds."""


class ClientToken(ResponseModel):
    """A token with the rights of a key."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    """In seconds from now."""


def router(
    authenticator: Authenticator,
    *,
    tokens: GatewayTokens,
    now_ms: Callable[[], int],
    caller: Caller,
) -> APIRouter:
    """Build the routes. `caller` is the dependency that authenticates the caller."""
    routes = APIRouter(tags=["tokens"])

    @routes.post(
        "/api/v1/authentication/api-key/exchange-token",
        openapi_extra=_request_body(TokenExchangeBody, "application/json"),
    )
    async def exchange_token(
        request: Request, response: Response, caller: Caller = caller
    ) -> ExchangedToken:
        """Exchange a key for a short-lived token for one end user.

        The key needs the scope `tokens`. The token has no more rights than the key.
        """
        body = read_json(await request.body(), TokenExchangeBody)
        token_request = exchange.TokenRequest(
            audience=body.audience,
            end_user=body.external_user_id,
            lifetime_s=exchange.DEFAULT_LIFETIME_S if body.expires_in is None else body.expires_in,
            permissions=["embeddings"] if body.permissions is None else body.permissions,
        )
        issued = exchange.issue_for_end_user(caller, token_request, tokens=tokens, now_ms=now_ms())
        response.headers["cache-control"] = "no-store"
        return ExchangedToken(token=issued.token, expiresAt=issued.expires_ms // 1000)

    @routes.post(
        OAUTH_PATH, openapi_extra=_request_body(ClientCredentialsBody, "application/json", _FORM)
    )
    async def issue_client_token(request: Request, response: Response) -> ClientToken:
        """Issue a token with the rights of a key, for its id and secret, as JSON, form or Basic."""
        body = _read_credentials(await request.body(), request.headers.get("content-type", ""))
        if body.grant_type != _GRANT:
            raise InvalidRequest(
                f"'grant_type' is {quote_value(body.grant_type)}. Use {_GRANT!r}.",
                param="grant_type",
            )
        key_id, key = _client_credentials(body, request.headers.get("authorization"))
        issued_ms = now_ms()
        client = await authenticator.authenticate_client(key_id, key)
        issued = exchange.issue_for_client(client, tokens=tokens, now_ms=issued_ms)
        response.headers["cache-control"] = "no-store"
        return ClientToken(
            access_token=issued.token, expires_in=max(0, (issued.expires_ms - issued_ms) // 1000)
        )

    return routes


def _read_credentials(body: bytes, content_type: str) -> ClientCredentialsBody:
    kind = content_type.partition(";")[0].strip().lower()
    if kind != _FORM and (kind == "application/json" or body.lstrip()[:1] == b"{"):
        return read_json(body, ClientCredentialsBody)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidRequest(
            f"The body is not a form of at most {MAX_FIELDS} fields. Send one, or JSON."
        ) from None
    refuse_repeated(Counter(name for name, _ in fields))
    return ClientCredentialsBody.model_validate(dict(fields))


def _client_credentials(body: ClientCredentialsBody, authorization: str | None) -> tuple[str, str]:
    scheme, _, basic = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        if not body.client_id or not body.client_secret:
            raise InvalidKey(
                "client_id or client_secret is missing. Send a key's id as client_id and the key "
                "itself as client_secret, in the body or as Basic authentication."
            )
        return body.client_id, body.client_secret
    if body.client_secret is not None:
        raise InvalidRequest(
            "The client's secret is in the body and in Authorization. Send it once.",
            param="client_secret",
        )
    try:
        decoded = base64.b64decode(basic.strip(), validate=True).decode()
    except ValueError:
        decoded = ""
    key_id, _, key = decoded.partition(":")
    return unquote_plus(key_id), unquote_plus(key)


def _request_body(model: type[BaseModel], *kinds: str) -> dict[str, Any]:
    content = {kind: {"schema": model.model_json_schema()} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}
