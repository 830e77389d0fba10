"""Plays an outside issuer of tokens: its keys, valid and invalid tokens, and its server."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NOW_S = 1_800_000_000
AUDIENCE = "embedway"


def b64(data: bytes) -> str:
    """Encode a part of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header: bytes | Mapping, claims: bytes | Mapping, sign: Callable[[bytes], bytes]) -> str:
    """Make a token of any parts, valid or not."""
    parts = [
        each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, claims)
    ]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    """Return a function that signs with a shared secret."""
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


class Signer:
    """A private key, and its public key as a JWK."""

    def __init__(self, kid: str | None, *, algorithm: str = "RS256", key: Any = None) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.key = key or _new(algorithm)
        self._algorithm = jwt.get_algorithm_by_name(algorithm)
        self.jwk = {
            **self._algorithm.to_jwk(self.key.public_key(), as_dict=True),
            "use": "sig",
            "alg": algorithm,
            **({} if kid is None else {"kid": kid}),
        }

    def sign(self, signed: bytes) -> bytes:
        return self._algorithm.sign(signed, self.key)

    def pem(self) -> bytes:
        return self._public(serialization.Encoding.PEM)

    def der(self) -> bytes:
        return self._public(serialization.Encoding.DER)

    def _public(self, encoding: serialization.Encoding) -> bytes:
        return self.key.public_key().public_bytes(
            encoding, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, claims: bytes | Mapping, **header: Any) -> str:
        """Sign `claims`; `header` adds or replaces fields of the header, None removes one."""
        fields = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid} | header
        return raw(
            {name: each for name, each in fields.items() if each is not None}, claims, self.sign
        )


def _new(algorithm: str) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65_537, 2048)


class OutsideIssuer:
    """A server with an OpenID configuration and a key set, which records the requested paths."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = list(signers)
        self.answers: dict[str, tuple[int, bytes]] = {}
        """Status and body by path, for further paths or in place of the usual answers."""
        self.asked: list[str] = []
        handler = type("Handler", (_Handler,), {"issuer": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def claims(self, **more: Any) -> dict[str, Any]:
        """Return the claims of a valid token; `more` adds or replaces some, None removes one."""
        valid = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "exp": NOW_S + 600, "iat": NOW_S}
        return {name: each for name, each in (valid | more).items() if each is not None}

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        if path == "/keys":
            return 200, json.dumps({"keys": [each.jwk for each in self.signers]}).encode()
        return 404, b""


class _Handler(BaseHTTPRequestHandler):
    issuer: OutsideIssuer

    def do_GET(self) -> None:
        status, body = self.issuer.answer(self.path)
        self.send_response(status)
        if status == 302:
            self.send_header("location", f"{self.issuer.url}/keys")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
