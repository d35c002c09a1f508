"""The contours of an RT Structure Set as masks on the grid of a series (PS3.3 C.8.8.6).

Contours lie in the slices of the series: one that is tilted against them, lies between them or outside is refused, and so
is one that names an image which the series does not have. Structures of points or open lines enclose nothing; they stay
as empty segments, and the note says so.
"""

from collections.abc import Iterator

import numpy as np

from annotomy.archive.volume import VolumeSource
from annotomy.dicom.contour_fill import Points, fill_slice
from annotomy.dicom.rtstruct_read import Contour, StructureRead, StructureSetRead
from annotomy.segmentations.bricks import Brick, BrickKey, MaskSet
from annotomy.segmentations.errors import MaskMismatch
from annotomy.segmentations.placing import IN_PLANE_TOLERANCE, SLICE_TOLERANCE, Grid, Painter
from annotomy.segmentations.segment import NewSegment

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_EDGE = 0.5 + IN_PLANE_TOLERANCE
"""Pixels behind the centres of the outermost: contours run along the edge of the image."""


def masks_of_structures(read: StructureSetRead, source: VolumeSource) -> tuple[MaskSet, list[NewSegment], str]:
    """Masks, segments, and a note on what encloses nothing. Raises MaskMismatch."""
    grid = Grid(source.shape_kji, source.affine_lps)
    images = _Images(source)
    bricks: dict[BrickKey, Brick] = {}
    for structure in read.structures:
        _require_same_space(structure, read, source)
        painter = Painter(grid, structure.number)
        for k, contours in _by_slice(structure, source, images).items():
            mask = fill_slice(
                [points for points, _ in contours],
                source.shape_kji[1:],
                exclusive=any(kind == "CLOSEDPLANAR_XOR" for _, kind in contours),
            )
            painter.paint(k, mask)
        bricks |= painter.bricks()
    segments = [
        NewSegment(s.number, s.label, s.code, s.color, s.category, ("unknown", "unknown") if s.automatic else None)
        for s in read.structures
    ]
    open_ones = sum(any(c.kind not in CLOSED for c in s.contours) for s in read.structures)
    note = f", {open_ones} structures have points or lines that enclose nothing" if open_ones else ""
    return MaskSet(source.shape_kji, bricks), segments, note


def _require_same_space(structure: StructureRead, read: StructureSetRead, source: VolumeSource) -> None:
    own = structure.frame_of_reference_uid
    if own and source.frame_of_reference_uid and own != source.frame_of_reference_uid:
        raise MaskMismatch("The frame of reference differs: the structures were drawn on another series.")
    if not own and source.series_instance_uid not in read.referenced_series_uids:
        raise MaskMismatch("The structures name no frame of reference and reference another series.")


class _Images:
    """Which slice an image is; only for structures that were drawn on this very series."""

    def __init__(self, source: VolumeSource) -> None:
        self._frames = {(plane.sop_instance_uid, plane.frame_number or 1): k for k, plane in enumerate(source.planes)}
        self._instances = {plane.sop_instance_uid for plane in source.planes}

    def require(self, contour: Contour, k: int) -> None:
        for sop_instance_uid, frame_number in contour.images:
            if sop_instance_uid not in self._instances:
                raise MaskMismatch("A contour references an image that the series does not have.")
            known = self._frames.get((sop_instance_uid, frame_number or 1))
            if len(contour.images) == 1 and known is not None and known != k:
                raise MaskMismatch("A contour lies on another slice than the image that it references.")


def _by_slice(structure: StructureRead, source: VolumeSource, images: _Images) -> dict[int, list[tuple[Points, str]]]:
    found: dict[int, list[tuple[Points, str]]] = {}
    named = _drawn_on(structure, source)
    for contour, k, points in _placed(structure, source):
        if named:
            images.require(contour, k)
        if contour.kind in CLOSED and len(points) >= 3:
            found.setdefault(k, []).append((points, contour.kind))
    return found


def _drawn_on(structure: StructureRead, source: VolumeSource) -> bool:
    """Whether a contour names an image of this series: then each of them has to."""
    own = {plane.sop_instance_uid for plane in source.planes}
    return any(uid in own for contour in structure.contours for uid, _ in contour.images)


def _placed(structure: StructureRead, source: VolumeSource) -> Iterator[tuple[Contour, int, Points]]:
    to_index = np.linalg.inv(source.affine_lps)
    slices, rows, columns = source.shape_kji
    for contour in structure.contours:
        if contour.kind not in CLOSED:
            continue
        places = contour.points_lps_mm @ to_index[:3, :3].T + to_index[:3, 3]
        k = round(float(np.median(places[:, 2])))
        if np.ptp(places[:, 2]) > SLICE_TOLERANCE:
            raise MaskMismatch("The orientation differs: a contour does not lie in a slice of the series.")
        if np.max(np.abs(places[:, 2] - k)) > SLICE_TOLERANCE:
            raise MaskMismatch("The position differs: a contour lies between two slices of the series.")
        flat = places[:, :2]
        if (
            not 0 <= k < slices
            or np.min(flat) < -_EDGE
            or np.any(np.max(flat, axis=0) > (columns - 1 + _EDGE, rows - 1 + _EDGE))
        ):
            raise MaskMismatch("A part of the masks lies outside the series.")
        yield contour, k, flat
