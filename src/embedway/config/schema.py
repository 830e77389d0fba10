"""Checks settings strictly, and explains what is wrong with them."""

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Count = Annotated[int, Ge(1)]

MAX_SECRET_BYTES = 2**16
"""The longest secret; a longer file is something else."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


class ConfigError(Exception):
    """A setting is unknown or has an invalid value; the message says which and where."""


class SettingsSection(BaseModel):
    """The base of all settings. Messages quote the docstring below a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    @cache
    def meanings(cls) -> Mapping[str, str]:
        """Return the docstring of each field, in one line.

        Pydantic can do this too, but would do it at every start.
        """
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
    """Check a section of the settings file.

    Args:
        schema: The settings that the section may have.
        section: The section as it is in the file.
        where: The file and the section, for messages.
        nested: The schema of the entries of each field that is a list of tables.
        show_values: Whether messages may show values, because none can be a key.

    Raises:
        ConfigError: Settings are wrong; the message names each of them and the cure.
    """
    try:
        return schema.model_validate(section)
    except ValidationError as error:
        reasons = dict.fromkeys(
            _explained(each, schema, section, nested, show_values) for each in error.errors()
        )
        raise ConfigError("\n".join(f"{where}: {each}" for each in reasons)) from None


def _explained(
    error: ErrorDetails,
    schema: type[SettingsSection],
    section: Mapping[str, Any],
    nested: Mapping[str, type[SettingsSection]],
    show_values: bool,  # noqa: FBT001
) -> str:
    # Drop the parts that name branches of a union.
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
    """Return what is wrong with a value, in words to put after a colon."""
    text = error["msg"].removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def unknown_setting(
    setting: str, known: Iterable[str], *, spell: Callable[[str], str] = str
) -> str:
    """Return the message about an unknown setting; `spell` writes names as the source does."""
    return f"there is no setting {spell(setting)}. {did_you_mean(setting, known, spell=spell)}"


def did_you_mean(name: str, known: Iterable[str], *, spell: Callable[[str], str] = str) -> str:
    """Suggest the name in `known` that is closest to a mistyped one, or list them all."""
    names = list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, names, n=1):
        return f"Did you mean {spell(near[0])}?"
    return f"There are: {', '.join(map(spell, names))}."


def check_name(name: str, *, of: str, where: str) -> None:
    """Check the name of a section.

    Args:
        name: The name.
        of: What it names, for the message.
        where: The file and the section, for the message.

    Raises:
        ConfigError: The name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: the name of {of} is 1 to 64 of a-z, 0-9, dot, dash and underscore, and "
            "begins with a letter or a digit."
        )


def read_text_file(path: Path) -> str:
    """Return what a file with a secret holds, without the space around it.

    Raises:
        ConfigError: It is empty, or cannot be read.
    """
    try:
        # Opening a pipe would wait for its writer.
        if not path.is_file():
            raise ConfigError(f"there is no file {path}. Correct the path, or make the file.")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        if len(content) > MAX_SECRET_BYTES:
            raise ConfigError(f"the file {path} is too long for a secret. Name another.")
        text = content.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is not UTF-8"
        raise ConfigError(f"the file {path} cannot be read: {reason}.") from None
    if not text:
        raise ConfigError(f"the file {path} is empty. Write the secret there.")
    return text


def split_url(url: str) -> SplitResult | None:
    """Return the parts of a URL; None if it or its port is invalid."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    return None
