"""Reads the keys that an outside issuer publishes (RFC 7517), and leaves out weak ones.

A key says which algorithm it is for; a token never does.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KID_CHARACTERS = 256
RSA_BITS = range(2048, 8193)

# The type of key and the curve of each. With none of them can whoever checks a token sign one.
ALGORITHMS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to check signatures with."""

    kid: str | None
    algorithm: str | None
    """The only algorithm it is for; None for any of its kind."""
    kind: tuple[str, str | None]
    """The key's type and curve, one of the values of `ALGORITHMS`."""
    key: Any
    """PyJWT's own key object."""

    def fits(self, algorithm: str) -> bool:
        """Whether it may be used with this algorithm."""
        return ALGORITHMS[algorithm] == self.kind and self.algorithm in {None, algorithm}

    def verify(self, signed: bytes, signature: bytes, *, algorithm: str) -> bool:
        """Whether `signature` is right, by an algorithm that the key `fits`."""
        return jwt.get_algorithm_by_name(algorithm).verify(signed, self.key, signature)


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Published(msgspec.Struct):
    """A key as it is published. Members of private keys are not read."""

    kty: str
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str | None = None
    kid: Annotated[str, msgspec.Meta(max_length=MAX_KID_CHARACTERS)] | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


def parse_public_keys(document: bytes) -> Sequence[PublicKey]:
    """Read the usable keys in `document`. Raises `ValueError` if it is no key set."""
    try:
        published = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is no key set: {error}") from None
    found = (_key(each) for each in published)
    return [each for each in found if each is not None]


def _key(raw: msgspec.Raw) -> PublicKey | None:
    # Whatever is wrong with one key, the others work.
    try:
        told = msgspec.json.decode(raw, type=_Published)
        kind = (told.kty, None if told.kty == "RSA" else told.crv)
        algorithm = next(name for name, each in ALGORITHMS.items() if each == kind)
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(
            {name: value for name, value in msgspec.structs.asdict(told).items() if value}
        )
    except (msgspec.MsgspecError, jwt.PyJWTError, ValueError, StopIteration, RecursionError):
        return None
    weak = isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS
    fit = told.use == "sig" and "verify" in told.key_ops and told.alg in {None, *ALGORITHMS}
    if weak or not fit:
        return None
    return PublicKey(kid=told.kid, algorithm=told.alg, kind=kind, key=key)
