"""Defines the record of a file and its segments."""

from typing import Literal

import msgspec

from embedway.core import ids

Purpose = Literal["batch", "batch_output"]
FileState = Literal["uploading", "ready", "deleting"]


def new_file_id() -> str:
    """Return an id for a new file."""
    return ids.new_id("file").replace("_", "-")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a file. Its content is in the object store, cut into segments."""

    id: str
    """The file's id, `file-...`."""
    project_id: str
    name: str
    purpose: Purpose
    bytes: int
    state: FileState
    """`ready` once it is complete. Clients see no file in another state."""
    created_ms: int
    expires_ms: int | None
    """When it is deleted, in ms since the epoch; None if only on demand."""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the content of a file. The content is all its segments, in order."""

    file_id: str
    number: int
    path: str
    """Its place in the object store."""
    bytes: int
