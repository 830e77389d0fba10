"""Reads and checks the claims of tokens, both the gateway's own and those of outside issuers."""

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from embedway.auth.compact import CURE
from embedway.core.errors import InvalidKey

END_USER = re.compile(r"(?!\*\Z)[\x20-\x7e]{1,150}")
"""The form of an end user's id. It cannot be '*', which stands for every end user."""

_LATEST_S = 253_402_300_800
"""The year 10,000, in Unix seconds."""


class TokenLifetime(msgspec.Struct, frozen=True, kw_only=True):
    """The time in which a token is valid, in ms since 1970-01-01 UTC."""

    from_ms: float
    until_ms: float

    def check(self, now_ms: int) -> None:
        """Raise `InvalidKey` if the token has expired or is not valid yet."""
        if now_ms >= self.until_ms:
            raise InvalidKey(f"This token has expired. {CURE}")
        if now_ms < self.from_ms:
            raise InvalidKey("This token is not valid yet. Try again later, or correct the clocks.")


def read_lifetime(claims: Mapping[str, Any], *, leeway_s: float) -> TokenLifetime:
    """Read the required `exp` and the optional `nbf` and `iat`; clocks may differ by `leeway_s`.

    Raises:
        InvalidKey: `exp` is missing, or a claim is not a time.
    """
    if "exp" not in claims:
        raise InvalidKey(f"This token never expires: 'exp' is missing. {CURE}")
    times = {name: _time_s(claims, name) for name in ("exp", "nbf", "iat") if name in claims}
    starts_s = max(times.get("nbf", 0), times.get("iat", 0))
    return TokenLifetime(
        from_ms=(starts_s - leeway_s) * 1000, until_ms=(times["exp"] + leeway_s) * 1000
    )


def _time_s(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    # RFC 7519 allows fractions of a second. `True` is an int too, so isinstance would accept it.
    if type(value) not in {int, float} or not 0 <= value < _LATEST_S:
        raise InvalidKey(f"The token's {name!r} is not a time in seconds. {CURE}")
    return value


def check_audience(claims: Mapping[str, Any], accepted: Collection[str]) -> None:
    """Raise `InvalidKey` unless `accepted` has one of the token's audiences."""
    audience: Any = claims.get("aud")
    audiences = cast("list[Any]", audience) if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in audiences) or not set(audiences) & set(accepted):
        raise InvalidKey(f"This token is for another audience. Accepted: {', '.join(accepted)}.")


def read_end_user(claims: Mapping[str, Any], name: str) -> str:
    """Return the end user's id in the claim `name`, or raise `InvalidKey`."""
    value = claims.get(name)
    if not isinstance(value, str) or not END_USER.fullmatch(value):
        raise InvalidKey(
            f"The token's claim {name!r} is not 1 to 150 printable ASCII characters, or is '*'. "
            f"{CURE}"
        )
    return value
