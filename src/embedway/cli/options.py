"""Options that take a number or a time: what they accept, and what they say to anything else.

Each message repeats the option and the value, and gives one to type instead.
"""

import math
import re
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any

import typer

from embedway.cli.terminal import reject

TIME_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(name: str, *, least: int, most: int, example: int, help: str) -> Any:
    """An option that takes a whole number from `least` to `most`."""

    def parse(text: str | int) -> int:
        number = int(text) if _WHOLE.fullmatch(str(text)) else None
        if number is None or not least <= number <= most:
            reject(
                f"{name} {str(text)!r} is not possible. Type a whole number from {least} to "
                f"{most}, such as {name} {example}"
            )
        return number

    return typer.Option(name, parser=parse, metavar="N", help=help)


def days(name: str, *, least: float, most: int, example: int, help: str) -> Any:
    """An option that takes a number of days, `least` of which is above 0."""

    def parse(text: str | float) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            reject(
                f"{name} {str(text)!r} is not possible. Type a number of days from {least:.5f} to "
                f"{most}, such as {name} {example}"
            )
        return number

    return typer.Option(name, parser=parse, metavar="DAYS", help=help)


def time(name: str, *, help: str) -> Any:
    """An option that takes a day, or a time of one."""
    cure = f"Type a day, such as {name} 2026-11-01, or a time, such as {name} 2026-11-01T13:30"
    return _dated(name, TIME_FORMATS, cure, metavar="TIME", help=help)


def day(name: str, *, help: str) -> Any:
    """An option that takes a day."""
    cure = f"Type a day, such as {name} 2026-11-01"
    return _dated(name, TIME_FORMATS[:1], cure, metavar="DAY", help=help)


def as_typed(at: datetime) -> str:
    """A time as somebody may have typed it."""
    return at.isoformat().removesuffix(":00").removesuffix("T00:00")


def is_unicode(text: str) -> bool:
    """Whether an argument was UTF-8: Python hands on what was not as lone surrogates."""
    return not re.search("[\ud800-\udfff]", text)


def _dated(name: str, formats: tuple[str, ...], cure: str, **info: str) -> Any:
    def parse(text: str | datetime) -> datetime:
        if isinstance(text, datetime):
            return text
        at = next(filter(None, (_read(text, each) for each in formats)), None)
        if at is None:
            reject(f"{name} {text!r} is not possible. {cure}")
        return at

    return typer.Option(name, parser=parse, **info)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _read(text: str, format: str) -> datetime | None:
    try:
        at = datetime.strptime(text, format)  # noqa: DTZ007  # each command knows its zone
    except ValueError:
        return None
    # The first and the last year may have no such time in another zone.
    return at if MINYEAR < at.year < MAXYEAR else None
