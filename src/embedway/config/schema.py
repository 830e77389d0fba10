"""What everything that reads settings shares: strict models, and messages about what is wrong."""

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Count = Annotated[int, Ge(1)]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


class ConfigError(Exception):
    """A setting is unknown or has a value it cannot have; the message says which and where."""


class SettingsSection(BaseModel):
    """The base of what can be set. The text below a field says what it means, in messages too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    @cache
    def meanings(cls) -> Mapping[str, str]:
        """The text below each field, in one line. Pydantic can do this too, but at each start."""
        [definition] = ast.parse(inspect.getsource(cls)).body
        return {
            field.target.id: " ".join(text.split())
            for field, below in pairwise(cast("ast.ClassDef", definition).body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(text := below.value.value, str)
        }


AnySchema = TypeVar("AnySchema", bound=SettingsSection)


def read_section(
    schema: type[AnySchema],
    section: Mapping[str, Any],
    *,
    where: str,
    nested: Mapping[str, type[SettingsSection]] = {},
    show_values: bool = False,
) -> AnySchema:
    """Check what a section of the settings file says.

    Args:
        schema: What it may say.
        section: As it is in the file.
        where: File and section, for messages.
        nested: The schema of the entries of each field that is a list of tables.
        show_values: Whether messages may show values. They must not where one may be a key.

    Raises:
        ConfigError: It says something else; the message names each wrong setting and the cure.
    """
    try:
        return schema.model_validate(section)
    except ValidationError as error:
        told = (_explained(each, schema, section, nested, show_values) for each in error.errors())
        raise ConfigError("\n".join(f"{where}: {each}" for each in dict.fromkeys(told))) from None


def _explained(
    error: ErrorDetails,
    schema: type[SettingsSection],
    section: Mapping[str, Any],
    nested: Mapping[str, type[SettingsSection]],
    show_values: bool,  # noqa: FBT001
) -> str:
    # Without the parts by which pydantic tells the branches of a union apart.
    place = [each for each in error["loc"] if isinstance(each, int) or "[" not in each]
    entry = ""
    if len(place) > 1 and place[0] in nested:
        schema, at = nested[str(place[0])], int(place[1])
        table: Any = section[str(place[0])][at]
        named: Any = cast("dict[str, Any]", table).get("id") if isinstance(table, dict) else None
        entry = f"model {named!r}: " if named else f"model {at + 1}: "
        place = place[2:]
    if not place:
        return f"{entry}{explain_reason(error)}."
    setting = str(place[0])
    if error["type"] == "extra_forbidden":
        return entry + unknown_setting(setting, schema.model_fields)
    meaning = schema.meanings()[setting]
    if error["type"] == "missing":
        return f"{entry}{setting} is missing. {meaning}"
    shown = f" = {error['input']!r}" if show_values else ""
    return f"{entry}{'.'.join(map(str, place))}{shown}: {explain_reason(error)}. {meaning}"


def explain_reason(error: ErrorDetails) -> str:
    """What is wrong with a value, to go on with after a colon."""
    text = error["msg"].removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def unknown_setting(
    setting: str, known: Iterable[str], *, written: Callable[[str], str] = str
) -> str:
    """The message about a setting that there is not; `written` is how settings are written."""
    return (
        f"there is no setting {written(setting)}. {did_you_mean(setting, known, written=written)}"
    )


def did_you_mean(name: str, known: Iterable[str], *, written: Callable[[str], str] = str) -> str:
    """The name in `known` that is nearest to a mistyped one, or all of them."""
    names = list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, names, n=1):
        return f"Did you mean {written(near[0])}?"
    return f"There are: {', '.join(map(written, names))}."


def check_name(name: str, *, of: str, where: str) -> None:
    """Refuse a section whose name cannot be that of a provider or an issuer.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: the name of {of} is 1 to 64 of a-z, 0-9, dot, dash and underscore, and "
            "begins with a letter or a digit."
        )


def split_url(url: str) -> SplitResult | None:
    """The parts of an address; None if they cannot be told apart or its port is none."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    return None
