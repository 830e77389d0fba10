"""Parses the keys that an outside issuer publishes (RFC 7517), and ignores weak ones.

The algorithm comes from the key, never from the token.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KID_CHARACTERS = 256
RSA_BITS = range(2048, 8193)

# The key type and curve of each algorithm. All are asymmetric: a key that checks cannot sign.
ALGORITHMS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that checks signatures."""

    kid: str | None
    algorithm: str | None
    """The only algorithm the key may be used with; None for any that suits its `kind`."""
    kind: tuple[str, str | None]
    """The key's type and curve, one of the values of `ALGORITHMS`."""
    key: Any
    """PyJWT's own key object."""

    def supports(self, algorithm: str) -> bool:
        """Return whether the key may be used with this algorithm."""
        return ALGORITHMS[algorithm] == self.kind and self.algorithm in {None, algorithm}

    def verify(self, signed: bytes, signature: bytes, *, algorithm: str) -> bool:
        """Return whether `signature` is right, by an algorithm that the key supports."""
        return jwt.get_algorithm_by_name(algorithm).verify(signed, self.key, signature)


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Published(msgspec.Struct):
    """A published key. Fields of private keys are ignored."""

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
    """Return the usable keys in `document`. Raise `ValueError` if it is not a key set."""
    try:
        raw_keys = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is not a key set: {error}") from None
    keys = (_key(each) for each in raw_keys)
    return [each for each in keys if each is not None]


def _key(raw: msgspec.Raw) -> PublicKey | None:
    # Skip a faulty key; the others may still work.
    try:
        published = msgspec.json.decode(raw, type=_Published)
        kind = (published.kty, None if published.kty == "RSA" else published.crv)
        algorithm = next(name for name, each in ALGORITHMS.items() if each == kind)
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(
            {name: value for name, value in msgspec.structs.asdict(published).items() if value}
        )
    except (msgspec.MsgspecError, jwt.PyJWTError, ValueError, StopIteration, RecursionError):
        return None
    weak = isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS
    suitable = (
        published.use == "sig"
        and "verify" in published.key_ops
        and published.alg in {None, *ALGORITHMS}
    )
    if weak or not suitable:
        return None
    return PublicKey(kid=published.kid, algorithm=published.alg, kind=kind, key=key)
