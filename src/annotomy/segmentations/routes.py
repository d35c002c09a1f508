"""/api/v1/segmentations"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, MultipartBody, QueryParameter
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.archive.volume import VolumeProblem
from annotomy.dicom.geometry import voxel_volume_mm3
from annotomy.errors import BadRequest
from annotomy.http.etags import etag, expected_version
from annotomy.http.openapi import per_level
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page
from annotomy.http.reasons import reason_of
from annotomy.identity.credentials import require_fresh
from annotomy.segmentations import body, edit, export, importing, query
from annotomy.segmentations.bricks import BRICK_SLICES
from annotomy.segmentations.errors import MaskMismatch, SegmentsInvalid
from annotomy.segmentations.importing import MAX_IMPORT_BYTES, UnreadableMasks
from annotomy.segmentations.schemas import (
    ArchivedSegmentation,
    ChangedSegmentation,
    Form,
    ImportMetadata,
    RestoredVersion,
    Segment,
    Segmentation,
    State,
    StatisticsAnswer,
    Version,
)
from annotomy.services import Services

VersionParameter = Annotated[int | None, QueryParameter(ge=1, description="A version; the present one if not given")]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="The ETag of the version that was read")]
MAX_MASK_BYTES = 512 << 20
"""One save: 50 whole masks of 300 slices of 512 x 512. Larger edits send the bricks that changed."""
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}
PRESENT = {"Cache-Control": "private, no-cache"}
MEDIA_TYPES_OF_FORMS = sorted({media_type for _, media_type, _ in export.FORMS.values()})


@get("/", operation_id="ListSegmentations", opt={"permission": "segmentation.read"})
async def list_segmentations(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    study_instance_uid: Annotated[str | None, QueryParameter(max_length=64)] = None,
    series_instance_uid: Annotated[str | None, QueryParameter(max_length=64)] = None,
    project_id: Annotated[UUID | None, QueryParameter()] = None,
    segmentation_state: Annotated[State | None, QueryParameter(name="state")] = None,
    deleted: Annotated[bool, QueryParameter(description="The deleted ones, instead of those that stand")] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, QueryParameter()] = None,
) -> Page[Segmentation]:
    """The segmentations that one may see, the newest first."""
    wanted = query.Filter(study_instance_uid, series_instance_uid, project_id, segmentation_state, deleted)
    async with services.db.read(actor) as tx:
        rows, following, total = await query.list_segmentations(tx, wanted, limit=limit, cursor=cursor)
    return Page(items=[_segmentation(row) for row in rows], next=following, total=total)


@get("/{segmentation_id:uuid}", operation_id="GetSegmentation", opt={"permission": "segmentation.read"})
async def get_segmentation(
    segmentation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[Segmentation]:
    return await _answer(services, actor, segmentation_id)


@get("/{segmentation_id:uuid}/segments", operation_id="ListSegments", opt={"permission": "segmentation.read"})
async def list_segments(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    version: VersionParameter = None,
) -> Page[Segment]:
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
    items = _segmentation(row).segments
    return Page(items=items, next=None, total=len(items))


@get(
    "/{segmentation_id:uuid}/versions", operation_id="ListSegmentationVersions", opt={"permission": "segmentation.read"}
)
async def list_versions(
    segmentation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[Version]:
    """Who saved what and why, the newest first."""
    async with services.db.read(actor) as tx:
        rows = await query.list_versions(tx, segmentation_id)
    return Page(items=[msgspec.convert(row, Version) for row in rows], next=None, total=len(rows))


@get(
    "/{segmentation_id:uuid}/statistics",
    operation_id="GetSegmentationStatistics",
    opt={"permission": "segmentation.read"},
)
async def get_statistics(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    version: VersionParameter = None,
) -> StatisticsAnswer:
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
    segments = {segment.segment_number: segment.statistics for segment in _segmentation(row).segments}
    return StatisticsAnswer(row["version"], voxel_volume_mm3(query.affine_of(row)), segments)


@get(
    ["/{segmentation_id:uuid}/masks", "/{segmentation_id:uuid}/versions/{version:int}/masks"],
    operation_id=per_level("GetMasks"),
    media_type=body.MEDIA_TYPE,
    opt={
        "permission": "segmentation.read",
        "exclude_from_compression": True,  # compressed here, off the event loop
    },
)
async def get_masks(
    request: Request[Any, Any, Any],
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    version: FromPath[int | None] = None,
    segment_number: Annotated[list[int] | None, QueryParameter(description="These segments alone")] = None,
    first_slice: Annotated[int | None, QueryParameter(ge=0, description="A part: from this slice on (k)")] = None,
    last_slice: Annotated[int | None, QueryParameter(ge=0, description="The part's last slice; else the first")] = None,
) -> Stream:
    """Masks of a version as packed bits behind a JSON header that names their ranges: all, or segments and slices."""
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
        wanted = row["segments"] if segment_number is None else query.segments_named(row, segment_number)
        numbers = [segment["segment_number"] for segment in wanted]
        last = first_slice if last_slice is None else last_slice
        if first_slice is None or last is None:
            masks = await query.read_masks(tx, row, segment_number)
        else:
            if not first_slice <= last < row["shape_kji"][0]:
                raise BadRequest("The segmentation does not have these slices.")
            bricks = (first_slice // BRICK_SLICES, last // BRICK_SLICES)
            masks = await query.read_masks(tx, row, segment_number, bricks_from_to=bricks)
    pieces = (
        body.encode(masks, numbers, row["affine_lps"], row["version"])
        if first_slice is None or last is None
        else body.encode_slices(masks, numbers, row["affine_lps"], row["version"], first_slice, last)
    )
    headers = {"ETag": etag(row["version"]), "Vary": "Accept-Encoding", **(PRESENT if version is None else UNCHANGING)}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        pieces = _gzipped(pieces)
    return Stream(_off_loop(pieces), media_type=body.MEDIA_TYPE, headers=headers)


@get(
    "/{segmentation_id:uuid}/export",
    operation_id="ExportSegmentation",
    opt={
        "problems": [MaskMismatch],
        "permission": "segmentation.read",
        "audit": "segmentation.exported",
        "audit_first": True,
        "exclude_from_compression": True,
        "gives": MEDIA_TYPES_OF_FORMS,
    },
)
async def export_segmentation(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    form: Annotated[Form, QueryParameter(name="format")] = "seg",
    version: VersionParameter = None,
    segment_number: Annotated[int | None, QueryParameter(ge=1, description="One segment alone")] = None,
) -> Stream:
    """The masks as a file of another program. Segments that overlap are kept: as layers where the form has one value for
    each voxel."""
    await require_fresh(services, actor)
    made = await export.export_segmentation(
        services, actor, segmentation_id, form, version=version, segment_number=segment_number
    )
    headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"', **PRESENT}
    return Stream(made.body, media_type=made.media_type, headers=headers)


class ImportForm(msgspec.Struct):
    metadata: Any
    """JSON: `{"project_id", "study_instance_uid", "series_instance_uid", "label"?, "segments"?}`."""
    file: UploadFile
    """DICOM SEG or RTSTRUCT, NIfTI, NRRD, or a ZIP of PNG slices."""


@post(
    "/",
    operation_id="ImportSegmentation",
    opt={
        "problems": [UnreadableMasks, MaskMismatch, SegmentsInvalid, VolumeProblem],
        "permission": "segmentation.write",
    },
    request_max_body_size=MAX_IMPORT_BYTES,
)
async def import_segmentation(
    data: MultipartBody[ImportForm], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[Segmentation]:
    """Masks made elsewhere become a segmentation of a series. Nothing is resampled: what does not fit is refused."""
    told = data.metadata
    raw = await told.read() if isinstance(told, UploadFile) else str(told).encode()
    try:
        metadata = msgspec.json.decode(raw, type=ImportMetadata)
    except msgspec.MsgspecError as error:
        raise BadRequest("The part `metadata` is no JSON of the form that an import takes.") from error
    wanted = importing.Wanted(
        metadata.project_id,
        metadata.study_instance_uid,
        metadata.series_instance_uid,
        metadata.label,
        metadata.segments,
    )
    made = await importing.import_segmentation(services, actor, wanted, await data.file.read())
    return await _answer(services, actor, made, status_code=201)


@post(
    "/from-archive",
    operation_id="ImportSegmentationFromArchive",
    opt={
        "problems": [UnreadableMasks, MaskMismatch, SegmentsInvalid, VolumeProblem],
        "permission": "segmentation.write",
    },
)
async def import_from_archive(
    data: JSONBody[ArchivedSegmentation], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[Segmentation]:
    """A DICOM SEG or RTSTRUCT that the archive holds becomes a segmentation of the series that it references."""
    made = await importing.import_from_archive(
        services, actor, data.project_id, data.sop_instance_uid, label=data.label
    )
    return await _answer(services, actor, made, status_code=201)


@patch(
    "/{segmentation_id:uuid}",
    operation_id="ChangeSegmentation",
    opt={"problems": [MaskMismatch, SegmentsInvalid], "permission": "segmentation.write"},
)
async def change_segmentation(
    segmentation_id: FromPath[UUID],
    data: JSONBody[ChangedSegmentation],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[Segmentation]:
    """Submit, approve, reject or reopen a segmentation, or name it otherwise: a new version with the same masks."""
    base = expected_version(if_match)
    async with services.db.write(actor) as tx:
        await edit.change_segmentation(
            tx, segmentation_id, base_version=base, state=data.state, label=data.label, why=data.why
        )
    return await _answer(services, actor, segmentation_id)


@post(
    "/{segmentation_id:uuid}/versions",
    operation_id="SaveMasks",
    opt={"takes": [body.MEDIA_TYPE], "problems": [MaskMismatch, SegmentsInvalid], "permission": "segmentation.write"},
    request_max_body_size=MAX_MASK_BYTES,
)
async def save_masks(
    segmentation_id: FromPath[UUID],
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[Segmentation]:
    """Save edited masks as a new version. The body has the form of the masks; its header names what changed:
    whole `segments`, or `bricks` of 16 slices, and in `describe` other names, codes or colours."""
    base = expected_version(if_match)
    async with services.db.read(actor) as tx:  # who may not is told so before the body is read
        await query.get_segmentation(tx, segmentation_id)
    saved = await request.body()
    await edit.save_version(services, actor, segmentation_id, base_version=base, body=saved)
    return await _answer(services, actor, segmentation_id, status_code=201)


@delete(
    "/{segmentation_id:uuid}",
    status_code=204,
    operation_id="DeleteSegmentation",
    opt={"permission": "segmentation.delete"},
)
async def remove(
    segmentation_id: FromPath[UUID],
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[None]:
    """Delete by a version that says so; any version can be restored. A body may say why: `{"why": "..."}`."""
    why = await reason_of(request)
    base = expected_version(if_match)
    async with services.db.write(actor) as tx:
        version = await edit.delete_segmentation(tx, segmentation_id, base_version=base, why=why)
    return Response(None, status_code=204, headers={"ETag": etag(version)})


@post(
    "/{segmentation_id:uuid}/restore",
    operation_id="RestoreSegmentationVersion",
    opt={"problems": [MaskMismatch, SegmentsInvalid], "permission": "segmentation.write"},
    status_code=201,
)
async def restore(
    segmentation_id: FromPath[UUID],
    data: JSONBody[RestoredVersion],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[Segmentation]:
    """Masks and segments of an earlier version as a new one; also of a segmentation that was deleted."""
    base = expected_version(if_match)
    await edit.restore_version(services, actor, segmentation_id, base_version=base, version=data.version, why=data.why)
    return await _answer(services, actor, segmentation_id, status_code=201)


async def _answer(
    services: Services, actor: Actor, segmentation_id: UUID, *, status_code: int = 200
) -> Response[Segmentation]:
    async with services.db.read(actor) as tx:
        row = await query.get_segmentation(tx, segmentation_id)
    headers = {"ETag": etag(row["version"])}
    if status_code == 201:
        headers["Location"] = f"/api/v1/segmentations/{segmentation_id}"
    return Response(_segmentation(row), status_code=status_code, headers=headers)


async def _off_loop(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece made in a thread: the loop only sends."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Masks are mostly empty, so that the fastest level suffices."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _segmentation(row: query.Row) -> Segmentation:
    return msgspec.convert(row, Segmentation)


router = Router(
    path="/segmentations",
    tags=["segmentations"],
    route_handlers=[
        list_segmentations, import_segmentation, import_from_archive, get_segmentation, change_segmentation, list_segments, list_versions,
        save_masks, remove, restore, get_statistics, get_masks, export_segmentation,
    ],
)  # fmt: skip
