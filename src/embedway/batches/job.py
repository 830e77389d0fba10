"""Defines the record of a batch."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from embedway.core.keys import Scope

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
"""The statuses of OpenAI's Batch API."""
UNFINISHED: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""The statuses of batches that a process has to work on."""


class Submitter(msgspec.Struct, frozen=True, kw_only=True):
    """Who submitted a batch, and so who sends its requests. The rights are those of the moment."""

    key_id: str
    scopes: tuple[Scope, ...]
    """The scopes of the credential, which may be fewer than those of its key."""
    on_behalf_of: str | None


class BatchProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch failed."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """The number of the line at fault, from 1; None if it is not one line's."""


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a batch."""

    id: str
    """The batch's id, `batch_...`."""
    project_id: str
    submitter: Submitter
    metadata: Mapping[str, str]
    input_file_id: str
    output_file_id: str
    """The file of answers. It exists once the batch is finished, unless it has none."""
    error_file_id: str
    """The file of lines without an answer, likewise."""
    output_expires_s: int | None
    """After how many seconds both files expire; None if only on demand."""
    status: BatchStatus
    created_ms: int
    expires_ms: int
    """When the batch expires, in ms since the epoch."""
    reached_ms: Mapping[BatchStatus, int] = {}
    """When each status began."""
    errors: tuple[BatchProblem, ...] = ()
    total: int = 0
    """The lines of the input file; 0 until they are counted."""
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    """The tokens charged."""
    next_line: int = 1
    """The number of the first line that is not answered yet, from 1."""
    next_byte: int = 0
    """Where in the input file that line begins."""
    worker: str = ""
    """The process that works on it; empty if none does."""
    lease_ms: int = 0
    """Until when no other process may take it over, in ms since the epoch."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing changes any more."""
        return self.status not in UNFINISHED
