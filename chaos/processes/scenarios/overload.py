"""Stub."""


def run(stage):
    """Stub."""
    return []
