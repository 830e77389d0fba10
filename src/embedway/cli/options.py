"""Options that take a number or a time.

Each error message repeats the option and the value, and shows one to type instead.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any

import typer

from embedway.cli.terminal import reject

TIME_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(name: str, *, least: int, most: int, example: int, help: str) -> Any:
    """Return an option that takes a whole number from `least` to `most`."""

    def parse(text: str) -> int | None:
        return int(text) if _WHOLE.fullmatch(text) and least <= int(text) <= most else None

    cure = f"Type a whole number from {least} to {most}, such as {name} {example}"
    return _option(name, parse, cure, metavar="N", help=help)


def whole_number_or(word: str, name: str, *, least: int, most: int, example: int, help: str) -> Any:
    """Return an option that takes a whole number from `least` to `most`, or a word, as text."""

    def parse(text: str) -> str | None:
        is_number = _WHOLE.fullmatch(text) and least <= int(text) <= most
        return text if is_number or text == word else None

    cure = f"Type a whole number from {least} to {most}, or {word}, such as {name} {example}"
    return _option(name, parse, cure, metavar=f"N|{word}", help=help)


def days(name: str, *, least: float, most: int, example: int, help: str) -> Any:
    """Return an option that takes a number of days, also a fraction, from `least` to `most`."""

    def parse(text: str) -> float | None:
        return number if least <= (number := float(text)) <= most else None

    cure = f"Type a number of days from {least:.5f} to {most}, such as {name} {example}"
    return _option(name, parse, cure, metavar="DAYS", help=help)


def time(name: str, *, help: str, formats: tuple[str, ...] = TIME_FORMATS) -> Any:
    """Return an option that takes a day, or a time on a day."""

    def parse(text: str) -> datetime | None:
        for each in formats:
            with suppress(ValueError):
                at = datetime.strptime(text, each)  # noqa: DTZ007  # each command knows its zone
                # In another time zone, a time of the first or last year may not exist.
                return at if MINYEAR < at.year < MAXYEAR else None
        return None

    cure = f"Type a day, such as {name} 2026-11-01"
    if len(formats) > 1:
        cure += f", or a time, such as {name} 2026-11-01T13:30"
    return _option(name, parse, cure, metavar="TIME" if len(formats) > 1 else "DAY", help=help)


def day(name: str, *, help: str) -> Any:
    """Return an option that takes a day."""
    return time(name, help=help, formats=TIME_FORMATS[:1])


def format_typed_time(at: datetime) -> str:
    """Return a time in the shortest form in which it can be typed."""
    return at.isoformat().removesuffix(":00").removesuffix("T00:00")


def is_unicode(text: str) -> bool:
    """Return whether an argument was UTF-8. Python passes on other bytes as lone surrogates."""
    return not re.search("[\ud800-\udfff]", text)


def _option(name: str, parse: Callable[[str], Any], cure: str, *, metavar: str, help: str) -> Any:
    """Return an option whose value `parse` reads; None or a `ValueError` means a wrong value."""

    def parser(typed: object) -> Any:
        if not isinstance(typed, str):  # a default, or parsed before
            return typed
        value = None
        with suppress(ValueError):
            value = parse(typed)
        if value is None:
            reject(f"{name} {typed!r} is not possible. {cure}")
        return value

    return typer.Option(name, parser=parser, metavar=metavar, help=help)
