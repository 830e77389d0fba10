"""Checks the values of projects, keys and end users before they are stored.

Each check returns the record it was given, or raises `InvalidRequest`. `organization.service`
checks whether the actor may store it.
"""

from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from embedway.core.budget import Budget
from embedway.core.errors import InvalidRequest, quote_value
from embedway.core.keys import Key
from embedway.core.limit import Limit
from embedway.core.project import EndUser, Project
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.storage import records

MAX_NAME_CHARACTERS = 256
MAX_NAMES = 256
MAX_LIMITS = 16
MAX_BUDGETS = 8
MAX_ALERTS = 16
MAX_GRACE_S = 90 * 86_400
"""The longest that an old secret may work after its key is rotated."""

Record = TypeVar("Record", Project, Key, EndUser)


def check_project(record: Project) -> Project:
    """Return `record` if its values are valid."""
    _check_name(record.name)
    _check_names("models", record.models)
    _check_names("providers", record.providers)
    _check_amounts("", record.limits, record.budgets)
    _check_amounts("user_", record.user_limits, record.user_budgets)
    return _check_types(record)


def check_key(record: Key) -> Key:
    """Return `record` if its values are valid."""
    _check_name(record.name)
    _check_types(record)
    if not record.scopes:
        raise InvalidRequest(
            "'scopes' is empty: the key could do nothing. Name at least one, or leave it out.",
            param="scopes",
        )
    _check_unique("scopes", record.scopes)
    if ("admin" in record.scopes) != (record.project_id is None) or (
        record.project_id is None and len(record.scopes) > 1
    ):
        raise InvalidRequest(
            "The scope admin is for admin keys, which belong to no project and have no "
            "other scope. Leave it out, or create an admin key.",
            param="scopes",
        )
    if record.project_id is None:
        for field in ("models", "providers", "limits", "budgets"):
            if getattr(record, field):
                raise InvalidRequest(
                    f"An admin key cannot embed, so it has no '{field}'. Leave it out.", param=field
                )
    _check_names("models", record.models)
    _check_names("providers", record.providers)
    _check_amounts("", record.limits, record.budgets)
    return record


def check_end_user(record: EndUser) -> EndUser:
    """Return `record` if its values are valid."""
    check_end_user_id(record.id)
    if record.id == "*":
        raise InvalidRequest(
            "'id' is \"*\", which is not an end user. To limit every end user, set "
            "'user_limits' or 'user_budgets' of the project.",
            param="id",
        )
    _check_amounts("", record.limits or (), record.budgets or ())
    return _check_types(record)


def check_end_user_id(id: str) -> str:
    """Return `id` if a request can name an end user by it."""
    has_surrogate = id.encode(errors="ignore").decode() != id
    if not 0 < len(id) <= MAX_ATTRIBUTION_CHARACTERS or "\0" in id or has_surrogate:
        raise InvalidRequest(
            f"'id' is {quote_value(id)}: an end user's id has 1 to {MAX_ATTRIBUTION_CHARACTERS} "
            "characters, none of them NUL.",
            param="id",
        )
    return id


def is_id(text: str) -> bool:
    """Return whether any stored object could have this id; if not, a lookup is pointless."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and text.isascii() and text.isprintable()


def is_visible(name: str) -> bool:
    """Return whether the name is readable in a list."""
    return name.isprintable() and 0 < len(name.strip()) <= len(name) <= MAX_NAME_CHARACTERS


def _check_types(record: Record) -> Record:
    # Values may come from anywhere, so check their types against the annotations.
    try:
        records.from_row(records.to_row(record), type(record))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"This cannot be stored: {error}.") from None
    return record


def _check_name(name: str) -> None:
    if not is_visible(name):
        raise InvalidRequest(
            f"'name' is {quote_value(name)}: use 1 to {MAX_NAME_CHARACTERS} visible characters.",
            param="name",
        )


def _check_names(field: str, names: Sequence[str] | None) -> None:
    if names is None:
        return
    if not 0 < len(names) <= MAX_NAMES:
        raise InvalidRequest(
            f"'{field}' has {len(names)} names. Send 1 to {MAX_NAMES}, or null for any.",
            param=field,
        )
    for each in names:
        if not is_visible(each):
            raise InvalidRequest(
                f"'{field}' has {quote_value(each)}: use 1 to {MAX_NAME_CHARACTERS} "
                "visible characters.",
                param=field,
            )
    _check_unique(field, names)


def _check_amounts(prefix: str, limits: Sequence[Limit], budgets: Sequence[Budget]) -> None:
    _check_count(f"{prefix}limits", limits, MAX_LIMITS)
    _check_count(f"{prefix}budgets", budgets, MAX_BUDGETS)
    _check_unique(f"{prefix}limits", [f"{each.of} per {each.per}" for each in limits])
    _check_unique(f"{prefix}budgets", [f"budget per {each.per}" for each in budgets])
    for each in budgets:
        _check_count(f"{prefix}budgets", each.alerts, MAX_ALERTS)


def _check_count(field: str, values: Sequence[object], most: int) -> None:
    if len(values) > most:
        raise InvalidRequest(
            f"'{field}' has {len(values)} entries, {most} at most. Send fewer.", param=field
        )


def _check_unique(field: str, values: Collection[str]) -> None:
    for each in values:
        if list(values).count(each) > 1:
            raise InvalidRequest(
                f"'{field}' has {quote_value(each)} more than once. Send it once.", param=field
            )
