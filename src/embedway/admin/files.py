"""Serves files in the shapes of OpenAI's API, for batches."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from embedway.admin.paging import (
    DeletionReceipt,
    ListEntry,
    ListPage,
    PageAfter,
    list_page,
)
from embedway.auth import rights
from embedway.core.errors import EmbedwayError, InvalidRequest, quote_text
from embedway.core.keys import Caller
from embedway.files.file import Purpose, StoredFile
from embedway.files.store import FileStore, Order, quota_error
from embedway.wire.upload import FORM_BYTES, UploadForm

PATH = "/v1/files"
MAX_FILE_BYTES = 200 * 2**20
"""The largest file, as at OpenAI for batches."""
MAX_UPLOAD_BYTES = MAX_FILE_BYTES + FORM_BYTES
CONTENT = "application/octet-stream"
"""The media type of downloads."""
MAX_PAGE = 10_000
EXPIRES_S = range(3600, 2_592_001)
"""After how many seconds files may expire, as at OpenAI: an hour to 30 days."""

_log = structlog.get_logger("embedway.files")


class FileCard(ListEntry, title="File"):
    """A file."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    """When it is deleted, in Unix seconds; null if only on demand."""
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    """Files can be used as soon as they are there."""
    status_details: None = None


def to_card(file: StoredFile) -> FileCard:
    """Return a file as clients see it."""
    return FileCard(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_ms // 1000,
        expires_at=None if file.expires_ms is None else file.expires_ms // 1000,
        filename=file.name,
        purpose=file.purpose,
    )


def project_of(caller: Caller) -> str:
    """Return the project whose files and batches a caller may use.

    Raises:
        Forbidden: The caller may not embed.
    """
    rights.require_scope(caller, "embeddings")
    return caller.project.id if caller.project else ""


def router(files: FileStore, *, caller: Caller, max_project_bytes: int) -> APIRouter:
    """Build the routes. `caller` is the dependency that returns the caller."""
    routes = APIRouter(prefix=PATH, tags=["files"])

    def own_project(caller: Caller = caller) -> str:
        return project_of(caller)

    own: str = Depends(own_project)

    @routes.post("", openapi_extra={"requestBody": _UPLOAD})
    async def create_file(request: Request, project_id: str = own) -> FileCard:
        """Upload a file for a batch, as `multipart/form-data`: JSON lines of up to 200 MB."""
        form = UploadForm(request.headers.get("content-type", "").encode("latin-1"))
        stored = await files.project_bytes(project_id)
        if stored >= max_project_bytes:
            raise quota_error(stored, 1, max_project_bytes)
        upload = await files.begin_upload(project_id, purpose="batch")
        try:
            content = _file_content(request.stream(), form)
            segments = await files.write_segments(upload.id, content)
            form.check_complete()
            expires_s = _read_fields(form)
            file = await files.finish_upload(
                upload,
                segments,
                name=form.file_name or "",
                expires_s=expires_s,
                max_project_bytes=max_project_bytes,
            )
        except BaseException as error:
            with suppress(EmbedwayError):
                await files.delete(upload)
            if isinstance(error, ClientDisconnect):
                raise InvalidRequest("The upload broke off. Send it whole.") from None
            raise
        return to_card(file)

    @routes.get("")
    async def list_files(
        *,
        project_id: str = own,
        purpose: Annotated[str | None, Query(pattern=r"^[^\x00]{1,64}$")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        after: PageAfter = None,
        order: Order = "desc",
    ) -> ListPage[FileCard]:
        """List the project's files, newest first."""
        page = await files.list_files(
            project_id, purpose=purpose, after=after, limit=limit, order=order
        )
        return list_page(page, to_card)

    @routes.get("/{file_id}")
    async def retrieve_file(file_id: str, project_id: str = own) -> FileCard:
        """Return what is known of a file."""
        return to_card(await files.get(project_id, file_id))

    @routes.get(
        "/{file_id}/content",
        response_class=StreamingResponse,
        responses={200: {"content": {CONTENT: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def download_file(file_id: str, project_id: str = own) -> StreamingResponse:
        """Return the content of a file."""
        file = await files.get(project_id, file_id)
        return StreamingResponse(
            files.read(file.id),
            media_type=CONTENT,
            headers={"content-length": str(file.bytes)},
        )

    @routes.delete("/{file_id}")
    async def delete_file(file_id: str, project_id: str = own) -> DeletionReceipt:
        """Delete a file."""
        await files.delete(await files.get(project_id, file_id))
        return DeletionReceipt(id=file_id, object="file")

    return routes


async def _file_content(body: AsyncIterator[bytes], form: UploadForm) -> AsyncGenerator[bytes]:
    size = 0
    async for piece in body:
        if found := form.feed(piece):
            size += len(found)
            if size > MAX_FILE_BYTES:
                raise InvalidRequest(
                    f"The file is larger than {MAX_FILE_BYTES} bytes. Split it.", param="file"
                )
            yield found


def _read_fields(form: UploadForm) -> int | None:
    """Check the fields of an upload, and return after how many seconds it expires, or None."""
    fields = dict(form.fields)
    purpose = fields.pop("purpose", None)
    if purpose != "batch":
        problem = "is missing" if purpose is None else f"is {quote_text(purpose)}"
        raise InvalidRequest(f"'purpose' {problem}. Send 'batch'.", param="purpose")
    anchor = fields.pop("expires_after[anchor]", "created_at")
    seconds = fields.pop("expires_after[seconds]", None)
    if fields:
        name = next(iter(fields))
        raise InvalidRequest(f"{quote_text(name)} is not known here. Leave it out.", param=name)
    if anchor != "created_at":
        raise InvalidRequest(
            f"'expires_after[anchor]' is {quote_text(anchor)}. Send 'created_at'.",
            param="expires_after[anchor]",
        )
    if seconds is None:
        return None
    if not seconds.isascii() or not seconds.isdigit() or int(seconds[:9]) not in EXPIRES_S:
        raise InvalidRequest(
            f"'expires_after[seconds]' is {quote_text(seconds)}. Send a number from "
            f"{EXPIRES_S[0]} to {EXPIRES_S[-1]}.",
            param="expires_after[seconds]",
        )
    return int(seconds)


_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "title": "FileUpload",
                "type": "object",
                "required": ["file", "purpose"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "JSON lines, one for each request of the batch.",
                    },
                    "purpose": {"type": "string", "const": "batch"},
                    "expires_after[anchor]": {"type": "string", "const": "created_at"},
                    "expires_after[seconds]": {
                        "type": "integer",
                        "minimum": EXPIRES_S[0],
                        "maximum": EXPIRES_S[-1],
                    },
                },
            }
        }
    },
}
