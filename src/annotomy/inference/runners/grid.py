"""Grids in patient space: bring a volume into RAS order at a model's spacing, and its answer back into the volume.

Models are trained on arrays that run left to right, posterior to anterior, inferior to superior. A volume may come in any
order and obliquely; only its affine says so. Everything here is linear interpolation, so equal input gives equal output.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from annotomy.ports import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Smoothing before a coarser grid, in share of the target's voxel: close to the mean over that voxel.
_BLUR_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Grid:
    """Voxels of one size along the patient's axes. `origin_ras_mm` is the centre of voxel (0, 0, 0)."""

    origin_ras_mm: NDArray[np.float64]
    spacing_mm: float
    shape: tuple[int, int, int]

    def index_of(self, point_ras_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        return (point_ras_mm - self.origin_ras_mm) / self.spacing_mm


def affine_ras(volume: Volume) -> NDArray[np.float64]:
    """Maps (i, j, k, 1) to RAS millimetres."""
    return _LPS_TO_RAS @ volume.affine_lps


def spacing_mm(volume: Volume) -> NDArray[np.float64]:
    """Distances between voxel centres along i, j, k."""
    return np.linalg.norm(volume.affine_lps[:3, :3], axis=0)


def extent_mm(volume: Volume) -> NDArray[np.float64]:
    """Edge lengths along the patient's axes: right-left, posterior-anterior, inferior-superior."""
    sizes = np.array(volume.values.shape[::-1], np.float64)
    return np.abs(volume.affine_lps[:3, :3]) @ sizes


def grid_around(volume: Volume, target_mm: float) -> Grid:
    """The grid that covers the whole volume and begins at its first voxel centre."""
    sizes = np.array(volume.values.shape[::-1], np.float64) - 1
    corners = np.array(np.meshgrid(*[(0.0, n) for n in sizes], indexing="ij")).reshape(3, -1)
    world = (affine_ras(volume) @ np.vstack([corners, np.ones((1, corners.shape[1]))]))[:3]
    low, high = world.min(axis=1), world.max(axis=1)
    counts = np.floor((high - low) / target_mm + 1e-3).astype(int) + 1
    return Grid(low, target_mm, (int(counts[0]), int(counts[1]), int(counts[2])))


def grid_at(centre_ras_mm: NDArray[np.float64], target_mm: float, shape: tuple[int, int, int]) -> Grid:
    return Grid(centre_ras_mm - (np.array(shape) - 1) / 2 * target_mm, target_mm, shape)


def to_grid(volume: Volume, grid: Grid) -> NDArray[np.float32]:
    """The volume's values at the grid's voxels, (i, j, k). Beyond the volume: its nearest voxel."""
    values: NDArray[np.float32] = volume.values.transpose(2, 1, 0)
    ratio = grid.spacing_mm / spacing_mm(volume)
    sigma = np.where(ratio > 1.2, _BLUR_SHARE * ratio, 0.0)
    if sigma.any():
        values = np.asarray(gaussian_filter(values, sigma, mode="nearest", truncate=2.5), np.float32)
    to_world = np.diag([grid.spacing_mm] * 3 + [1.0])
    to_world[:3, 3] = grid.origin_ras_mm
    matrix = np.asarray(np.linalg.inv(affine_ras(volume)) @ to_world, np.float64)
    return _sampled(values, matrix[:3, :3], matrix[:3, 3], grid.shape, None)


def labels_in_volume(volume: Volume, grid: Grid, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The most probable class at each of the volume's voxels, uint8 in (k, j, i).

    `probabilities` is (class, i, j, k), class 0 background. Classes are interpolated one after another, each only in the
    box where it may win, so that a volume of 64 million voxels does not need one float array a class.
    """
    shape = volume.values.shape[::-1]
    found = np.zeros(shape, np.uint8)
    world_to_grid = np.diag([1 / grid.spacing_mm] * 3 + [1.0])
    world_to_grid[:3, 3] = -grid.origin_ras_mm / grid.spacing_mm
    matrix = world_to_grid @ affine_ras(volume)
    foreground = _box_in_volume(probabilities[1:].max(axis=0) > 0.05, matrix, shape)
    if foreground is None:
        return found.transpose(2, 1, 0)
    best = _interpolate(probabilities[0], matrix, foreground, cval=1.0)
    winner = np.zeros(best.shape, np.uint8)
    start = np.array([s.start for s in foreground])
    for number in range(1, len(probabilities)):
        box = _box_in_volume(probabilities[number] > 0.05, matrix, shape)
        if box is None:
            continue
        share = _interpolate(probabilities[number], matrix, box, cval=0.0)
        inner = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, start, strict=True))
        wins = share > best[inner]
        best[inner][wins] = share[wins]
        winner[inner][wins] = number
    found[foreground] = winner
    return found.transpose(2, 1, 0)


def _box_in_volume(
    mask: NDArray[np.bool_], matrix: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[slice, slice, slice] | None:
    """The volume's index box that holds all voxels of a grid mask, with one grid voxel to spare."""
    if not mask.any():
        return None
    places = np.argwhere(mask)
    corners = np.array(np.meshgrid(*np.stack([places.min(0) - 1, places.max(0) + 1], axis=1), indexing="ij"))
    back = np.linalg.inv(matrix)
    indices = back[:3, :3] @ corners.reshape(3, -1) + back[:3, 3:]
    low = np.clip(np.floor(indices.min(axis=1)).astype(int), 0, shape)
    high = np.clip(np.ceil(indices.max(axis=1)).astype(int) + 1, 0, shape)
    if (high <= low).any():
        return None
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2]))


def _interpolate(
    values: NDArray[np.float32], matrix: NDArray[np.float64], box: tuple[slice, slice, slice], cval: float
) -> NDArray[np.float32]:
    start = np.array([s.start for s in box], np.float64)
    shape = tuple(s.stop - s.start for s in box)
    return _sampled(values, matrix[:3, :3], matrix[:3, 3] + matrix[:3, :3] @ start, shape, cval)


def _sampled(
    values: NDArray[np.float32],
    turn: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, ...],
    cval: float | None,
) -> NDArray[np.float32]:
    """Linear interpolation; beyond the values `cval`, or the nearest voxel without one."""
    found = np.empty(shape, np.float32)
    affine_transform(
        values,
        turn,
        offset=offset,  # pyright: ignore[reportArgumentType]  # scipy's stub forgets that it takes a vector
        output=found,
        output_shape=shape,
        order=1,
        mode="nearest" if cval is None else "constant",
        cval=cval or 0.0,
    )
    return found
