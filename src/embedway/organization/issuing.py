"""Checks that a key grants no more than the key that issued it."""

from collections.abc import Collection
from typing import get_args

from embedway.core.errors import Forbidden, quote_value
from embedway.core.keys import Key, Scope

NEVER_ISSUED: frozenset[Scope] = frozenset({"keys", "admin"})
"""The scopes that only an administrator can grant."""


def check_issuable(key: Key, issuer: Key) -> None:
    """Raise `Forbidden`, with the field at fault, if `issuer` may not grant what `key` has."""
    if "keys" not in issuer.scopes or issuer.issued_by or issuer.project_id is None:
        raise Forbidden(
            "This key may not issue keys. Use one with the scope keys that an administrator made, "
            "or an admin key."
        )
    if key.issued_by != issuer.id or key.project_id != issuer.project_id:
        raise Forbidden(
            f"A key can only issue keys of its own project, {issuer.project_id}, not of "
            f"{quote_value(key.project_id)}. Use an admin key for another project.",
            param="project",
        )
    for scope in key.scopes:
        if scope not in get_args(Scope) or scope in NEVER_ISSUED or scope not in issuer.scopes:
            allowed = sorted(set(issuer.scopes) - NEVER_ISSUED)
            raise Forbidden(
                f"'scopes' has {quote_value(scope)}, which this key cannot grant. It can grant "
                f"{', '.join(allowed) or 'none'}.",
                param="scopes",
            )
    _check_list("models", key.models, issuer.models)
    _check_list("providers", key.providers, issuer.providers)
    if issuer.expires_ms is not None and (
        key.expires_ms is None or key.expires_ms > issuer.expires_ms
    ):
        raise Forbidden(
            "The new key would outlive the key that issues it. Let it expire at "
            f"{issuer.expires_ms // 1000} (seconds since 1970-01-01 UTC) or earlier.",
            param="expires_at",
        )


def _check_list(field: str, names: Collection[str] | None, allowed: Collection[str] | None) -> None:
    if allowed is None:
        return
    if names is None:
        raise Forbidden(
            f"'{field}' is missing: without it the new key could use any, but the key that "
            f"issues it cannot. Choose from {', '.join(allowed) or 'none'}.",
            param=field,
        )
    for each in names:
        if each not in allowed:
            raise Forbidden(
                f"'{field}' has {quote_value(each)}, which this key may not use "
                f"itself. Choose from {', '.join(allowed) or 'none'}.",
                param=field,
            )
