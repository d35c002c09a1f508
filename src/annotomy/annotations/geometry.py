"""The shapes of annotations: what makes one valid, and where it lies in the other space. Pure.

Pixel points are (column, row) with (0, 0) at the top-left corner of the first pixel, as in DICOM SCOORD (PS3.3
C.18.6.1.2); patient points are LPS millimetres, as in SCOORD3D (C.18.9.1.2).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.annotations.errors import InvalidGeometry, OutsideFrame

Type = Literal[
    "point", "probe", "length", "bidirectional", "angle", "cobb_angle", "rectangle", "ellipse", "polygon", "freehand",
    "spline", "arrow", "box3d", "line3d", "none",
]  # fmt: skip
Space = Literal["pixel", "lps_mm"]

MAX_POINTS = 20_000
"""A contour of this length goes around every pixel of a 4096 x 4096 image's border; longer ones are masks."""
MAX_COORDINATE = 1e6
"""Pixels or millimetres: beyond any image and any patient."""
OFF_PLANE_MM = 0.5
"""How far a patient point may lie from its frame's plane, beside half of the slice's thickness: headers round positions."""
MAPPED_DECIMALS = 7
"""Of a computed coordinate: a tenth of a nanometre. More digits are noise that every list carries."""
EDGE_PIXELS = 1e-3
"""How far beyond the frame's border a point may lie that was computed from millimetres."""

COUNTS: dict[str, tuple[int, ...] | range] = {
    "point": (1,),
    "probe": (1,),
    "length": (2,),  # from, to
    "arrow": (2,),  # tip, tail
    "line3d": (2,),
    "bidirectional": (4,),  # long axis from, to; short axis from, to
    "angle": (3,),  # end, vertex, end
    "cobb_angle": (4,),  # first line from, to; second line from, to
    "rectangle": (2, 4),  # opposite corners along rows and columns; or all corners
    "ellipse": (2, 4),  # opposite corners of the box around it; or the ends of one axis, then of the other
    "polygon": range(3, MAX_POINTS + 1),
    "freehand": range(2, MAX_POINTS + 1),
    "spline": range(2, MAX_POINTS + 1),
    "box3d": (2, 8),  # opposite corners along the patient's axes; or all corners
    "none": (0,),
}
ONLY_PATIENT = frozenset({"box3d", "line3d"})
LINES_OR_REGIONS = frozenset({"freehand", "spline"})


class Geometry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an annotation is. `closed` is for freehand and spline: false makes an open line of one."""

    type: Type
    space: Space | None = None
    """Needed by every type but `none`."""
    points: tuple[tuple[float, ...], ...] = ()
    closed: bool | None = None

    @property
    def is_region(self) -> bool:
        """Whether it encloses pixels."""
        if self.type in LINES_OR_REGIONS:
            return self.closed is not False and len(self.points) >= 3
        return self.type in ("rectangle", "ellipse", "polygon")


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """A frame's size and, as far as its header tells, its place in the patient (PS3.3 C.7.6.2)."""

    rows: int
    columns: int
    row_spacing_mm: float | None = None
    """Between the centres of rows: along a column."""
    column_spacing_mm: float | None = None
    position_lps_mm: tuple[float, float, float] | None = None
    """Centre of the first pixel."""
    orientation: tuple[float, ...] | None = None
    """Direction of a row (of growing column), then of a column."""
    thickness_mm: float | None = None

    @property
    def has_place(self) -> bool:
        return None not in (self.row_spacing_mm, self.column_spacing_mm, self.position_lps_mm, self.orientation)


def checked(geometry: Geometry) -> Geometry:
    """The geometry, when it is of its type's form. Raises InvalidGeometry."""
    if geometry.type == "none":
        if geometry.points or geometry.closed is not None:
            raise InvalidGeometry("A geometry of type none has no points.", field="geometry")
        return Geometry(type="none")
    if geometry.space is None:
        raise InvalidGeometry('The geometry\'s space is "pixel" or "lps_mm".', field="geometry.space")
    if geometry.space == "pixel" and geometry.type in ONLY_PATIENT:
        raise InvalidGeometry(f"{geometry.type} takes the space lps_mm.", field="geometry.space")
    if geometry.closed is not None and geometry.type not in LINES_OR_REGIONS:
        raise InvalidGeometry("closed is for freehand and spline.", field="geometry.closed")
    _check_points(geometry)
    if geometry.closed and len(geometry.points) < 3:
        raise InvalidGeometry("A closed line has 3 points or more.", field="geometry.closed")
    return geometry


def _check_points(geometry: Geometry) -> None:
    allowed, given = COUNTS[geometry.type], len(geometry.points)
    if geometry.space == "lps_mm" and geometry.type in ("rectangle", "ellipse"):
        allowed = (4,)  # in the patient, two corners do not say how the shape is turned
    if given not in allowed:
        told = f"{allowed[0]} to {MAX_POINTS}" if isinstance(allowed, range) else " or ".join(map(str, allowed))
        raise InvalidGeometry(f"{geometry.type} takes {told} points, not {given}.", field="geometry.points")
    coordinates = 2 if geometry.space == "pixel" else 3
    for index, point in enumerate(geometry.points):
        if len(point) != coordinates:
            raise InvalidGeometry(
                f"A point in {geometry.space} has {coordinates} coordinates.",
                field="geometry.points", point_index=index,
            )  # fmt: skip
        if not all(-MAX_COORDINATE <= value <= MAX_COORDINATE for value in point):  # false for NaN, too
            raise InvalidGeometry(
                f"A coordinate is a number from {-MAX_COORDINATE:g} to {MAX_COORDINATE:g}.",
                field="geometry.points", point_index=index,
            )  # fmt: skip


def map_to_frame(geometry: Geometry, frame: FrameGeometry) -> Geometry | None:
    """The same shape in the other space, or None where the frame has no place. Raises OutsideFrame."""
    if geometry.type == "none" or geometry.type in ONLY_PATIENT:
        return None
    if geometry.space == "pixel":
        _require_inside(geometry.points, frame, slack=0.0)
        if not frame.has_place:
            return None
        corners = _expanded(geometry)
        points = pixel_to_lps(np.asarray(corners.points), frame)
        return msgspec.structs.replace(corners, space="lps_mm", points=_plain(points))
    if not frame.has_place:
        return None
    pixels, off_plane_mm = lps_to_pixel(np.asarray(geometry.points), frame)
    tolerance = OFF_PLANE_MM + (frame.thickness_mm or 0.0) / 2
    for index, distance in enumerate(off_plane_mm):
        if abs(distance) > tolerance:
            raise OutsideFrame(
                "A point lies off the plane of its frame.", field="geometry.points", point_index=index,
                distance_mm=round(float(abs(distance)), 3), tolerance_mm=round(tolerance, 3),
            )  # fmt: skip
    points = _plain(pixels)
    _require_inside(points, frame, slack=EDGE_PIXELS)
    return msgspec.structs.replace(geometry, space="pixel", points=points)


def pixel_to_lps(points: NDArray[np.float64], frame: FrameGeometry) -> NDArray[np.float64]:
    """(column, row) to LPS mm. A position is of a pixel's centre, which is at (0.5, 0.5) here."""
    origin, row_step, column_step = _axes(frame)
    return origin + (points[:, :1] - 0.5) * row_step + (points[:, 1:2] - 0.5) * column_step


def lps_to_pixel(points: NDArray[np.float64], frame: FrameGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """LPS mm to (column, row) of the nearest place on the frame's plane, and the signed distance from it in mm."""
    origin, row_step, column_step = _axes(frame)
    normal = np.cross(row_step, column_step)
    normal /= np.linalg.norm(normal)
    offsets = np.linalg.solve(np.column_stack([row_step, column_step, normal]), (points - origin).T)
    return np.asarray(offsets[:2].T + 0.5, np.float64), np.asarray(offsets[2], np.float64)


def _axes(frame: FrameGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    assert frame.orientation is not None
    assert frame.row_spacing_mm is not None
    assert frame.column_spacing_mm is not None
    directions = np.asarray(frame.orientation, np.float64).reshape(2, 3)
    return (
        np.asarray(frame.position_lps_mm, np.float64),
        directions[0] * frame.column_spacing_mm,
        directions[1] * frame.row_spacing_mm,
    )


def _require_inside(points: tuple[tuple[float, ...], ...], frame: FrameGeometry, *, slack: float) -> None:
    for index, (column, row) in enumerate(points):
        if not (-slack <= column <= frame.columns + slack and -slack <= row <= frame.rows + slack):
            raise OutsideFrame(
                f"A point lies outside of its frame of {frame.columns} columns and {frame.rows} rows.",
                field="geometry.points", point_index=index, columns=frame.columns, rows=frame.rows,
            )  # fmt: skip


def _expanded(geometry: Geometry) -> Geometry:
    """Two corners mean a box along rows and columns; in the patient they would not say so, so that the mapped shape has four."""
    if len(geometry.points) != 2 or geometry.type not in ("rectangle", "ellipse"):
        return geometry
    (x0, y0), (x1, y1) = geometry.points
    if geometry.type == "rectangle":
        corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    else:
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        corners = ((x0, y), (x1, y), (x, y0), (x, y1))
    return msgspec.structs.replace(geometry, points=corners)


def _plain(points: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.round(points, MAPPED_DECIMALS).tolist()))


# -- outlines: what measurements and exports are made from ---------------------------------------------------------------

SPLINE_STEPS = 16
"""Straight pieces between two control points of a spline: the area differs from the curve's by less than 0.1 %."""
ELLIPSE_STEPS = 72
"""Corners of the polygon that stands for an ellipse where a format knows none."""


def outline(geometry: Geometry) -> NDArray[np.float64]:
    """The points of the line or of the region's border, without a repeated end; an ellipse as a polygon."""
    points = np.asarray(_expanded(geometry).points, np.float64)
    if geometry.type == "rectangle":
        return _in_order(points)
    if geometry.type == "ellipse":
        centre, first, second = ellipse_axes(geometry)
        turns = np.linspace(0.0, 2 * math.pi, ELLIPSE_STEPS, endpoint=False)[:, None]
        return centre + np.cos(turns) * first + np.sin(turns) * second
    if geometry.is_region and len(points) > 3 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    if geometry.type == "spline" and len(points) > 2:
        return _spline(points, closed=geometry.is_region)
    return points


def ellipse_axes(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The centre and both half axes."""
    a, b, c, d = np.asarray(_expanded(geometry).points, np.float64)
    return (a + b + c + d) / 4, (b - a) / 2, (d - c) / 2


def _in_order(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four corners as a border: tools send them around the rectangle, or row by row. The farthest from the first is its
    opposite."""
    first, others = corners[0], list(corners[1:])
    opposite = max(range(3), key=lambda n: float(np.linalg.norm(others[n] - first)))
    across = others.pop(opposite)
    return np.stack([first, others[0], across, others[1]])


def _spline(points: NDArray[np.float64], *, closed: bool) -> NDArray[np.float64]:
    """The uniform Catmull-Rom curve through the points."""
    if closed:
        around = np.concatenate([points[-1:], points, points[:2]])
    else:
        around = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0.0, 1.0, SPLINE_STEPS, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False)
    ]
    return np.concatenate(pieces if closed else [*pieces, points[-1:]])


def to_json(geometry: Geometry | None) -> Any:
    return None if geometry is None else msgspec.to_builtins(geometry)
