"""Options that take a number or a time.

Each error message repeats the option and the value, and shows one to type instead.
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
    """Return an option that takes a whole number from `least` to `most`."""

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
    """Return an option that takes a number of days, also a fraction, from `least` to `most`."""

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
    """Return an option that takes a day, or a time on a day."""
    cure = f"Type a day, such as {name} 2026-11-01, or a time, such as {name} 2026-11-01T13:30"
    return _datetime_option(name, TIME_FORMATS, cure, metavar="TIME", help=help)


def day(name: str, *, help: str) -> Any:
    """Return an option that takes a day."""
    cure = f"Type a day, such as {name} 2026-11-01"
    return _datetime_option(name, TIME_FORMATS[:1], cure, metavar="DAY", help=help)


def format_typed_time(at: datetime) -> str:
    """Return a time in the shortest form in which it can be typed."""
    return at.isoformat().removesuffix(":00").removesuffix("T00:00")


def is_unicode(text: str) -> bool:
    """Return whether an argument was UTF-8. Python passes on other bytes as lone surrogates."""
    return not re.search("[\ud800-\udfff]", text)


def _datetime_option(name: str, formats: tuple[str, ...], cure: str, **info: str) -> Any:
    def parse(text: str | datetime) -> datetime:
        if isinstance(text, datetime):
            return text
        at = next(filter(None, (_parse_time(text, each) for each in formats)), None)
        if at is None:
            reject(f"{name} {text!r} is not possible. {cure}")
        return at

    return typer.Option(name, parser=parse, **info)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _parse_time(text: str, format: str) -> datetime | None:
    try:
        at = datetime.strptime(text, format)  # noqa: DTZ007  # each command knows its zone
    except ValueError:
        return None
    # In another time zone, a time of the first or last year may not exist.
    return at if MINYEAR < at.year < MAXYEAR else None
