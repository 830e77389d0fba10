"""Counts things in words."""


def count_of(number: int, thing: str) -> str:
    """Return `no lines`, `1 line` or `2,000 lines`."""
    return f"{f'{number:,}' if number else 'no'} {thing if number == 1 else f'{thing}s'}"


def count_are(number: int, thing: str) -> str:
    """Return `no lines are`, `1 line is` or `2,000 lines are`."""
    return f"{count_of(number, thing)} {'is' if number == 1 else 'are'}"
