"""Masks of other programs become a segmentation of a series: DICOM SEG and RTSTRUCT, NIfTI, NRRD, PNG.

The form is told by the bytes, not by the name. Nothing is resampled (placing.py) and nothing is dropped: overlapping
and empty segments stay, codes are kept, and a value that no segment describes is refused.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from annotomy.actor import Actor
from annotomy.archive.errors import NotDicom
from annotomy.archive.parse import parse_instance
from annotomy.archive.retrieve import locate, read_instance
from annotomy.archive.volume import VolumeSource, load_source
from annotomy.dicom.geometry import Plane
from annotomy.dicom.pixels import PixelError
from annotomy.dicom.rtstruct_read import RTSTRUCT_CLASS, StructureSetError, read_rtstruct
from annotomy.dicom.seg import Coded
from annotomy.dicom.seg_read import SEG_CLASSES, SegError, SegFrame, SegRead, read_seg
from annotomy.errors import NotFound, Problem
from annotomy.projects.access import Permission, require, visible_work
from annotomy.segmentations import nifti_file, nrrd_file, png_file
from annotomy.segmentations.bricks import Brick, BrickKey, MaskSet, of_labels
from annotomy.segmentations.errors import MaskMismatch, SegmentsInvalid
from annotomy.segmentations.interchange import UNCODED, FormatError, LabelGrid, default_color
from annotomy.segmentations.placing import Grid, Lattice, Painter, match, on_grid
from annotomy.segmentations.schemas import Code, DescribedSegment
from annotomy.segmentations.segment import NewSegment
from annotomy.segmentations.service import MAX_SEGMENT_NUMBER, NewSegmentation, create_segmentation
from annotomy.segmentations.structures import masks_of_structures
from annotomy.services import Services

MAX_IMPORT_BYTES = 512 << 20
"""One mask file as sent: a BINARY SEG of 50 organs over 300 slices of 512 x 512 has about 470 MiB."""
MAX_SEGMENTS = 1024
MASK_CLASSES = SEG_CLASSES | {RTSTRUCT_CLASS}
"""SOP classes that become segmentations."""


class UnreadableMasks(Problem):
    """The file is damaged or none of DICOM SEG, RTSTRUCT, NIfTI, NRRD (attached data, raw or gzip) and PNG (a ZIP of slices).

    The detail says what is wrong with it.
    """

    slug = "unreadable-masks"
    title = "The mask file cannot be read"
    status = 422


@dataclass(frozen=True, slots=True)
class Wanted:
    """Onto what, and how the segments are called where the file does not say (or shall say otherwise)."""

    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str
    label: str = ""
    segments: Sequence[DescribedSegment] = ()


async def import_segmentation(services: Services, actor: Actor, wanted: Wanted, data: bytes) -> UUID:
    """Raises UnreadableMasks, MaskMismatch, SegmentsInvalid, a VolumeProblem of the series, NotFound or Forbidden."""
    async with services.db.read(actor) as tx:
        await require(tx, actor, Permission.SEGMENTATION_WRITE, wanted.project_id)
    source = await load_source(services, actor, wanted.series_instance_uid)
    if source.study_instance_uid != wanted.study_instance_uid:
        raise NotFound("There is no such series in this study.")
    masks, segments, note = await asyncio.to_thread(_read, data, source, wanted.segments)
    new = NewSegmentation(
        project_id=wanted.project_id,
        source=source,
        segments=segments,
        bricks=masks,
        label=wanted.label,
        why=note,
    )
    return await create_segmentation(services, actor, new)


async def import_from_archive(
    services: Services, actor: Actor, project_id: UUID, sop_instance_uid: str, *, label: str = ""
) -> UUID:
    """A SEG or RTSTRUCT that the archive holds, onto the series that it references. The same object makes one segmentation
    in a project."""
    async with services.db.read(actor) as tx:
        await require(tx, actor, Permission.SEGMENTATION_WRITE, project_id)
        at = min(await locate(tx, sop_instance_uid=sop_instance_uid), key=lambda one: one.id)
    if at.sop_class_uid not in MASK_CLASSES or at.blob_size > MAX_IMPORT_BYTES:
        raise UnreadableMasks("The instance is no DICOM segmentation or structure set, or larger than is taken in.")
    data = await read_instance(services, at)
    series, named = await asyncio.to_thread(_references, data, at.sop_class_uid)
    if len(series) != 1:
        raise MaskMismatch("The object references no series, or several.")
    source = await load_source(services, actor, series[0])
    masks, segments, note = await asyncio.to_thread(_read, data, source, ())
    new = NewSegmentation(
        project_id=project_id,
        source=source,
        segments=segments,
        bricks=masks,
        label=label or named,
        why=note,
        id=uuid5(project_id, f"{actor.user_id} {sop_instance_uid}"),
        kept_as=sop_instance_uid,
    )
    return await create_segmentation(services, actor, new)


async def take_stored_masks(
    services: Services, actor: Actor, project_id: UUID, sop_instance_uid: str
) -> dict[str, str]:
    """A SEG or RTSTRUCT that was just stored, unless it is the record of a segmentation of this project already."""
    async with services.db.read(actor) as tx:
        known = await tx.fetchval(
            "select s.id from segmentation_versions v join segmentations s on s.id = v.segmentation_id"
            f" where v.sop_instance_uid = $1 and s.project_id = $2"
            f" and {visible_work('segmentation', 's.project_id', 's.created_by')} order by s.id limit 1",
            sop_instance_uid, project_id,
        )  # fmt: skip
    made = known or await import_from_archive(services, actor, project_id, sop_instance_uid)
    return {"segmentation_id": str(made)}


def _read(
    data: bytes, source: VolumeSource, described: Sequence[DescribedSegment]
) -> tuple[MaskSet, list[NewSegment], str]:
    try:
        if data[128:132] == b"DICM":
            if parse_instance(data).sop_class_uid == RTSTRUCT_CLASS:
                masks, segments, note = masks_of_structures(read_rtstruct(data), source)
                return masks, _renamed(segments, described), f"imported from DICOM RTSTRUCT{note}"
            seg = read_seg(data)
            masks = masks_of_seg(seg, source)
            found = [NewSegment(s.number, s.label, s.code, s.color, s.category, s.algorithm) for s in seg.segments]
            note = "imported from DICOM SEG"
            if seg.form == "FRACTIONAL":
                note += ", fractional values from one half on"
            return masks, _renamed(found, described), note
        form, grid = _label_grid(data, source)
        masks, segments = _masks_of_grid(grid, source, described)
    except (FormatError, SegError, StructureSetError, NotDicom, PixelError) as error:
        raise UnreadableMasks(str(error)) from error
    return masks, segments, f"imported from {form}"


def _references(data: bytes, sop_class_uid: str) -> tuple[tuple[str, ...], str]:
    """The series that the object names, and what it calls itself."""
    try:
        if sop_class_uid == RTSTRUCT_CLASS:
            structures = read_rtstruct(data)
            return structures.referenced_series_uids, structures.label
        seg = read_seg(data)
    except (SegError, StructureSetError) as error:
        raise UnreadableMasks(str(error)) from error
    return seg.referenced_series_uids, seg.label


def _label_grid(data: bytes, source: VolumeSource) -> tuple[str, LabelGrid]:
    if data.startswith(b"NRRD"):
        return "NRRD", nrrd_file.read_nrrd(data)
    if data.startswith((b"\x89PNG", b"PK\x03\x04")):
        return "PNG", png_file.read_pngs(data, source.affine_lps)
    if data[:2] == b"\x1f\x8b" or data[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return "NIfTI", nifti_file.read_nifti(data)
    raise FormatError("The file is no DICOM SEG or RTSTRUCT, NIfTI, NRRD or PNG.")


def masks_of_seg(seg: SegRead, source: VolumeSource) -> MaskSet:
    """The frames on the series' grid. Raises MaskMismatch."""
    if (
        seg.frame_of_reference_uid
        and source.frame_of_reference_uid
        and seg.frame_of_reference_uid != source.frame_of_reference_uid
        and source.series_instance_uid not in seg.referenced_series_uids
    ):
        raise MaskMismatch("The frame of reference differs: the segmentation was made on another series.")
    known = {segment.number for segment in seg.segments}
    unknown = {frame.segment_number for frame in seg.frames if frame.segment_number not in known}
    if unknown and seg.form != "LABELMAP":
        raise MaskMismatch("A frame shows a segment that the object does not describe.")
    grid = Grid(source.shape_kji, source.affine_lps)
    slice_of_source = {(plane.sop_instance_uid, plane.frame_number or 1): k for k, plane in enumerate(source.planes)}
    size = (int(seg.dataset.Rows), int(seg.dataset.Columns))

    placed: dict[Plane, int | Lattice] = {}  # frames of many segments lie on the same slices

    def place(frame: SegFrame) -> int | Lattice:
        if frame.plane is not None:
            if frame.plane not in placed:
                placed[frame.plane] = grid.slice_of(frame.plane, size)
            return placed[frame.plane]
        k = slice_of_source.get((frame.source_sop_instance_uid, frame.source_frame_number or 1))
        if k is None or size != source.shape_kji[1:]:
            raise MaskMismatch("A frame has neither a position nor a source image of this series.")
        return k

    if seg.form == "LABELMAP":
        return _of_labelmap(seg, grid, place, known)
    bricks: dict[BrickKey, Brick] = {}
    by_number: dict[int, list[SegFrame]] = {}
    for frame in seg.frames:
        by_number.setdefault(frame.segment_number or 0, []).append(frame)
    for number, frames in sorted(by_number.items()):
        painter = Painter(grid, number)
        for frame in frames:
            painter.paint(place(frame), seg.pixels(frame))
        bricks |= painter.bricks()
    return MaskSet(source.shape_kji, bricks)


def _of_labelmap(seg: SegRead, grid: Grid, place: Callable[[SegFrame], int | Lattice], known: set[int]) -> MaskSet:
    labels = np.zeros(grid.shape_kji, np.uint16)
    for frame in seg.frames:
        pixels, where = seg.pixels(frame), place(frame)
        if isinstance(where, int):
            labels[where] = pixels
        else:
            labels[grid.voxels(where, pixels)] = pixels[np.nonzero(pixels)]
    _require_described(labels, known)
    return of_labels(labels, known)


def _masks_of_grid(
    grid: LabelGrid, source: VolumeSource, described: Sequence[DescribedSegment]
) -> tuple[MaskSet, list[NewSegment]]:
    slices, rows, columns = grid.layers[0].shape
    lattice = match(source.affine_lps, grid.affine_lps, (columns, rows, slices))
    layers = [on_grid(_whole_numbers(layer), lattice, source.shape_kji) for layer in grid.layers]
    if grid.segments:
        segments = [NewSegment(s.number, s.label, s.code, s.color, s.category, s.algorithm) for s in grid.segments]
    else:
        values = sorted({int(v) for layer in layers for v in np.unique(layer)} - {0})
        segments = [] if described else [_unnamed(value) for value in values]
    segments = _renamed(segments, described)
    numbers = {segment.number for segment in segments}
    bricks: dict[BrickKey, Brick] = {}
    for layer in layers:
        _require_described(layer, numbers)
        found = of_labels(layer, numbers).bricks
        if found.keys() & bricks.keys():
            raise MaskMismatch("A segment is spread over several layers of the file.")
        bricks |= found
    return MaskSet(source.shape_kji, bricks), segments


def _unnamed(value: int) -> NewSegment:
    return NewSegment(value, f"Segment {value}", UNCODED, default_color(value))


def _whole_numbers(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Other programs store label maps as floating-point numbers, too."""
    if values.dtype.kind not in "iufb":
        raise FormatError("The values are no numbers.")
    if values.dtype.kind == "f" and not (np.all(np.isfinite(values)) and np.array_equal(values, np.rint(values))):
        raise FormatError("The values are no whole numbers: the file holds an image or probabilities, not masks.")
    if values.size and (values.min() < 0 or values.max() > MAX_SEGMENT_NUMBER):
        raise FormatError("A value is below 0 or above 65535.")
    return values.astype(np.uint16)


def _require_described(labels: NDArray[Any], numbers: set[int]) -> None:
    unknown = sorted({int(v) for v in np.unique(labels)} - numbers - {0})
    if unknown:
        raise SegmentsInvalid(f"The value {unknown[0]} occurs in the masks, but no segment describes it.")


def _renamed(found: list[NewSegment], described: Sequence[DescribedSegment]) -> list[NewSegment]:
    """What the sender says of a segment stands before what the file says; neither takes one away."""
    by_number = {segment.number: segment for segment in found}
    for told in described:
        number = told.segment_number
        known = by_number.get(number, _unnamed(number))
        by_number[number] = replace(
            known,
            label=told.label,
            code=coded(told.code) if told.code is not None else known.code,
            category=coded(told.category) if told.category is not None else known.category,
            color=told.color or known.color,
        )
    if len(by_number) > MAX_SEGMENTS:
        raise SegmentsInvalid(f"There are more than {MAX_SEGMENTS} segments.")
    return [by_number[number] for number in sorted(by_number)]


def coded(code: Code) -> Coded:
    return code.value, code.scheme, code.meaning
