"""Authenticates requests: turns their headers into a `Caller`.

When any process revokes a key, the key and its tokens stop working here within
`embedway.concurrency.ttl_cache.FRESH_S`. Tokens are cached by a keyed digest of the whole token, so
one is never taken for another.
"""

import hmac
from collections.abc import Callable, Collection

import msgspec

from embedway.auth import compact, rights, tokens
from embedway.auth.claims import END_USER
from embedway.auth.issuers import IssuerIdentity, IssuerRegistry
from embedway.auth.tokens import GatewayTokens, TokenGrant
from embedway.concurrency.ttl_cache import TTLCache, UnknownNames
from embedway.core.errors import EmbedwayError, Forbidden, InvalidKey, InvalidRequest
from embedway.core.keys import Caller, KeyContext, Scope
from embedway.core.project import Project
from embedway.organization import key_secret
from embedway.organization.directory import Directory

_CURE = "Send 'Authorization: Bearer sk-gateway-...' with a key made by 'embedway keys create'."
ISSUER_PREFIX = "issuer:"
"""What the `key_id` of the caller of an outside issuer's token begins with."""
_PREFIX = key_secret.PREFIX.encode()
MAX_AUTHORIZATION_BYTES = len("Bearer ") + compact.MAX_BYTES


class Authenticator:
    """Checks keys against the database, and tokens against this gateway's key or their issuer's."""

    def __init__(
        self,
        directory: Directory,
        *,
        pepper: bytes,
        now_ms: Callable[[], int],
        tokens: GatewayTokens | None = None,
        issuers: IssuerRegistry | None = None,
    ) -> None:
        self._pepper = pepper
        self._now_ms = now_ms
        self._tokens = tokens
        self.accept(issuers)
        self._keys = TTLCache[bytes, KeyContext | None](directory.find_key_by_digest)
        self._unknown_keys = UnknownNames[bytes](directory.find_known_digests)
        self._keys_by_id = TTLCache[str, KeyContext | None](directory.find_key)
        self._projects = TTLCache[str, tuple[Project, bool] | None](directory.find_project)

    def accept(self, issuers: IssuerRegistry | None) -> None:
        """Accept the tokens of these issuers from now on, and read all tokens again."""
        self._issuers = issuers
        self._token_contents = TTLCache[_UnreadToken, TokenGrant | IssuerIdentity | EmbedwayError](
            self._read_token
        )

    async def authenticate(self, authorization: bytes | None, on_behalf_of: bytes | None) -> Caller:
        """Return the caller for the values of `Authorization` and `X-On-Behalf-Of`.

        Raises:
            InvalidKey: The key or token is missing, or does not work now.
            InvalidRequest: `X-On-Behalf-Of` is not an end user's id.
            Forbidden: The credential may not name end users, or not this one, or its project is
                archived or does not exist.
            StorageUnavailable: The database, or the issuer's keys, cannot be read.
        """
        token = _bearer_token(authorization)
        if token.startswith(_PREFIX):
            caller = await self._authenticate_key(token)
        elif compact.is_compact_token(token):
            caller = await self._authenticate_token(token)
        else:
            raise InvalidKey(f"This is neither an API key nor a token. {_CURE}")
        try:
            return _on_behalf_of(caller, on_behalf_of)
        except EmbedwayError as error:
            project_id = caller.project and caller.project.id
            error.attribute(key_id=caller.key_id, project_id=project_id)
            raise

    async def find_caller(
        self,
        *,
        key_id: str,
        project_id: str,
        scopes: Collection[Scope],
        on_behalf_of: str | None,
    ) -> Caller:
        """Return the caller of work that was submitted earlier, with the rights it has now.

        The arguments are what the `Caller` was when it was submitted.

        Raises:
            InvalidKey: The key does not work any more.
            Forbidden: It may not embed any more, or the project of a token's issuer is archived.
            StorageUnavailable: The database cannot be read.
        """
        if key_id.startswith(ISSUER_PREFIX):
            caller = await self._caller_in_project(key_id.removeprefix(ISSUER_PREFIX), project_id)
            scopes = frozenset(scopes)
        else:
            context = await self._keys_by_id.get(key_id)
            if context is None:
                raise InvalidKey(f"The API key {key_id} does not exist any more.")
            caller = self._caller_of_key(context, cure="Submit the batch again with another key.")
            rights.require_scope(caller, "embeddings")
            scopes = caller.scopes.intersection(scopes)
        return msgspec.structs.replace(caller, scopes=scopes, on_behalf_of=on_behalf_of)

    async def authenticate_client(self, key_id: str, key: str) -> Caller:
        """Return the caller for a key, if its id is `key_id`.

        Raises:
            InvalidKey: The id and key do not belong together, or the key does not work now.
            StorageUnavailable: The database cannot be read.
        """
        context = await self._find_key(key)
        # Compare even if the key does not exist, so that both cases take equally long.
        actual_id = context.key.id if context else ""
        same = hmac.compare_digest(actual_id.encode(), key_id.encode("utf-8", "replace"))
        if context is None or not same:
            raise InvalidKey(
                "The client's id and secret do not belong to the same key. Send a key's id "
                "('embedway keys list') as client_id and the key itself as client_secret."
            )
        return rights.caller_of_key(context, now_ms=self._now_ms(), cure=_CURE)

    async def _find_key(self, key: str) -> KeyContext | None:
        digest = key_secret.digest(key, pepper=self._pepper)
        if digest not in self._keys:
            if not key_secret.is_well_formed(key):
                return None
            # Lookups of keys that do not exist wait in a queue of their own and are not cached.
            if not await self._unknown_keys.exists(digest):
                return None
        return await self._keys.get(digest)

    async def _authenticate_key(self, token: bytes) -> Caller:
        key = token.decode("latin-1")
        context = await self._find_key(key)
        if context is None:
            is_whole = key_secret.is_well_formed(key)
            problem = "does not exist" if is_whole else "is incomplete or mistyped"
            raise InvalidKey(f"This API key {problem}. {_CURE}")
        return self._caller_of_key(context, cure=_CURE)

    def _caller_of_key(self, context: KeyContext, *, cure: str) -> Caller:
        try:
            return rights.caller_of_key(context, now_ms=self._now_ms(), cure=cure)
        except InvalidKey as error:
            error.attribute(key_id=context.key.id, project_id=context.key.project_id)
            raise

    async def _authenticate_token(self, token: bytes) -> Caller:
        digest = key_secret.digest(token.decode("ascii"), pepper=self._pepper)
        content = await self._token_contents.get(_UnreadToken(digest, token))
        if isinstance(content, EmbedwayError):
            raise content.copy()
        content.lifetime.check(self._now_ms())
        if isinstance(content, TokenGrant):
            return await self._caller_of_grant(content)
        return await self._caller_of_identity(content)

    async def _caller_of_grant(self, grant: TokenGrant) -> Caller:
        context = await self._keys_by_id.get(grant.key_id)
        if context is None:
            raise InvalidKey(f"The API key of this token does not exist. {compact.CURE}")
        caller = self._caller_of_key(_open(context, grant), cure=compact.CURE)
        if grant.end_user is not None and not caller.has_any_scope(("tokens",)):
            raise InvalidKey(
                f"The API key {caller.key_id} may no longer issue tokens for end users. "
                f"{compact.CURE}"
            )
        return msgspec.structs.replace(
            caller, scopes=caller.scopes & grant.scopes, on_behalf_of=grant.end_user
        )

    async def _caller_of_identity(self, identity: IssuerIdentity) -> Caller:
        caller = await self._caller_in_project(identity.issuer, identity.project_id)
        return msgspec.structs.replace(
            caller, scopes=identity.scopes, on_behalf_of=identity.end_user
        )

    async def _caller_in_project(self, issuer: str, project_id: str) -> Caller:
        project, has_end_users = await self._projects.get(project_id) or (None, False)
        if project is None or project.archived_ms is not None:
            problem = "is archived" if project else "does not exist"
            raise Forbidden(
                f"The project of this token's issuer {issuer!r} {problem}. Name another "
                "in the issuer's settings, or have the issuer name another."
            )
        return Caller(
            key_id=ISSUER_PREFIX + issuer,
            project=project,
            scopes=frozenset(),
            has_end_users=has_end_users,
        )

    async def _read_token(
        self, unread: "_UnreadToken"
    ) -> TokenGrant | IssuerIdentity | EmbedwayError:
        token, unread.token = unread.token, b""
        try:
            parsed = compact.parse_token(token)
            if self._tokens and parsed.claims.get("iss") == tokens.ISSUER:
                return self._tokens.read(parsed)
            if self._issuers:
                return await self._issuers.read(parsed)
            raise InvalidKey(f"Tokens of this issuer are not accepted here. {_CURE}")
        except EmbedwayError as error:
            # The cache keeps errors too. A traceback would keep the whole token in memory.
            error.__traceback__ = error.__context__ = None
            return error


def _open(context: KeyContext, grant: TokenGrant) -> KeyContext:
    """Return the key as opened by the secret that the token was made with."""
    for digest in (context.key.digest, context.key.previous_digest):
        if digest and key_secret.id_of(digest) == grant.secret_id:
            return msgspec.structs.replace(context, key=context.key.opened_by(digest))
    raise InvalidKey(
        f"This token was made with an old secret of the API key {context.key.id}. {compact.CURE}"
    )


class _UnreadToken:
    """A token to read, as a cache key. Compares by digest, and keeps the token until it is read."""

    __slots__ = ("digest", "token")

    def __init__(self, digest: bytes, token: bytes) -> None:
        self.digest = digest
        self.token = token

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UnreadToken) and hmac.compare_digest(self.digest, other.digest)


def _bearer_token(authorization: bytes | None) -> bytes:
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
    end_user_id = end_user.decode("latin-1")
    if not END_USER.fullmatch(end_user_id):
        raise InvalidRequest(
            "The header X-On-Behalf-Of must be 1 to 150 printable ASCII characters and not '*'. "
            "Send your end user's id, or leave the header out.",
            param="X-On-Behalf-Of",
        )
    if caller.on_behalf_of is not None:
        if caller.on_behalf_of == end_user_id:
            return caller
        raise Forbidden(
            "This token is for another end user. Leave the header X-On-Behalf-Of out.",
            param="X-On-Behalf-Of",
        )
    if not caller.has_any_scope(("on_behalf_of",)):
        raise Forbidden(
            "This credential may not name end users. Leave the header X-On-Behalf-Of out, or use "
            "a key with the scope on_behalf_of.",
            param="X-On-Behalf-Of",
        )
    return msgspec.structs.replace(caller, on_behalf_of=end_user_id)
