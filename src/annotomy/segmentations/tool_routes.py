"""/api/v1/segmentations/{id}/tools, /measures and /agreement"""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.errors import Unavailable
from annotomy.http.etags import etag, expected_version
from annotomy.segmentations import query, retouch
from annotomy.segmentations.agreement import DEFAULT_TOLERANCE_MM, Agreement
from annotomy.segmentations.apart import MasksTooLarge
from annotomy.segmentations.errors import MaskMismatch, SegmentsInvalid
from annotomy.segmentations.measures import Measures
from annotomy.segmentations.schemas import Segmentation
from annotomy.segmentations.tools import MAX_MM, Number, Tool
from annotomy.services import Services

SegmentParameter = Annotated[int, QueryParameter(ge=1, le=65535)]
VersionParameter = Annotated[int | None, QueryParameter(ge=1, description="A version; the present one if not given")]


class UsedTool(msgspec.Struct, frozen=True):
    segment_number: Number
    tool: Tool
    why: Annotated[str, msgspec.Meta(max_length=1000)] = ""


@post(
    "/{segmentation_id:uuid}/tools",
    operation_id="UseTool",
    opt={"problems": [MasksTooLarge, SegmentsInvalid, Unavailable], "permission": "segmentation.write"},
)
async def use_tool(
    segmentation_id: FromPath[UUID],
    data: JSONBody[UsedTool],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: Annotated[str | None, HeaderParameter(name="If-Match", description="The ETag that was read")] = None,
) -> Response[Segmentation]:
    """Fill holes, keep the largest part, grow, shrink, smooth, interpolate or combine a segment: a new version."""
    await retouch.use_tool(
        services,
        actor,
        segmentation_id,
        base_version=expected_version(if_match),
        segment_number=data.segment_number,
        tool=data.tool,
        why=data.why,
    )
    async with services.db.read(actor) as tx:
        row = await query.get_segmentation(tx, segmentation_id)
    return Response(msgspec.convert(row, Segmentation), status_code=201, headers={"ETag": etag(row["version"])})


@get(
    "/{segmentation_id:uuid}/measures",
    operation_id="MeasureSegment",
    opt={"problems": [MasksTooLarge, Unavailable], "permission": "segmentation.read"},
)
async def measure(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    segment_number: SegmentParameter,
    version: VersionParameter = None,
) -> Measures:
    """The longest diameter, the number of parts and the area on each slice of a segment."""
    return await retouch.measure_segment(
        services, actor, segmentation_id, version=version, segment_number=segment_number
    )


@get(
    "/{segmentation_id:uuid}/agreement",
    operation_id="CompareSegments",
    opt={"problems": [MaskMismatch, MasksTooLarge, Unavailable], "permission": "segmentation.read"},
)
async def compare(
    segmentation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    segment_number: SegmentParameter,
    version: VersionParameter = None,
    other: Annotated[UUID | None, QueryParameter(description="Another segmentation; the same if not given")] = None,
    other_version: VersionParameter = None,
    other_segment_number: Annotated[int | None, QueryParameter(ge=1, le=65535)] = None,
    tolerance_mm: Annotated[float, QueryParameter(gt=0, le=MAX_MM)] = DEFAULT_TOLERANCE_MM,
) -> Agreement:
    """Dice, IoU, Hausdorff distance, HD95, surface Dice and difference of volumes, of two segmentations or versions."""
    return await retouch.compare_segments(
        services,
        actor,
        (segmentation_id, version, segment_number),
        (other or segmentation_id, other_version, other_segment_number or segment_number),
        tolerance_mm,
    )


router = Router(path="/segmentations", tags=["segmentations"], route_handlers=[use_tool, measure, compare])
