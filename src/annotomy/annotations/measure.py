"""What the server measures on a shape: lengths, areas, angles, and the pixels under a region. Pure.

Units are UCUM. Without a pixel spacing, lengths and areas are in pixels ({pixels}) and angles are not told. A pixel belongs
to a region when its centre lies inside (even-odd rule); standard deviations are of the pixels themselves (divided by n).
"""

import math
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.annotations.geometry import FrameGeometry, Geometry, ellipse_axes, outline

Points = NDArray[np.float64]


class Concept(msgspec.Struct, frozen=True):
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """`source` says who measured: the server, or the client that reported it."""

    name: str
    value: float
    unit: str
    concept: Concept | None = None
    source: Literal["server", "client"] = "client"


CONCEPTS = {
    "length": Concept("410668003", "SCT", "Length"),
    "long_axis": Concept("103339001", "SCT", "Long Axis"),
    "short_axis": Concept("103340004", "SCT", "Short Axis"),
    "angle": Concept("1483009", "SCT", "Angle"),
    "cobb_angle": Concept("285285000", "SCT", "Cobb angle"),
    "area": Concept("42798000", "SCT", "Area"),
    "perimeter": Concept("131191004", "SCT", "Perimeter"),
    "volume": Concept("118565006", "SCT", "Volume"),
    "mean": Concept("373098007", "SCT", "Mean"),
    "standard_deviation": Concept("386136009", "SCT", "Standard Deviation"),
    "minimum": Concept("255605001", "SCT", "Minimum"),
    "maximum": Concept("56851009", "SCT", "Maximum"),
    "pixel_value": Concept("pixel-value", "99ANNOTOMY", "Pixel Value"),
}
PIXELS = "{pixels}"


@dataclass(frozen=True, slots=True)
class FramePixels:
    """One grey frame in modality units."""

    values: NDArray[np.float32]
    unit: str


def measure(
    geometry: Geometry, mapped: Geometry | None, frame: FrameGeometry | None, pixels: FramePixels | None
) -> list[Measurement]:
    """Everything that can be told of the shape with what is known of its frame."""
    if geometry.type == "none":
        return []
    scaled, unit = _scaled(geometry, mapped, frame)
    found = _of_shape(geometry.type, scaled, unit, is_region=geometry.is_region)
    in_pixels = geometry if geometry.space == "pixel" else mapped
    if pixels is not None and in_pixels is not None and in_pixels.space == "pixel":
        found += _of_pixels(in_pixels, pixels)
    return found


def _scaled(geometry: Geometry, mapped: Geometry | None, frame: FrameGeometry | None) -> tuple[Geometry, str]:
    """The shape in millimetres where that can be, else in pixels, and the unit of its lengths."""
    for one in (geometry, mapped):
        if one is not None and one.space == "lps_mm":
            return one, "mm"
    if frame is None or frame.row_spacing_mm is None or frame.column_spacing_mm is None:
        return geometry, PIXELS
    x, y = frame.column_spacing_mm, frame.row_spacing_mm
    return msgspec.structs.replace(geometry, points=tuple((p[0] * x, p[1] * y) for p in geometry.points)), "mm"


def _of_shape(kind: str, shape: Geometry, unit: str, *, is_region: bool) -> list[Measurement]:
    points = np.asarray(shape.points, np.float64)
    if kind in ("length", "line3d"):
        return [_told("length", _distance(points[0], points[1]), unit)]
    if kind == "bidirectional":
        axes = sorted((_distance(points[0], points[1]), _distance(points[2], points[3])), reverse=True)
        return [_told("long_axis", axes[0], unit), _told("short_axis", axes[1], unit)]
    if kind in ("angle", "cobb_angle"):
        if unit == PIXELS:
            return []  # pixels of unknown shape do not tell an angle
        first, second = (
            (points[0] - points[1], points[2] - points[1])
            if kind == "angle"
            else (points[1] - points[0], points[3] - points[2])
        )
        degrees = _angle_deg(first, second)
        if degrees is not None and kind == "cobb_angle":
            degrees = min(degrees, 180 - degrees)  # between lines, which have no direction
        return [] if degrees is None else [_told(kind, degrees, "deg")]
    if kind == "box3d":
        return [_told("volume", _box_volume(points), "mm3")]
    if kind == "ellipse":
        _, first, second = ellipse_axes(shape)
        area_unit = PIXELS if unit == PIXELS else "mm2"
        area = math.pi * float(np.linalg.norm(np.cross(_in_space(first), _in_space(second))))
        return [_told("area", area, area_unit), _told("perimeter", _ellipse_perimeter(first, second), unit)]
    if is_region:
        border = outline(shape)
        area_unit = PIXELS if unit == PIXELS else "mm2"
        return [_told("area", _area(border), area_unit), _told("perimeter", _length(border, closed=True), unit)]
    if kind in ("freehand", "spline"):
        return [_told("length", _length(outline(shape), closed=False), unit)]
    return []


def _told(name: str, value: float, unit: str) -> Measurement:
    return Measurement(name, float(value), unit, CONCEPTS[name], "server")


def _distance(a: Points, b: Points) -> float:
    return float(np.linalg.norm(b - a))


def _angle_deg(a: Points, b: Points) -> float | None:
    """Between two directions, 0 to 180; None when one has no length."""
    if not a.any() or not b.any():
        return None
    a, b = _in_space(a), _in_space(b)
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b)))


def _in_space(vector: Points) -> Points:
    return vector if vector.shape[-1] == 3 else np.concatenate([vector, np.zeros((*vector.shape[:-1], 1))], axis=-1)


def _area(border: Points) -> float:
    """Of a plane polygon anywhere in space: half the length of the sum of cross products."""
    around = _in_space(border - border[0])
    return 0.5 * float(np.linalg.norm(np.cross(around, np.roll(around, -1, axis=0)).sum(axis=0)))


def _length(points: Points, *, closed: bool) -> float:
    steps = np.diff(points, axis=0)
    length = float(np.linalg.norm(steps, axis=1).sum())
    return length + _distance(points[-1], points[0]) if closed else length


def _ellipse_perimeter(first: Points, second: Points) -> float:
    """By the arithmetic-geometric mean, from any two conjugate half axes."""
    a, b = (float(v) for v in np.linalg.svd(np.stack([first, second]), compute_uv=False))
    if b == 0:
        return 4 * a
    big, total, weight = a, 0.0, 0.5
    while abs(a - b) > 1e-12 * big:
        total += weight * (a * a - b * b)
        a, b, weight = (a + b) / 2, math.sqrt(a * b), weight * 2
    return 2 * math.pi / a * (big * big - total)


def _box_volume(points: Points) -> float:
    if len(points) == 2:
        return float(np.prod(np.abs(points[1] - points[0])))
    from_first = points[1:] - points[0]
    nearest = from_first[np.argsort(np.linalg.norm(from_first, axis=1))]
    a, b = nearest[0], nearest[1]
    # The third edge is the shortest one off the plane of the first two: face diagonals lie in it or are longer.
    normal = np.cross(a, b)
    heights = np.abs(nearest @ normal)
    off = nearest[heights > 1e-9 * max(float(heights.max()), 1e-30)]
    return float(np.abs(off[0] @ normal)) if len(off) else 0.0


# -- pixels --------------------------------------------------------------------------------------------------------------


def _of_pixels(shape: Geometry, pixels: FramePixels) -> list[Measurement]:
    rows, columns = pixels.values.shape
    if shape.type in ("point", "probe"):
        column, row = shape.points[0]
        at = pixels.values[min(int(row), rows - 1), min(int(column), columns - 1)]
        return [_told("pixel_value", float(at), pixels.unit)]
    if not shape.is_region:
        return []
    top, left, inside = mask(shape, rows, columns)
    height, width = inside.shape
    values = pixels.values[top : top + height, left : left + width][inside].astype(np.float64)
    if values.size == 0:
        return []
    told = {
        "mean": values.mean(), "standard_deviation": values.std(), "minimum": values.min(), "maximum": values.max(),
    }  # fmt: skip
    return [_told(name, value, pixels.unit) for name, value in told.items()]


def mask(shape: Geometry, rows: int, columns: int) -> tuple[int, int, NDArray[np.bool_]]:
    """(top row, left column, pixels whose centres lie inside) within the smallest box that holds the region."""
    border = outline(shape)
    if shape.type == "ellipse":
        centre, first, second = ellipse_axes(shape)
        reach = np.hypot(first, second)
        border = np.stack([centre - reach, centre + reach])
    left, top = (int(max(0, math.floor(v))) for v in border.min(axis=0))
    right = int(min(columns, math.ceil(float(border[:, 0].max()))))
    bottom = int(min(rows, math.ceil(float(border[:, 1].max()))))
    height, width = max(0, bottom - top), max(0, right - left)
    if shape.type == "ellipse":
        _, first, second = ellipse_axes(shape)
        return top, left, _inside_ellipse(ellipse_axes(shape), top, left, height, width)
    return top, left, _inside_polygon(border - (left, top), height, width)


def _inside_ellipse(
    axes: tuple[Points, Points, Points], top: int, left: int, height: int, width: int
) -> NDArray[np.bool_]:
    centre, first, second = axes
    turn = first[0] * second[1] - first[1] * second[0]
    if turn == 0:
        return np.zeros((height, width), bool)
    x = np.arange(width)[None, :] + (left + 0.5 - centre[0])
    y = np.arange(height)[:, None] + (top + 0.5 - centre[1])
    along = (x * second[1] - y * second[0]) / turn
    across = (y * first[0] - x * first[1]) / turn
    return along * along + across * across <= 1


def _inside_polygon(border: Points, height: int, width: int) -> NDArray[np.bool_]:
    """Even-odd: each edge flips all pixels of a row whose centres lie right of where it crosses the row's middle."""
    x0, y0 = border.T
    x1, y1 = np.roll(border, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(border)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    flips = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    return (np.cumsum(flips[:, :width], axis=1) & 1).astype(bool)
