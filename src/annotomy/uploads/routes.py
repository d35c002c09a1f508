"""/api/v1/uploads: tus 1.0 (core, creation, creation-with-upload, checksum, expiration, termination) and its JSON view."""

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import HttpMethod, Request, Response, Router, delete, get, patch, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from annotomy.actor import Actor
from annotomy.errors import BadRequest, Unsupported
from annotomy.http.pages import Page
from annotomy.services import Services
from annotomy.uploads import receive
from annotomy.uploads.errors import TusVersion

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
CHUNK_TYPE = "application/offset+octet-stream"
MAX_METADATA_BYTES = 16 << 10


class UploadFile(msgspec.Struct, frozen=True):
    path: str
    state: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    problem: dict[str, Any] | None


class Upload(msgspec.Struct, frozen=True):
    id: UUID
    state: str
    filename: str
    project_id: UUID
    offset: int
    length: int
    files: list[UploadFile]
    study_instance_uids: list[str]
    problem: dict[str, Any] | None
    job_id: UUID | None
    created_at: datetime


@route("/", http_method=[HttpMethod.OPTIONS], status_code=204, operation_id="UploadAbilities")
async def abilities(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Response[None]:
    """What the upload protocol can do here."""
    del actor
    headers = {
        "Tus-Resumable": VERSION,
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(services.settings.limits.upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(receive.CHECKSUMS),
    }
    return Response(None, status_code=204, headers=headers)


@post("/", status_code=201, operation_id="CreateUpload", request_max_body_size=None)
async def create(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[None]:
    """Create an upload, with its first bytes when the body holds some."""
    _require_version(request)
    metadata = _metadata(request.headers.get("upload-metadata", ""))
    length = _whole(request, "upload-length")
    upload_id = await receive.create_upload(
        services,
        actor,
        length=length,
        filename=metadata.get("filename", ""),
        relative_path=metadata.get("relative_path", ""),
        project_id=_project(metadata.get("project_id")),
        sha256=metadata.get("sha256"),
    )
    offset = 0
    if request.headers.get("content-type") == CHUNK_TYPE and length > 0:
        offset = await receive.receive_chunk(
            services,
            actor,
            upload_id,
            offset=0,
            body=_body(request),
            checksum=request.headers.get("upload-checksum"),
            announced_bytes=_announced(request),
        )
    headers = {"Location": f"/api/v1/uploads/{upload_id}", "Tus-Resumable": VERSION, "Upload-Offset": str(offset)}
    return Response(None, status_code=201, headers=headers)


@route("/{upload_id:uuid}", http_method=[HttpMethod.HEAD], status_code=200, operation_id="GetUploadOffset")
async def head(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[None]:
    """Where to go on from."""
    async with services.db.read(actor) as tx:
        upload = await receive.get_upload(tx, upload_id)
    headers = {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload["received"]),
        "Upload-Length": str(upload["length"]),
        "Upload-Expires": format_datetime(upload["expires_at"], usegmt=True),
        "Cache-Control": "no-store",
    }
    return Response(None, headers=headers)


@patch("/{upload_id:uuid}", status_code=204, operation_id="AppendToUpload", request_max_body_size=None)
async def append(
    request: Request[Any, Any, Any],
    upload_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Send a chunk."""
    _require_version(request)
    if request.headers.get("content-type") != CHUNK_TYPE:
        raise Unsupported(f"A chunk has the Content-Type {CHUNK_TYPE}.")
    offset = await receive.receive_chunk(
        services,
        actor,
        upload_id,
        offset=_whole(request, "upload-offset"),
        body=_body(request),
        checksum=request.headers.get("upload-checksum"),
        announced_bytes=_announced(request),
    )
    return Response(None, status_code=204, headers={"Tus-Resumable": VERSION, "Upload-Offset": str(offset)})


@delete("/{upload_id:uuid}", status_code=204, operation_id="TerminateUpload")
async def terminate(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[None]:
    """Give an upload up."""
    await receive.terminate_upload(services, actor, upload_id)
    return Response(None, status_code=204, headers={"Tus-Resumable": VERSION})


@get("/{upload_id:uuid}", operation_id="GetUpload")
async def get_upload(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Upload:
    """An upload with the outcome of each of its files."""
    async with services.db.read(actor) as tx:
        await receive.get_upload(tx, upload_id)
        row = await tx.fetchrow(f"{_SELECT} where id = $1", upload_id)
        files = await tx.fetch(
            "select path, state, study_instance_uid, series_instance_uid, sop_instance_uid, problem from upload_files"
            " where upload_id = $1 order by ordinal",
            upload_id,
        )
    assert row is not None
    return Upload(**dict(row), files=[UploadFile(**dict(file)) for file in files])


@get("/", operation_id="ListUploads")
async def list_uploads(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Upload]:
    """One's newest uploads, without their files."""
    async with services.db.read(actor) as tx:
        rows = await tx.fetch(
            f"{_SELECT} where owner_id = $1 order by created_at desc, id desc limit 200", actor.user_id
        )
    return Page(items=[Upload(**dict(row), files=[]) for row in rows], next=None, total=None)


_SELECT = (
    'select id, state, filename, project_id, received as "offset", length, study_instance_uids, problem, job_id, created_at'
    " from uploads"
)


async def _body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece


def _require_version(request: Request[Any, Any, Any]) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise TusVersion(f"Send Tus-Resumable: {VERSION}.")


def _whole(request: Request[Any, Any, Any], header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"The header {header} takes a whole number of bytes.")
    return int(text)


def _announced(request: Request[Any, Any, Any]) -> int | None:
    """Content-Length; None of a body that comes in chunks, whose bytes are counted as they come."""
    return _whole(request, "content-length") if "content-length" in request.headers else None


def _metadata(header: str) -> dict[str, str]:
    """`key base64, key base64, ...`"""
    if len(header) > MAX_METADATA_BYTES:
        raise BadRequest("Upload-Metadata is too long.")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode().replace("\0", "")
        except (binascii.Error, UnicodeDecodeError):
            raise BadRequest(f"Upload-Metadata: the value of {key[:40]} is no base64 of UTF-8 text.") from None
    return found


def _project(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise BadRequest("Upload-Metadata: project_id is no UUID.") from None


router = Router(
    path="/uploads",
    tags=["uploads"],
    route_handlers=[abilities, create, head, append, terminate, get_upload, list_uploads],
)
