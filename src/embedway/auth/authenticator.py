"""Finds out who sent a request: from its headers to a `Caller`.

A key that any process revokes stops working here, as do its tokens, within
`embedway.concurrency.ttl_cache.FRESH_S`. A token is remembered by a keyed digest of all of it, so
none is ever taken for another.
"""

import hmac
from collections.abc import Callable

import msgspec

from embedway.auth import compact, rights, tokens
from embedway.auth.claims import END_USER
from embedway.auth.issuers import IssuerIdentity, IssuerRegistry
from embedway.auth.tokens import GatewayTokens, TokenGrant
from embedway.concurrency.ttl_cache import TTLCache, UnknownNames
from embedway.core.errors import EmbedwayError, Forbidden, InvalidKey, InvalidRequest
from embedway.core.keys import Caller, KeyContext
from embedway.core.project import Project
from embedway.organization import key_secret
from embedway.organization.directory import Directory

_CURE = "Send 'Authorization: Bearer sk-gateway-...' with a key made by 'embedway keys create'."
_PREFIX = key_secret.PREFIX.encode()
MAX_AUTHORIZATION_BYTES = len("Bearer ") + compact.MAX_BYTES


class Authenticator:
    """Checks credentials against the store."""

    def __init__(
        self,
        directory: Directory,
        *,
        pepper: bytes,
        now_ms: Callable[[], int],
        tokens: GatewayTokens | None = None,
        issuers: IssuerRegistry | None = None,
    ) -> None:
        """Accept keys in `directory`, and tokens of this gateway and of issuers, if given."""
        self._pepper = pepper
        self._now_ms = now_ms
        self._tokens = tokens
        self._issuers = issuers
        self._keys = TTLCache[bytes, KeyContext | None](directory.by_digest)
        self._unknown_keys = UnknownNames[bytes](directory.known)
        self._keys_by_id = TTLCache[str, KeyContext | None](directory.by_id)
        self._projects = TTLCache[str, tuple[Project, bool] | None](directory.project)
        self._read = TTLCache[_Arrived, TokenGrant | IssuerIdentity | EmbedwayError](
            self._read_once
        )

    async def caller(self, authorization: bytes | None, on_behalf_of: bytes | None) -> Caller:
        """Find the caller by the values of `Authorization` and `X-On-Behalf-Of`.

        Raises:
            InvalidKey: No key or token, or not one that works now.
            InvalidRequest: `X-On-Behalf-Of` is not an end user's id.
            Forbidden: The credential may not name end users, or not this one, or its project is
                gone.
            StorageUnavailable: The key store, or an issuer's keys, cannot be read.
        """
        token = _bearer(authorization)
        if token.startswith(_PREFIX):
            caller = await self._of_key(token)
        elif compact.is_compact_token(token):
            caller = await self._of_token(token)
        else:
            raise InvalidKey(f"This is neither an API key nor a token. {_CURE}")
        try:
            return _on_behalf_of(caller, on_behalf_of)
        except EmbedwayError as error:
            project_id = caller.project and caller.project.id
            error.attribute(key_id=caller.key_id, project_id=project_id)
            raise

    async def client(self, key_id: str, key: str) -> Caller:
        """Find the caller by the id of a key and the key itself, if they belong together.

        Raises:
            InvalidKey: They do not, or it is no key that works now.
            StorageUnavailable: The key store cannot be read.
        """
        held = await self._held(key) if key_secret.is_well_formed(key) else None
        # Compared whether or not there is such a key, and as long in either case.
        known = held.key.id if held else ""
        same = hmac.compare_digest(known.encode(), key_id.encode("utf-8", "replace"))
        if held is None or not same:
            raise InvalidKey(
                "The client's id and secret are not those of one key. Send a key's id ('embedway "
                "keys list') as client_id and the key itself as client_secret."
            )
        return rights.caller_of_key(held, now_ms=self._now_ms(), cure=_CURE)

    async def _held(self, key: str) -> KeyContext | None:
        digest = key_secret.digest(key, pepper=self._pepper)
        # Lookups of invented keys wait in a queue of their own and are not remembered.
        if digest not in self._keys and not await self._unknown_keys.exists(digest):
            return None
        return await self._keys.get(digest)

    async def _of_key(self, token: bytes) -> Caller:
        key = token.decode("latin-1")
        if not key_secret.is_well_formed(key):
            raise InvalidKey(f"This API key is incomplete or mistyped. {_CURE}")
        held = await self._held(key)
        if held is None:
            raise InvalidKey(f"This API key does not exist. {_CURE}")
        return self._of_held(held, cure=_CURE)

    def _of_held(self, held: KeyContext, *, cure: str) -> Caller:
        try:
            return rights.caller_of_key(held, now_ms=self._now_ms(), cure=cure)
        except InvalidKey as error:
            error.attribute(key_id=held.key.id, project_id=held.key.project_id)
            raise

    async def _of_token(self, token: bytes) -> Caller:
        digest = key_secret.digest(token.decode("ascii"), pepper=self._pepper)
        read = await self._read.get(_Arrived(digest, token))
        if isinstance(read, EmbedwayError):
            raise read.copy()
        read.lifetime.check(self._now_ms())
        if isinstance(read, TokenGrant):
            return await self._of_grant(read)
        return await self._of_identity(read)

    async def _of_grant(self, grant: TokenGrant) -> Caller:
        held = await self._keys_by_id.get(grant.key_id)
        if held is None:
            raise InvalidKey(f"The API key of this token does not exist. {compact.CURE}")
        caller = self._of_held(_opened(held, grant), cure=compact.CURE)
        if grant.end_user is not None and not caller.has_any_scope(("tokens",)):
            raise InvalidKey(
                f"The API key {caller.key_id} may no longer have tokens of end users. "
                f"{compact.CURE}"
            )
        return msgspec.structs.replace(
            caller, scopes=caller.scopes & grant.scopes, on_behalf_of=grant.end_user
        )

    async def _of_identity(self, identity: IssuerIdentity) -> Caller:
        found = await self._projects.get(identity.project_id)
        if found is None or found[0].archived_ms is not None:
            gone = "is archived" if found else "does not exist"
            raise Forbidden(
                f"The project of tokens of the issuer {identity.issuer!r} {gone}. Name another one "
                "in its settings, or have the issuer do so."
            )
        return Caller(
            key_id=f"issuer:{identity.issuer}",
            project=found[0],
            scopes=identity.scopes,
            on_behalf_of=identity.end_user,
            has_end_users=found[1],
        )

    async def _read_once(self, arrived: "_Arrived") -> TokenGrant | IssuerIdentity | EmbedwayError:
        token, arrived.token = arrived.token, b""
        try:
            parsed = compact.parse_token(token)
            if self._tokens and parsed.claims.get("iss") == tokens.ISSUER:
                return self._tokens.read(parsed)
            if self._issuers:
                return await self._issuers.read(parsed)
            raise InvalidKey(f"Tokens of this issuer are not accepted here. {_CURE}")
        except EmbedwayError as error:
            # Remembered as an answer is; its traceback would keep the whole token in memory.
            error.__traceback__ = error.__context__ = None
            return error


def _opened(held: KeyContext, grant: TokenGrant) -> KeyContext:
    """The key, opened by the secret that the token was made with."""
    for digest in (held.key.digest, held.key.previous_digest):
        if digest and key_secret.id_of(digest) == grant.secret_id:
            return msgspec.structs.replace(held, key=held.key.opened_by(digest))
    raise InvalidKey(
        f"This token was made with an old secret of the API key {held.key.id}. {compact.CURE}"
    )


class _Arrived:
    """A token that is known by its digest. It holds the token itself until it is read."""

    __slots__ = ("digest", "token")

    def __init__(self, digest: bytes, token: bytes) -> None:
        self.digest = digest
        self.token = token

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Arrived) and hmac.compare_digest(self.digest, other.digest)


def _bearer(authorization: bytes | None) -> bytes:
    if authorization is None:
        raise InvalidKey(f"You did not send an API key. {_CURE}")
    if len(authorization) > MAX_AUTHORIZATION_BYTES:
        raise InvalidKey(f"The Authorization header is longer than any key or token. {_CURE}")
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise InvalidKey(f"The Authorization header is not of the form 'Bearer KEY'. {_CURE}")
    return token.strip(b" \t")


def _on_behalf_of(caller: Caller, end_user: bytes | None) -> Caller:
    if end_user is None:
        return caller
    named = end_user.decode("latin-1")
    if not END_USER.fullmatch(named):
        raise InvalidRequest(
            "The header X-On-Behalf-Of must be 1 to 150 printable ASCII characters and not '*'. "
            "Send your end user's id, or leave the header out.",
            param="X-On-Behalf-Of",
        )
    if caller.on_behalf_of is not None:
        if caller.on_behalf_of == named:
            return caller
        raise Forbidden(
            "This token is of another end user. Leave the header X-On-Behalf-Of out.",
            param="X-On-Behalf-Of",
        )
    if not caller.has_any_scope(("on_behalf_of",)):
        raise Forbidden(
            "This credential may not name end users. Leave the header X-On-Behalf-Of out, or use "
            "a key with the scope on_behalf_of.",
            param="X-On-Behalf-Of",
        )
    return msgspec.structs.replace(caller, on_behalf_of=named)
