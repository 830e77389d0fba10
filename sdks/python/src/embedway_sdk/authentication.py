"""Exchanges a key for tokens of end users."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import httpx

from embedway_sdk.client import Call, Resource, asynchronous, blocking
from embedway_sdk.loading import reading
from embedway_sdk.types import ExchangedToken


class Authentication(Resource):
    """Tokens that an app or a browser uses in place of a key."""

    def _exchange_token(
        self,
        *,
        external_user_id: str,
        expires_in: int = 3600,
        audience: str = "embedway",
        permissions: Sequence[Literal["embeddings", "usage"]] = ("embeddings",),
    ) -> Call[ExchangedToken]:
        """Exchange the key for a token of one end user.

        Args:
            external_user_id: Your end user: 1 to 150 printable ASCII characters.
            expires_in: How long the token works: 300 to 2,592,000 seconds.
            audience: One that the gateway accepts; its setting `token_audiences` lists them.
            permissions: What the token may do, of what the key may.
        """
        body = {
            "audience": audience,
            "externalUserId": external_user_id,
            "expiresIn": expires_in,
            "permissions": permissions,
        }
        path = "/api/v1/authentication/api-key/exchange-token"
        return Call("POST", path, _read_token, body=body, is_safe=True)

    exchange_token, exchange_token_async = blocking(_exchange_token), asynchronous(_exchange_token)


def _read_token(response: httpx.Response) -> ExchangedToken:
    with reading(response):
        body = json.loads(response.content)
        return ExchangedToken(token=body["token"], expires_at=body["expiresAt"])
