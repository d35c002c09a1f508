"""/api/v1/segmentations"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.dicom.geometry import voxel_volume_mm3
from annotomy.http.etags import etag
from annotomy.http.openapi import per_level
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page
from annotomy.segmentations import body, export, query
from annotomy.segmentations.schemas import Form, Segment, Segmentation, State, StatisticsAnswer, Version
from annotomy.services import Services

VersionParameter = Annotated[int | None, QueryParameter(ge=1, description="A version; the present one if not given")]
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}
PRESENT = {"Cache-Control": "private, no-cache"}


@get("/", operation_id="ListSegmentations", opt={"permission": "segmentation.read"})
async def list_segmentations(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    study_instance_uid: Annotated[str | None, QueryParameter(max_length=64)] = None,
    series_instance_uid: Annotated[str | None, QueryParameter(max_length=64)] = None,
    project_id: Annotated[UUID | None, QueryParameter()] = None,
    segmentation_state: Annotated[State | None, QueryParameter(name="state")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, QueryParameter()] = None,
) -> Page[Segmentation]:
    """The segmentations that one may see, the newest first."""
    wanted = query.Filter(study_instance_uid, series_instance_uid, project_id, segmentation_state)
    async with services.db.read(actor) as tx:
        rows, following, total = await query.list_segmentations(tx, wanted, limit=limit, cursor=cursor)
    return Page(items=[_segmentation(row) for row in rows], next=following, total=total)


@get("/{segmentation_id:uuid}", operation_id="GetSegmentation", opt={"permission": "segmentation.read"})
async def get_segmentation(
    segmentation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[Segmentation]:
    async with services.db.read(actor) as tx:
        row = await query.get_segmentation(tx, segmentation_id)
    return Response(_segmentation(row), headers={"ETag": etag(row["version"])})


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
    opt={"permission": "segmentation.read"},
    media_type=body.MEDIA_TYPE,
)
async def get_masks(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    version: FromPath[int | None] = None,
) -> Stream:
    """All masks of a version as packed bits behind a JSON header that names their ranges."""
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
        masks = await query.read_masks(tx, row)
    numbers = [segment["segment_number"] for segment in row["segments"]]
    pieces = body.encode(masks, numbers, row["affine_lps"], row["version"])
    headers = {"ETag": etag(row["version"]), **(PRESENT if version is None else UNCHANGING)}
    return Stream(_off_loop(pieces), media_type=body.MEDIA_TYPE, headers=headers)


@get(
    "/{segmentation_id:uuid}/export",
    operation_id="ExportSegmentation",
    opt={"permission": "segmentation.read"},
    media_type=body.MEDIA_TYPE,
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
    made = await export.export_segmentation(
        services, actor, segmentation_id, form, version=version, segment_number=segment_number
    )
    headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"', **PRESENT}
    return Stream(made.body, media_type=made.media_type, headers=headers)


async def _off_loop(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece made in a thread: the loop only sends."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _segmentation(row: query.Row) -> Segmentation:
    return msgspec.convert(row, Segmentation)


router = Router(
    path="/segmentations",
    tags=["segmentations"],
    route_handlers=[
        list_segmentations,
        get_segmentation,
        list_segments,
        list_versions,
        get_statistics,
        get_masks,
        export_segmentation,
    ],
)
