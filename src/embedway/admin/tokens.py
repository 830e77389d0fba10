"""The routes that give tokens for keys: MKA1's exchange, and OAuth's client credentials.

Owns how they are asked for on the wire. Who may have which is `embedway.auth.exchange`'s.
"""

import base64
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from embedway.admin.strict_json import decode
from embedway.auth import exchange
from embedway.auth.authenticate import Authenticator
from embedway.auth.tokens import Tokens
from embedway.core.errors import InvalidKey, InvalidRequest, shown
from embedway.core.keys import Caller

OAUTH_PATH = "/api/v1/oauth2/token"
"""Where a client's credentials are in the body."""
MAX_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"
_GRANT = "client_credentials"


class _Exchange(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    audience: str
    external_user_id: str
    expires_in: int | None = None
    permissions: list[str] | None = None


class _ClientCredentials(msgspec.Struct, kw_only=True):
    grant_type: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


class ExchangedToken(BaseModel):
    """A token for one end user."""

    token: str
    expiresAt: int  # noqa: N815  # MKA1's spelling
    """Seconds since 1970-01-01 UTC."""


class ClientToken(BaseModel):
    """A token for whoever holds a key."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    """Seconds."""


def router(
    authenticator: Authenticator, *, tokens: Tokens, now_ms: Callable[[], int], caller: Caller
) -> APIRouter:
    """The routes.

    Args:
        authenticator: Checks a client's id and secret.
        tokens: Signs them.
        now_ms: The wall clock.
        caller: The dependency that asks for a key and says whose it is.
    """
    routes = APIRouter(tags=["tokens"])

    @routes.post(
        "/api/v1/authentication/api-key/exchange-token", openapi_extra=_described(_EXCHANGE)
    )
    async def exchange_token(
        request: Request, response: Response, caller: Caller = caller
    ) -> ExchangedToken:
        """A short-lived token for one end user, with no more rights than the key; see docs.

        The key needs the scope `tokens`.
        """
        asked = decode(await request.body(), _Exchange)
        wanted = exchange.Wanted(
            audience=asked.audience,
            end_user=asked.external_user_id,
            lifetime_s=exchange.USUAL_S if asked.expires_in is None else asked.expires_in,
            permissions=["embeddings"] if asked.permissions is None else asked.permissions,
        )
        issued = exchange.for_end_user(caller, wanted, tokens=tokens, now_ms=now_ms())
        response.headers["cache-control"] = "no-store"
        return ExchangedToken(token=issued.token, expiresAt=issued.expires_ms // 1000)

    @routes.post(OAUTH_PATH, openapi_extra=_described(_CREDENTIALS, form=True))
    async def client_credentials(request: Request, response: Response) -> ClientToken:
        """A token with the rights of a key, for its id and itself; as JSON, a form, or Basic."""
        asked = _credentials(await request.body(), request.headers.get("content-type", ""))
        if asked.grant_type != _GRANT:
            raise InvalidRequest(
                f"'grant_type' is {shown(asked.grant_type)}. Use {_GRANT!r}.", param="grant_type"
            )
        key_id, key = _client(asked, request.headers.get("authorization"))
        moment_ms = now_ms()
        client = await authenticator.client(key_id, key)
        issued = exchange.for_client(client, tokens=tokens, now_ms=moment_ms)
        response.headers["cache-control"] = "no-store"
        return ClientToken(
            access_token=issued.token, expires_in=max(0, (issued.expires_ms - moment_ms) // 1000)
        )

    return routes


def _credentials(body: bytes, content_type: str) -> _ClientCredentials:
    kind = content_type.partition(";")[0].strip().lower()
    if kind != _FORM and (kind == "application/json" or body.lstrip()[:1] == b"{"):
        return decode(body, _ClientCredentials)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidRequest(
            f"The body is no form of at most {MAX_FIELDS} fields. Send one, or JSON."
        ) from None
    known: dict[str, str] = {}
    for name, value in fields:
        if name in known:
            raise InvalidRequest(f"{shown(name)} is there twice. Send it once.", param=name)
        known[name] = value
    return msgspec.convert(known, _ClientCredentials)


def _client(asked: _ClientCredentials, authorization: str | None) -> tuple[str, str]:
    scheme, _, basic = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        if not asked.client_id or not asked.client_secret:
            raise InvalidKey(
                "client_id or client_secret is missing. Send a key's id as client_id and the key "
                "itself as client_secret, in the body or as Basic authentication."
            )
        return asked.client_id, asked.client_secret
    if asked.client_secret is not None:
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


def _described(schema: dict[str, Any], *, form: bool = False) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    if form:
        content[_FORM] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


_EXCHANGE: dict[str, Any] = {
    "type": "object",
    "required": ["audience", "externalUserId"],
    "properties": {
        "audience": {"type": "string", "description": "Such as 'embedway'."},
        "externalUserId": {"type": "string", "minLength": 1, "maxLength": 150},
        "expiresIn": {
            "type": "integer",
            "description": "Seconds.",
            "minimum": exchange.LIFETIMES_S.start,
            "maximum": exchange.LIFETIMES_S.stop - 1,
            "default": exchange.USUAL_S,
        },
        "permissions": {
            "type": "array",
            "items": {"type": "string", "enum": list(exchange.OF_END_USERS)},
            "default": ["embeddings"],
        },
    },
}
_CREDENTIALS: dict[str, Any] = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"const": _GRANT},
        "client_id": {"type": "string", "description": "A key's id, `key_...`."},
        "client_secret": {"type": "string", "description": "The key itself."},
    },
}
