"""Checks that a key grants no more than the key that issued it."""

from collections.abc import Collection
from typing import get_args

from embedway.core.errors import Forbidden, quote_value
from embedway.core.keys import Key, Scope

NEVER_ISSUED: frozenset[Scope] = frozenset({"keys", "admin"})
"""Scopes that only an administrator gives."""


def check_issuable(key: Key, issuer: Key) -> None:
    """Raise `Forbidden`, with the field at fault, if a new key would have more than its issuer."""
    if "keys" not in issuer.scopes or issuer.issued_by or issuer.project_id is None:
        raise Forbidden(
            "This key may not issue keys. Use one with the scope keys that an administrator made, "
            "or an admin key."
        )
    if key.issued_by != issuer.id or key.project_id != issuer.project_id:
        raise Forbidden(
            f"A key issues keys of its own project alone, {issuer.project_id}, not of "
            f"{quote_value(key.project_id)}. Use an admin key for another project.",
            param="project",
        )
    for scope in key.scopes:
        if scope not in get_args(Scope) or scope in NEVER_ISSUED or scope not in issuer.scopes:
            may = sorted(set(issuer.scopes) - NEVER_ISSUED)
            raise Forbidden(
                f"'scopes' has {quote_value(scope)}, which this key cannot give. It can give "
                f"{', '.join(may) or 'none'}.",
                param="scopes",
            )
    _check_list("models", key.models, issuer.models)
    _check_list("providers", key.providers, issuer.providers)
    if issuer.expires_ms is not None and (
        key.expires_ms is None or key.expires_ms > issuer.expires_ms
    ):
        raise Forbidden(
            "The new key would live longer than the one that issues it. Let it expire at "
            f"{issuer.expires_ms // 1000} (seconds since 1970-01-01 UTC) or before.",
            param="expires_at",
        )


def _check_list(
    field: str, wanted: Collection[str] | None, allowed: Collection[str] | None
) -> None:
    if allowed is None:
        return
    if wanted is None:
        raise Forbidden(
            f"'{field}' is missing: without it the new key might use any, and the one that issues "
            f"it may not. Choose among {', '.join(allowed) or 'none'}.",
            param=field,
        )
    for each in wanted:
        if each not in allowed:
            raise Forbidden(
                f"'{field}' has {quote_value(each)}, which this key may not use "
                "itself. Choose among "
                f"{', '.join(allowed) or 'none'}.",
                param=field,
            )
