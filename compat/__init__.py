"""Runs other people's clients against a real gateway, and writes `docs/clients.md` from the run."""
