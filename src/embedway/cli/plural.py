"""How many there are of something, in words."""


def counted(number: int, thing: str) -> str:
    """`no lines`, `1 line`, `2,000 lines`."""
    return f"{f'{number:,}' if number else 'no'} {thing if number == 1 else f'{thing}s'}"


def are(number: int, thing: str) -> str:
    """`no lines are`, `1 line is`, `2,000 lines are`."""
    return f"{counted(number, thing)} {'is' if number == 1 else 'are'}"
