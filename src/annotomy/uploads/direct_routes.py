"""/api/v1/uploads/direct and the parts of an upload: the same for an object store and for this server (`direct.py`)."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.services import Services
from annotomy.uploads import direct, errors
from annotomy.uploads.chunk_routes import announced_bytes, body_of
from annotomy.uploads.direct import Part, PartAddress, WantedPart
from annotomy.uploads.pictures import GeometryForm

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class NewDirectUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same words as `Upload-Metadata` has; one of the two hashes, of the whole file, in lower-case hex."""

    length: Annotated[int, msgspec.Meta(ge=1, le=1 << 60)]
    sha256: Hash | None = None
    blake3: Hash | None = None
    filename: str = ""
    relative_path: str = ""
    project_id: UUID | None = None
    manifest_id: UUID | None = None
    geometry: GeometryForm | None = None
    part_bytes: int | None = None
    """None: what the server finds good."""


class DirectUpload(msgspec.Struct, frozen=True):
    id: UUID
    state: str
    length: int
    part_bytes: int
    part_count: int
    sent_to: str
    """`s3`: parts go to the object store; `server`: to this server."""
    parts: list[Part]
    """What has arrived; empty when the upload is complete."""


class WantedParts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: list[WantedPart]


class PartAddresses(msgspec.Struct, frozen=True):
    parts: list[PartAddress]
    expires_in: int
    """Seconds."""


class Completion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: list[Part] | None = None
    """The client's own list: refused when something else has arrived. None: only sizes are compared."""


class Completed(msgspec.Struct, frozen=True):
    id: UUID
    state: str


_PROBLEMS = [errors.NotDirect, errors.UploadGone, errors.ObjectStoreUnavailable]


@post(
    "/uploads/direct",
    operation_id="BeginDirectUpload",
    opt={"permission": "study.store", "problems": [errors.DiskFull, errors.ObjectStoreUnavailable]},
)
async def begin(
    data: JSONBody[NewDirectUpload], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[DirectUpload]:
    """Begin an upload whose parts are sent by signed addresses."""
    upload_id = await direct.begin(
        services,
        actor,
        length=data.length,
        sha256=data.sha256,
        blake3_hex=data.blake3,
        filename=data.filename,
        relative_path=data.relative_path,
        project_id=data.project_id,
        manifest_id=data.manifest_id,
        geometry=data.geometry,
        part_bytes=data.part_bytes,
    )
    upload, parts = await direct.parts_of(services, actor, upload_id)
    return Response(_shown(upload, parts), headers={"Location": f"/api/v1/uploads/{upload_id}"})


@get(
    "/uploads/{upload_id:uuid}/parts", operation_id="ListUploadParts", opt={"permission": "own", "problems": _PROBLEMS}
)
async def list_parts(
    upload_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> DirectUpload:
    """What has arrived: where to go on after a cut."""
    return _shown(*await direct.parts_of(services, actor, upload_id))


@post(
    "/uploads/{upload_id:uuid}/parts",
    status_code=200,
    operation_id="AddressUploadParts",
    opt={"permission": "study.store", "problems": _PROBLEMS},
)
async def address_parts(
    upload_id: FromPath[UUID],
    data: JSONBody[WantedParts],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> PartAddresses:
    """Signed addresses for parts, with the exact headers to send."""
    parts, expires_in = await direct.addresses(services, actor, upload_id, data.parts)
    return PartAddresses(parts, expires_in)


@post(
    "/uploads/{upload_id:uuid}/complete",
    status_code=202,
    operation_id="CompleteDirectUpload",
    opt={"permission": "study.store", "problems": [*_PROBLEMS, errors.UploadIncomplete, errors.UploadBusy]},
)
async def complete(
    upload_id: FromPath[UUID],
    data: JSONBody[Completion],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Completed:
    """All parts are there: verify the whole and take it in. `GET /uploads/{id}` tells what becomes of it."""
    await direct.complete(services, actor, upload_id, data.parts)
    async with services.db.read(actor) as tx:
        state = await tx.fetchval("select state from uploads where id = $1", upload_id)
    return Completed(upload_id, state)


@put(
    "/uploads/{upload_id:uuid}/parts/{number:int}",
    status_code=200,
    operation_id="PutUploadPart",
    opt={
        "permission": "anyone",
        "takes": ["application/octet-stream"],
        "problems": [
            errors.UploadGone, errors.UploadBusy, errors.ChecksumMismatch, errors.ConnectionBroken, errors.DiskFull,
        ],
    },
    security=[{}],
    request_max_body_size=None,
)  # fmt: skip
async def put_part(
    request: Request[Any, Any, Any],
    upload_id: FromPath[UUID],
    number: FromPath[int],
    services: NamedDependency[Services],
    expires: Annotated[int, QueryParameter(ge=0, le=1 << 40)],
    signature: Annotated[str, QueryParameter(max_length=64)],
    content_md5: Annotated[str | None, QueryParameter(max_length=32)] = None,
) -> Response[None]:
    """Send one part, where parts come to this server. The address is the credential."""
    etag = await direct.receive_part(
        services,
        upload_id,
        number,
        expires=expires,
        signature=signature,
        content_md5=content_md5,
        announced=announced_bytes(request),
        body=body_of(request),
    )
    return Response(None, headers={"ETag": f'"{etag}"'})


def _shown(upload: Any, parts: list[Part]) -> DirectUpload:
    return DirectUpload(
        id=upload["id"],
        state=upload["state"],
        length=upload["length"],
        part_bytes=upload["part_bytes"],
        part_count=-(-upload["length"] // upload["part_bytes"]),
        sent_to=upload["direct"],
        parts=parts,
    )


router = Router(path="/", tags=["uploads"], route_handlers=[begin, list_parts, address_parts, complete, put_part])
