"""Where the planes of a series lie, and whether they make one regular volume (PS3.3 C.7.6.2, C.7.6.16.2).

Order and spacing come from ImagePositionPatient alone: InstanceNumber and SliceThickness say neither. Lengths are
millimetres in LPS. A volume's slices ascend along the normal (row direction x column direction), so that the affine is
right-handed for every series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between planes of one volume: headers round to 4 or more digits."""
PIXEL_SPACING_TOLERANCE = 1e-3
"""Relative."""
POSITION_TOLERANCE_MM = 0.1
"""How far a plane may lie off the regular grid. Scanners round positions, some to a tenth of a millimetre."""
SPACING_TOLERANCE = 0.2
"""The same as a share of the spacing, for finely spaced series: the smaller of both counts."""
SAME_PLACE_MM = 1e-3


class GeometryError(ValueError):
    """The planes make no regular volume. `slug` is one of the codes of an ingest report; the text names no value."""

    def __init__(self, slug: str, text: str) -> None:
        super().__init__(text)
        self.slug = slug


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice: a single-frame instance, or one frame of a multi-frame instance."""

    position_lps_mm: tuple[float, float, float]
    """Centre of the first pixel."""
    orientation: tuple[float, ...]
    """Direction of a row (of growing column index), then of a column."""
    row_spacing_mm: float
    column_spacing_mm: float
    rows: int
    columns: int
    thickness_mm: float | None
    """Used only for a volume of a single plane, where no positions tell a spacing."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`order[k]` is the index of the plane that is slice k."""

    order: tuple[int, ...]
    affine_lps: NDArray[np.float64]
    shape_kji: tuple[int, int, int]


def planes_of(dataset: Dataset) -> Iterator[Plane]:
    """The planes of one instance's header, in frame order. Raises GeometryError when one has no place in the patient."""
    if "PerFrameFunctionalGroupsSequence" in dataset:
        shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            yield _plane(
                dataset,
                _group(frame, shared[0], "PlanePositionSequence"),
                _group(frame, shared[0], "PlaneOrientationSequence"),
                _group(frame, shared[0], "PixelMeasuresSequence"),
            )
    elif int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise GeometryError("not-a-volume", "The frames of the instance have no place in the patient.")
    else:
        yield _plane(dataset, dataset, dataset, dataset)


def functional_group(dataset: Dataset, frame_index: int, name: str) -> Dataset | None:
    """The frame's own item of this functional group, else the shared one (PS3.3 C.7.6.16)."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return _group(dataset.PerFrameFunctionalGroupsSequence[frame_index], shared[0], name)


def _group(frame: Dataset, shared: Dataset, name: str) -> Dataset | None:
    items = frame.get(name) or shared.get(name)
    return items[0] if items else None


def _plane(dataset: Dataset, position: Dataset | None, orientation: Dataset | None, measures: Dataset | None) -> Plane:
    where = _numbers(position, "ImagePositionPatient", 3)
    directions = _numbers(orientation, "ImageOrientationPatient", 6)
    spacing = _numbers(measures, "PixelSpacing", 2)
    if where is None or directions is None or spacing is None:
        raise GeometryError("not-a-volume", "An image of the series has no position, orientation or pixel spacing.")
    if min(spacing) <= 0:
        raise GeometryError("not-a-volume", "An image of the series has a pixel spacing that is not above 0.")
    row, column = np.array(directions[:3]), np.array(directions[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(float(row @ column)) > 0.01:
        raise GeometryError("not-a-volume", "The directions of an image are not two perpendicular unit vectors.")
    return Plane(
        (where[0], where[1], where[2]),
        tuple(directions),
        spacing[0],
        spacing[1],
        int(dataset.get("Rows", 0) or 0),
        int(dataset.get("Columns", 0) or 0),
        _thickness(measures),
    )


def _thickness(measures: Dataset | None) -> float | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = _numbers(measures, keyword, 1)
        if value is not None and value[0] > 0:
            return value[0]
    return None


def _numbers(dataset: Dataset | None, keyword: str, count: int) -> list[float] | None:
    value: Any = None if dataset is None else dataset.get(keyword)
    if value is None or value == "":
        return None
    try:
        numbers = [float(v) for v in ([value] if count == 1 else value)]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and bool(np.all(np.isfinite(numbers))) else None


def arrange(planes: Sequence[Plane]) -> Arrangement:
    """Slices in order and the affine of their voxel centres. Raises GeometryError that says what is irregular."""
    if not planes:
        raise GeometryError("not-a-volume", "The series holds no image.")
    first = planes[0]
    _require_alike(planes)
    row, column = np.array(first.orientation[:3], np.float64), np.array(first.orientation[3:], np.float64)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = np.array([plane.position_lps_mm for plane in planes], np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    step = _step(positions, along, normal, first.thickness_mm)
    affine = np.eye(4)
    affine[:3, 0] = row / np.linalg.norm(row) * first.column_spacing_mm
    affine[:3, 1] = column / np.linalg.norm(column) * first.row_spacing_mm
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return Arrangement(tuple(int(n) for n in order), affine, (len(planes), first.rows, first.columns))


def _require_alike(planes: Sequence[Plane]) -> None:
    first = planes[0]
    directions = np.array([plane.orientation for plane in planes])
    if np.max(np.abs(directions - directions[0])) > DIRECTION_TOLERANCE:
        raise GeometryError("mixed-orientation", "The images of the series lie in different orientations.")
    if len({(plane.rows, plane.columns) for plane in planes}) > 1 or not first.rows * first.columns:
        raise GeometryError("not-a-volume", "The images of the series differ in their number of rows or columns.")
    spacings = np.array([(plane.row_spacing_mm, plane.column_spacing_mm) for plane in planes])
    if np.max(np.abs(spacings / spacings[0] - 1)) > PIXEL_SPACING_TOLERANCE:
        raise GeometryError("irregular-spacing", "The images of the series differ in their pixel spacing.")


def _step(
    positions: NDArray[np.float64], along: NDArray[np.float64], normal: NDArray[np.float64], thickness_mm: float | None
) -> NDArray[np.float64]:
    """The vector from one slice to the next."""
    if len(along) == 1:
        if thickness_mm is None:
            raise GeometryError("not-a-volume", "A single image without a thickness makes no volume.")
        return normal * thickness_mm
    gaps = np.diff(along)
    if np.min(gaps) < SAME_PLACE_MM:
        raise GeometryError("duplicate-position", "Several images of the series lie at the same place.")
    typical = float(np.median(gaps))
    tolerance = min(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * typical)
    count = len(along) - 1
    off_grid = along - np.linspace(along[0], along[-1], count + 1)
    if np.max(np.abs(off_grid)) > tolerance:
        whole = np.rint(gaps / typical)
        # Rounding of two positions may add up in one gap.
        if np.all(whole >= 1) and np.max(np.abs(gaps - whole * typical)) <= 2 * tolerance:
            missing = int(np.sum(whole)) - count
            raise GeometryError("missing-slices", f"{missing} slices of the series are missing between the others.")
        raise GeometryError("irregular-spacing", "The images of the series are not equally spaced.")
    inside = positions - positions[0] - np.outer(along - along[0], normal)
    drift = inside[-1] * ((along - along[0]) / (along[-1] - along[0]))[:, None]
    if np.max(np.linalg.norm(inside - drift, axis=1)) > POSITION_TOLERANCE_MM:
        raise GeometryError("not-a-volume", "The images of the series are shifted against each other.")
    if np.linalg.norm(inside[-1]) > max(POSITION_TOLERANCE_MM, DIRECTION_TOLERANCE * float(along[-1] - along[0])):
        raise GeometryError("gantry-tilt", "The images are sheared against each other, as by a tilted gantry.")
    return normal * (along[-1] - along[0]) / count


def voxel_volume_mm3(affine_lps: NDArray[np.float64]) -> float:
    return abs(float(np.linalg.det(affine_lps[:3, :3])))


def spacing_mm(affine_lps: NDArray[np.float64]) -> tuple[float, float, float]:
    """Between columns (i), rows (j) and slices (k)."""
    i, j, k = (float(v) for v in np.linalg.norm(affine_lps[:3, :3], axis=0))
    return i, j, k
