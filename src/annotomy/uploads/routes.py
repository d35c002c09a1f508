"""/api/v1/uploads: tus 1.0 with its extensions, and the JSON view of an upload.

A request that speaks the IETF draft (it sends `Upload-Complete`) goes to `draft_routes.py`: both move the same offset.
"""

import base64
import binascii
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import HttpMethod, Request, Response, Router, delete, get, patch, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest, NotFound, Unsupported
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page, decode_cursor, encode_cursor
from annotomy.projects.access import Permission, key_reaches, require_global
from annotomy.services import Services
from annotomy.uploads import draft_routes as draft
from annotomy.uploads import errors, receive
from annotomy.uploads.checksum import CHECKSUMS
from annotomy.uploads.chunk_routes import announced_bytes, body_of, upload_limit, whole_header
from annotomy.uploads.draft_routes import is_draft
from annotomy.uploads.errors import TusVersion
from annotomy.uploads.pictures import GeometryForm, form_of
from annotomy.uploads.progress import COLUMNS

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-defer-length,creation-with-upload,checksum,expiration,termination,concatenation"
CHUNK_TYPE = "application/offset+octet-stream"
MAX_METADATA_BYTES = 16 << 10
_RECEIVES = {
    "permission": "study.store",
    "takes": [CHUNK_TYPE, draft.PARTIAL_TYPE],
    "problems": [
        NotFound, Unsupported, errors.OffsetMismatch, errors.UploadIncomplete, errors.UploadBusy, errors.UploadHandedOver,
        errors.ChecksumMismatch, errors.ContentMismatch, errors.NotInManifest, errors.TusVersion, errors.UploadGone,
        errors.TooSlow, errors.DiskFull,
    ],
}  # fmt: skip


State = Literal["receiving", "verifying", "ingesting", "stored", "failed"]


class UploadFile(msgspec.Struct, frozen=True):
    path: str
    state: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    problem: dict[str, Any] | None
    """Of a stored SEG or SR: why it became no segmentation or annotation."""
    made: dict[str, Any] | None
    """What a SEG or SR became: `segmentation_id`, or numbers of annotations that were `created`, `known` and `refused`."""


class Upload(msgspec.Struct, frozen=True):
    id: UUID
    state: str
    filename: str
    relative_path: str
    project_id: UUID
    manifest_id: UUID | None
    sha256: str | None
    blake3: str | None
    """What the whole was announced to hash to: by these a client that starts again finds its own uploads."""
    direct: str | None
    """Of a direct upload, where its parts go: `s3` or `server`."""
    offset: int
    length: int | None
    """Null until the client tells it."""
    bytes_per_second: float | None
    """While it was received, measured over the last seconds; null of short ones."""
    files_done: int
    """Files found in it that went to the archive so far."""
    files: list[UploadFile]
    study_instance_uids: list[str]
    problem: dict[str, Any] | None
    job_id: UUID | None
    created_at: datetime


@route(
    "/", http_method=[HttpMethod.OPTIONS], status_code=204, operation_id="UploadAbilities", opt={"permission": "own"}
)
async def abilities(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Response[None]:
    """What the upload protocols can do here."""
    del actor
    headers = {
        "Tus-Resumable": VERSION,
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(services.settings.limits.upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        "Upload-Limit": upload_limit(services),
    }
    return Response(None, status_code=204, headers=headers)


@post("/", status_code=201, operation_id="CreateUpload", opt=_RECEIVES, request_max_body_size=None)
async def create(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[None]:
    """Create an upload, with its first bytes when the body holds some; or one made of parts that are complete."""
    if is_draft(request):
        return await draft.create(request, actor, services)
    _require_version(request)
    told = _Metadata.of(request.headers.get("upload-metadata", ""))
    concat = request.headers.get("upload-concat", "")
    offset = 0
    if concat.startswith("final"):
        upload_id = await receive.concatenate(services, actor, _parts(concat), **msgspec.structs.asdict(told))
        headers = {"Upload-Concat": concat}
    else:
        if concat not in ("", "partial"):
            raise BadRequest("Upload-Concat is either partial or final;PATHS.")
        length = _deferred_length(request)
        upload_id = await receive.create_upload(
            services, actor, length=length, partial=bool(concat), **msgspec.structs.asdict(told)
        )
        if request.headers.get("content-type") == CHUNK_TYPE and length != 0:
            checksum = request.headers.get("upload-checksum")
            offset = await receive.receive_chunk(
                services,
                actor,
                upload_id,
                offset=0,
                body=body_of(request),
                checksum=checksum,
                announced=announced_bytes(request),
            )
        headers = {"Upload-Offset": str(offset), "Upload-Limit": upload_limit(services)}
    headers |= {"Location": f"/api/v1/uploads/{upload_id}", "Tus-Resumable": VERSION}
    return Response(None, status_code=201, headers=headers)


@route(
    "/{upload_id:uuid}",
    http_method=[HttpMethod.HEAD],
    status_code=200,
    operation_id="GetUploadOffset",
    opt={"permission": "own", "gives": {200: (), 204: ()}, "problems": [errors.UploadGone]},
)
async def head(
    request: Request[Any, Any, Any],
    upload_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Where to go on from."""
    async with services.db.read(actor) as tx:
        upload = await receive.get_upload(tx, upload_id)
    complete = upload["received"] == upload["length"]
    headers = {
        "Upload-Offset": str(upload["received"]),
        "Upload-Expires": format_datetime(upload["expires_at"], usegmt=True),
        "Upload-Limit": upload_limit(services),
        "Cache-Control": "no-store",
    }
    if upload["length"] is not None:
        headers["Upload-Length"] = str(upload["length"])
    if request.headers.get("tus-resumable") is None:
        headers |= draft.state_headers(complete=complete)
        return Response(None, status_code=204, headers=headers)
    headers["Tus-Resumable"] = VERSION
    if upload["length"] is None:
        headers["Upload-Defer-Length"] = "1"
    if upload["concat"] == "partial":
        headers["Upload-Concat"] = "partial"
    if upload["concat"] == "final":
        headers["Upload-Concat"] = "final;" + " ".join(f"/api/v1/uploads/{part}" for part in upload["parts"])
    return Response(None, headers=headers)


@patch(
    "/{upload_id:uuid}",
    status_code=204,
    operation_id="AppendToUpload",
    opt=_RECEIVES,
    request_max_body_size=None,
)
async def append(
    request: Request[Any, Any, Any],
    upload_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Send a chunk."""
    if is_draft(request):
        return await draft.append(request, upload_id, actor, services)
    _require_version(request)
    if request.headers.get("content-type") != CHUNK_TYPE:
        raise Unsupported(f"A chunk has the Content-Type {CHUNK_TYPE}.")
    offset = await receive.receive_chunk(
        services,
        actor,
        upload_id,
        offset=whole_header(request, "upload-offset"),
        body=body_of(request),
        checksum=request.headers.get("upload-checksum"),
        length=whole_header(request, "upload-length") if "upload-length" in request.headers else None,
        announced=announced_bytes(request),
    )
    headers = {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(offset),
        "Upload-Expires": format_datetime(services.clock.now() + receive.LIFETIME, usegmt=True),
    }
    return Response(None, status_code=204, headers=headers)


@delete(
    "/{upload_id:uuid}",
    status_code=204,
    operation_id="TerminateUpload",
    opt={"permission": "study.store", "problems": [errors.UploadBusy, errors.UploadGone]},
)
async def terminate(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[None]:
    """Give an upload up."""
    await receive.terminate_upload(services, actor, upload_id)
    return Response(None, status_code=204, headers={"Tus-Resumable": VERSION})


@get("/{upload_id:uuid}", operation_id="GetUpload", opt={"permission": "own", "problems": [errors.UploadGone]})
async def get_upload(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Upload:
    """An upload with the outcome of each of its files. Administrators see anybody's numbers and states, and no names."""
    async with services.db.read(actor) as tx:
        if await _is_anothers(tx, actor, upload_id):
            await require_global(tx, actor, Permission.SYSTEM_MANAGE)
            row = await tx.fetchrow(f"{_SELECT} where id = $1", upload_id)
            assert row is not None
            shown = Upload(**dict(row), files=[])
            return msgspec.structs.replace(
                shown, filename="", relative_path="", sha256=None, blake3=None, study_instance_uids=[], problem=None
            )
        await receive.get_upload(tx, upload_id)
        row = await tx.fetchrow(f"{_SELECT} where id = $1", upload_id)
        files = await tx.fetch(
            "select path, state, study_instance_uid, series_instance_uid, sop_instance_uid, problem, made from upload_files"
            " where upload_id = $1 order by ordinal",
            upload_id,
        )
    assert row is not None
    return Upload(**dict(row), files=[UploadFile(**dict(file)) for file in files])


@get("/", operation_id="ListUploads", opt={"permission": "own"})
async def list_uploads(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, QueryParameter()] = None,
    upload_state: Annotated[State | None, QueryParameter(name="state")] = None,
    manifest_id: Annotated[UUID | None, QueryParameter()] = None,
) -> Page[Upload]:
    """One's uploads, newest first, without their files; of one state, or for one manifest."""
    after = decode_cursor(cursor, (datetime, UUID)) if cursor else (None, None)
    async with services.db.read(actor) as tx:
        mine = (
            f"owner_id = $1 and {key_reaches('project_id')} and ($2::text is null or state = $2)"
            " and ($3::uuid is null or manifest_id = $3)"
        )
        asked = (actor.user_id, upload_state, manifest_id)
        rows = await tx.fetch(
            f"{_SELECT} where {mine} and ($4::timestamptz is null or (created_at, id) < ($4, $5::uuid))"
            " order by created_at desc, id desc limit $6",
            *asked, *after, limit + 1,
        )  # fmt: skip
        total = await tx.fetchval(f"select count(*) from uploads where {mine}", *asked)
    items = [Upload(**dict(row), files=[]) for row in rows[:limit]]
    following = encode_cursor(items[-1].created_at, items[-1].id) if len(rows) > limit else None
    return Page(items=items, next=following, total=total)


_SELECT = f"select id, filename, relative_path, project_id, manifest_id, sha256, blake3, direct, {COLUMNS}, study_instance_uids, problem, job_id, created_at from uploads"


async def _is_anothers(tx: ReadTx, actor: Actor, upload_id: UUID) -> bool:
    """To others than administrators an upload of another is none: `get_upload` says so."""
    if not actor.is_admin:
        return False
    owner_id = await tx.fetchval("select owner_id from uploads where id = $1", upload_id)
    return owner_id not in (None, actor.user_id)


def _require_version(request: Request[Any, Any, Any]) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise TusVersion(f"Send Tus-Resumable: {VERSION}.")


def _deferred_length(request: Request[Any, Any, Any]) -> int | None:
    """None when the length is told later (creation-defer-length)."""
    deferred = request.headers.get("upload-defer-length")
    if deferred is None:
        return whole_header(request, "upload-length")
    if deferred != "1" or "upload-length" in request.headers:
        raise BadRequest("Send either Upload-Length or Upload-Defer-Length: 1.")
    return None


def _parts(concat: str) -> list[UUID]:
    """The uploads that `final;PATH PATH` names, by path or by full address."""
    try:
        return [UUID(path.rstrip("/").rpartition("/")[2]) for path in concat.partition(";")[2].split()]
    except ValueError:
        raise BadRequest("Upload-Concat: final; is followed by the addresses of uploads.") from None


class _Metadata(msgspec.Struct, frozen=True):
    """What `Upload-Metadata: key base64, key base64` may tell of an upload."""

    filename: str = ""
    relative_path: str = ""
    project_id: UUID | None = None
    manifest_id: UUID | None = None
    sha256: str | None = None
    geometry: GeometryForm | None = None

    @classmethod
    def of(cls, header: str) -> "_Metadata":
        if len(header) > MAX_METADATA_BYTES:
            raise BadRequest("Upload-Metadata is too long.")
        found: dict[str, str] = {}
        for pair in filter(None, (part.strip() for part in header.split(","))):
            key, _, value = pair.partition(" ")
            try:
                found[key] = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise BadRequest(f"Upload-Metadata: the value of {key[:40]} is no base64 of UTF-8 text.") from None
        try:
            values: dict[str, Any] = {key: value for key, value in found.items() if value}
            if "geometry" in values:
                values["geometry"] = msgspec.to_builtins(form_of(values["geometry"]))
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise BadRequest(f"Upload-Metadata: {error}.") from None


router = Router(
    path="/uploads",
    tags=["uploads"],
    route_handlers=[abilities, create, head, append, terminate, get_upload, list_uploads],
)
