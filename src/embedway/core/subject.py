"""Who limits and budgets are of."""

from typing import Literal

import msgspec

SubjectKind = Literal["project", "key", "end user"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A project, a key, or an end user of a project."""

    kind: SubjectKind
    id: str
    """Of a key: its usage and that of all keys it issued."""
    project_id: str

    @property
    def label(self) -> str:
        """As messages name it."""
        return f"{self.kind} {self.id!r}"

    def __str__(self) -> str:
        # Unambiguous: ids of projects and keys hold no slash, only an end user's may.
        return f"{self.kind}/{self.project_id}/{self.id}"
