"""Tools of the server on a segment, each a new version; and what is measured and compared, version by version."""

from uuid import UUID

from annotomy.actor import Actor
from annotomy.segmentations import apart, query
from annotomy.segmentations.agreement import Agreement
from annotomy.segmentations.body import Edit
from annotomy.segmentations.bricks import Brick, BrickKey
from annotomy.segmentations.edit import editable, save_edit
from annotomy.segmentations.errors import MaskMismatch
from annotomy.segmentations.measures import Measures
from annotomy.segmentations.placing import match
from annotomy.segmentations.query import affine_of
from annotomy.segmentations.tools import Combine, Tool
from annotomy.services import Services


async def use_tool(
    services: Services,
    actor: Actor,
    segmentation_id: UUID,
    *,
    base_version: int,
    segment_number: int,
    tool: Tool,
    why: str,
) -> int:
    """The new version; the present one when nothing changes. Raises PreconditionFailed for a lost race."""
    numbers = [segment_number, *([tool.with_segment] if isinstance(tool, Combine) else [])]
    async with services.db.read(actor) as tx:
        row = await editable(tx, segmentation_id, base_version)
        query.segments_named(row, numbers)
        masks = await query.read_masks(tx, row, numbers)
    bricks = await apart.change(masks, segment_number, row["affine_lps"], tool, numbers[1:])
    gone: dict[BrickKey, Brick | None] = {key: None for key in masks.bricks if key[0] == segment_number}
    edit = Edit(gone | bricks, None, why or str(type(tool).__struct_config__.tag))
    return await save_edit(services, actor, segmentation_id, base_version=base_version, edit=edit)


async def measure_segment(
    services: Services, actor: Actor, segmentation_id: UUID, *, version: int | None, segment_number: int
) -> Measures:
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
        query.segments_named(row, [segment_number])
        masks = await query.read_masks(tx, row, [segment_number])
    return await apart.measure(masks, segment_number, row["affine_lps"])


async def compare_segments(
    services: Services,
    actor: Actor,
    one: tuple[UUID, int | None, int],
    other: tuple[UUID, int | None, int],
    tolerance_mm: float,
) -> Agreement:
    """Segmentation, version and segment of each side. Raises MaskMismatch for grids that differ."""
    sides: list[tuple[query.Row, query.MaskSet]] = []
    async with services.db.read(actor) as tx:
        for segmentation_id, version, segment_number in (one, other):
            row = await query.get_version(tx, segmentation_id, version)
            query.segments_named(row, [segment_number])
            sides.append((row, await query.read_masks(tx, row, [segment_number])))
    (row, masks), (other_row, other_masks) = sides
    if row["frame_of_reference_uid"] != other_row["frame_of_reference_uid"]:
        raise MaskMismatch("The frame of reference differs: the segmentations cannot be compared.")
    slices, rows, columns = row["shape_kji"]
    lattice = match(affine_of(row), affine_of(other_row), (columns, rows, slices))
    if masks.shape_kji != other_masks.shape_kji or lattice.shift.any() or (lattice.turn.diagonal() != 1).any():
        raise MaskMismatch("The grids differ: the segmentations cannot be compared voxel by voxel.")
    return await apart.compare(masks, one[2], other_masks, other[2], row["affine_lps"], tolerance_mm)
