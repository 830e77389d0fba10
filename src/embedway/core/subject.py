"""Defines the subjects that rate limits and budgets apply to."""

from typing import Literal

import msgspec

SubjectKind = Literal["project", "key", "end user"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A project, a key, or an end user of a project."""

    kind: SubjectKind
    id: str
    """The subject's id. A key stands for the keys it issued too."""
    project_id: str

    @property
    def label(self) -> str:
        """The subject's name in messages."""
        return f"{self.kind} {self.id!r}"

    def __str__(self) -> str:
        # This is unambiguous because only an end user's id may hold a slash.
        return f"{self.kind}/{self.project_id}/{self.id}"
