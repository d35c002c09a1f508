"""Masks of a file put on the grid of a series, voxel for voxel: turned and shifted by whole voxels, never resampled.

A file may order or mirror its axes otherwise and may cover a part of the series. What does not fall on the series'
voxels within the tolerance is refused, and so is a voxel that would fall outside.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import Plane
from annotomy.segmentations.bricks import BRICK_SLICES, Brick, BrickKey, MaskSet, pack
from annotomy.segmentations.errors import MaskMismatch

IN_PLANE_TOLERANCE = 0.1
"""Voxels. Headers and NIfTI's single precision stay far below; half a voxel would be another grid."""
SLICE_TOLERANCE = 0.3
"""Slices. Positions that a scanner rounded lie off the even grid by up to a fifth (dicom/geometry.py)."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Lattice:
    """How voxel indices (i, j, k) of a file become those of the series: `turn` (a signed permutation) @ index + `shift`."""

    turn: NDArray[np.intp]
    shift: NDArray[np.intp]


def match(target_affine: NDArray[np.float64], affine: NDArray[np.float64], shape_ijk: tuple[int, int, int]) -> Lattice:
    """Raises MaskMismatch that names what differs."""
    exact = np.linalg.solve(target_affine, affine)
    turn = np.rint(exact[:3, :3])
    if not (np.all(np.abs(turn).sum(axis=0) == 1) and np.all(np.abs(turn).sum(axis=1) == 1)):
        raise MaskMismatch(_difference(target_affine, affine))
    shift = np.rint(exact[:3, 3])
    corners = np.array(
        [[i, j, k] for i in (0, shape_ijk[0] - 1) for j in (0, shape_ijk[1] - 1) for k in (0, shape_ijk[2] - 1)]
    )
    off = np.max(np.abs(corners @ (exact[:3, :3] - turn).T + exact[:3, 3] - shift), axis=0)
    if np.any(off > (IN_PLANE_TOLERANCE, IN_PLANE_TOLERANCE, SLICE_TOLERANCE)):
        raise MaskMismatch(_difference(target_affine, affine))
    return Lattice(turn.astype(np.intp), shift.astype(np.intp))


def _difference(target_affine: NDArray[np.float64], affine: NDArray[np.float64]) -> str:
    """Which of three things it is, the plainest first."""
    lengths, own = (np.linalg.norm(a[:3, :3], axis=0) for a in (target_affine, affine))
    cosines = np.abs((target_affine[:3, :3] / lengths).T @ (affine[:3, :3] / np.maximum(own, 1e-9)))
    if np.max(1 - np.max(cosines, axis=0)) > _SAME_DIRECTION:
        return "The orientation differs: the axes of the masks are not those of the series."
    if np.max(np.abs(own / lengths[np.argmax(cosines, axis=0)] - 1)) > _SAME_SPACING:
        return "The spacing differs: the voxels of the masks have another size than those of the series."
    return "The position differs: the masks lie between the voxels of the series."


_SAME_DIRECTION = 1e-5
"""1 - cosine, for naming a difference only: a quarter of a degree."""
_SAME_SPACING = 1e-3


def on_grid(labels: NDArray[Any], lattice: Lattice, shape_kji: Shape) -> NDArray[Any]:
    """A label map (k, j, i) of a file on the grid of the series. Raises MaskMismatch when a voxel falls outside."""
    axes = [int(np.flatnonzero(row)[0]) for row in lattice.turn]  # target axis <- the file's axis
    turned = labels.transpose(2, 1, 0).transpose(axes)
    start = np.empty(3, np.intp)
    for target, own in enumerate(axes):
        if lattice.turn[target, own] < 0:
            turned = np.flip(turned, target)
            start[target] = lattice.shift[target] - (turned.shape[target] - 1)
        else:
            start[target] = lattice.shift[target]
    placed = np.zeros(shape_kji, labels.dtype)
    view = placed.transpose(2, 1, 0)
    low = np.clip(start, 0, view.shape)
    high = np.clip(start + turned.shape, 0, view.shape)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, np.maximum(low, high), strict=True))
    inside = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, np.maximum(low, high), start, strict=True))
    view[window] = turned[inside]
    if np.count_nonzero(placed) != np.count_nonzero(labels):
        raise MaskMismatch("A part of the masks lies outside the series.")
    return placed


@dataclass(frozen=True, slots=True)
class Grid:
    """The series' voxels, onto which single planes are put."""

    shape_kji: Shape
    affine_lps: NDArray[np.float64]

    def slice_of(self, plane: Plane, shape: tuple[int, ...]) -> int | Lattice:
        """The slice that the plane is as a whole, else how its pixels become voxels. Raises MaskMismatch."""
        row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
        normal = np.cross(row, column)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = row * plane.column_spacing_mm, column * plane.row_spacing_mm
        affine[:3, 2] = normal * np.abs(normal @ self.affine_lps[:3, :3]).max()
        affine[:3, 3] = plane.position_lps_mm
        lattice = match(self.affine_lps, affine, (shape[1], shape[0], 1))
        straight = np.array_equal(lattice.turn[:, :2], [[1, 0], [0, 1], [0, 0]]) and not lattice.shift[:2].any()
        whole = straight and shape == self.shape_kji[1:] and 0 <= lattice.shift[2] < self.shape_kji[0]
        return int(lattice.shift[2]) if whole else lattice

    def voxels(self, lattice: Lattice, pixels: NDArray[Any]) -> tuple[NDArray[np.intp], ...]:
        """(k, j, i) of the pixels that are not 0, in the order of np.nonzero. Raises MaskMismatch for one outside."""
        j, i = np.nonzero(pixels)
        places = np.stack([i, j, np.zeros_like(i)], axis=1) @ lattice.turn.T + lattice.shift
        if np.any(places < 0) or np.any(places >= self.shape_kji[::-1]):
            raise MaskMismatch("A part of the masks lies outside the series.")
        return places[:, 2], places[:, 1], places[:, 0]


class Painter:
    """Collects the slices of one segment and packs them; only bricks that hold something take memory."""

    def __init__(self, grid: Grid, segment_number: int) -> None:
        self._grid = grid
        self._number = segment_number
        self._empty = MaskSet(grid.shape_kji, {})
        self._open: dict[int, NDArray[np.bool_]] = {}

    def paint(self, place: int | Lattice, pixels: NDArray[np.bool_]) -> None:
        """Adds to what is there. Raises MaskMismatch."""
        if not pixels.any():
            return
        if isinstance(place, int):
            self._slice(place)[pixels] = True
            return
        k, j, i = self._grid.voxels(place, pixels)
        for one in np.unique(k):
            self._slice(int(one))[j[k == one], i[k == one]] = True

    def bricks(self) -> dict[BrickKey, Brick]:
        packed = {(self._number, index): pack(slab) for index, slab in self._open.items()}
        return {key: brick for key, brick in packed.items() if brick is not None}

    def _slice(self, k: int) -> NDArray[np.bool_]:
        index = k // BRICK_SLICES
        if index not in self._open:
            self._open[index] = np.zeros(self._empty.slab_shape(index), np.bool_)
        return self._open[index][k % BRICK_SLICES]
