"""What projects, keys and end users may be, whoever makes them; asked before each is stored.

Knows nothing of who may make them, which is `admin.acts`.
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
"""The longest that an old secret works on after its key is rotated."""

Record = TypeVar("Record", Project, Key, EndUser)


def check_project(record: Project) -> Project:
    """The project, if there may be one like it.

    Raises:
        InvalidRequest: There may not; likewise below.
    """
    _name(record.name)
    _names("models", record.models)
    _names("providers", record.providers)
    _amounts("", record.limits, record.budgets)
    _amounts("user_", record.user_limits, record.user_budgets)
    return _typed(record)


def check_key(record: Key) -> Key:
    """The key, if there may be one like it."""
    _name(record.name)
    _typed(record)
    if not record.scopes:
        raise InvalidRequest(
            "'scopes' is empty: such a key could do nothing. Name at least one, or leave it out.",
            param="scopes",
        )
    _once("scopes", record.scopes)
    if ("admin" in record.scopes) != (record.project_id is None) or (
        record.project_id is None and len(record.scopes) > 1
    ):
        raise InvalidRequest(
            "The scope admin is of admin keys, which are of no project and have no other. Leave "
            "it out, or make an admin key.",
            param="scopes",
        )
    if record.project_id is None:
        for field in ("models", "providers", "limits", "budgets"):
            if getattr(record, field):
                raise InvalidRequest(
                    f"An admin key cannot embed, so it has no '{field}'. Leave it out.", param=field
                )
    _names("models", record.models)
    _names("providers", record.providers)
    _amounts("", record.limits, record.budgets)
    return record


def check_end_user(record: EndUser) -> EndUser:
    """The record, if there may be one like it."""
    check_end_user_id(record.id)
    if record.id == "*":
        raise InvalidRequest(
            "'id' is \"*\", which stands for nobody. To limit every end user, set 'user_limits' or "
            "'user_budgets' of the project.",
            param="id",
        )
    _amounts("", record.limits or (), record.budgets or ())
    return _typed(record)


def check_end_user_id(id: str) -> str:
    """The id, if requests can be for an end user of this id."""
    if not 0 < len(id) <= MAX_ATTRIBUTION_CHARACTERS or "\0" in id or not _is_text(id):
        raise InvalidRequest(
            f"'id' is {quote_value(id)}: an end user's id has 1 to {MAX_ATTRIBUTION_CHARACTERS} "
            "characters, none of them NUL.",
            param="id",
        )
    return id


def is_id(text: str) -> bool:
    """Whether anything stored could have this id; what could not is not looked for."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and text.isascii() and text.isprintable()


def is_visible(name: str) -> bool:
    """Whether people can read it in a list."""
    return name.isprintable() and 0 < len(name.strip()) <= len(name) <= MAX_NAME_CHARACTERS


def _typed(record: Record) -> Record:
    # The types of fields are those of their annotations, whatever they were set from.
    try:
        records.from_row(records.to_row(record), type(record))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"This cannot be stored: {error}.") from None
    return record


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(name: str) -> None:
    if not is_visible(name):
        raise InvalidRequest(
            f"'name' is {quote_value(name)}: use 1 to {MAX_NAME_CHARACTERS} visible characters.",
            param="name",
        )


def _names(field: str, names: Sequence[str] | None) -> None:
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
    _once(field, names)


def _amounts(prefix: str, limits: Sequence[Limit], budgets: Sequence[Budget]) -> None:
    _few(f"{prefix}limits", limits, MAX_LIMITS)
    _few(f"{prefix}budgets", budgets, MAX_BUDGETS)
    _once(f"{prefix}limits", [f"{each.of} per {each.per}" for each in limits])
    _once(f"{prefix}budgets", [f"budget per {each.per}" for each in budgets])
    for each in budgets:
        _few(f"{prefix}budgets", each.alerts, MAX_ALERTS)


def _few(field: str, values: Sequence[object], most: int) -> None:
    if len(values) > most:
        raise InvalidRequest(
            f"'{field}' has {len(values)} entries, {most} at most. Send fewer.", param=field
        )


def _once(field: str, values: Collection[str]) -> None:
    for each in values:
        if list(values).count(each) > 1:
            raise InvalidRequest(
                f"'{field}' has {quote_value(each)} more than once. Send it once.", param=field
            )
