"""The random walker on the region around what somebody pointed at (Grady 2006, doi:10.1109/TPAMI.2006.233).

Each voxel gets the probability that a walker from it meets a hint of the object before one of the background; walkers
seldom cross an edge of intensity. That is a linear system over the grid. Here it is solved by conjugate gradients
whose matrix is never built: six neighbours are six shifted views of an array, which for these sizes costs a tenth of a
sparse matrix. The region is the hints' own box and a margin; where it is large it is solved on a coarser grid.

Pure, deterministic, and needs scipy: runs in the child process of `interactive/process.py` alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MARGIN_MM = 12.0
POINT_MM = 2.0
"""What is said of a point holds around it."""
"""What is further from every hint is background."""
MAX_NODES = 120_000
"""Cells that are solved for: well under half a second on one core."""
EDGE = 20.0
"""Grady's beta, for intensities in units of their spread in the region: an edge of half a spread is 2000 times harder to cross."""
PRIOR = 0.01
"""How much intensity alone says, against 6 neighbours at 1, where a box is all that is known of the background. Elsewhere
nothing: neighbouring organs look alike, and hints know better."""
ALIKE = 0.5
"""What passes for alike, in units of the region's spread."""
ANYTHING = 0.1
LEAST = 1e-6
"""A walker can always leave, so that the system has one solution."""
WINDOW = 2.0
"""What lies further from the object's median than this many widths of it is all alike: metal, air, another organ."""
TOLERANCE = 1e-2
MOST_STEPS = 400

Shape = tuple[int, int, int]
Box = tuple[Shape, Shape]
"""First voxel and the one behind the last, as [k, j, i]."""


@dataclass(frozen=True, slots=True)
class Hints:
    """Voxels that were pointed at: (n, 3) as [k, j, i], and whether each belongs to the object."""

    at: NDArray[np.int64]
    is_object: NDArray[np.bool_]
    box: Box | None = None
    """The object lies within it; its border is background."""


def segment(
    values: NDArray[np.float32], spacing_kji: tuple[float, float, float], hints: Hints
) -> tuple[Box, NDArray[np.bool_]]:
    """The region and the mask in it. `hints` name at least one voxel of the object, all within the volume; spacing in mm."""
    box = _region(values.shape, spacing_kji, hints)
    at, is_object = _within(hints, box)
    region = values[_slices(box)]
    factors = _coarseness(region.shape, spacing_kji)
    grid, spacing = _coarser(region, factors), np.array(spacing_kji, np.float64) * factors.astype(np.float64)
    known = np.full(grid.shape, np.nan, np.float32)
    for value, cells in ((0, at[~is_object] // factors), (1, at[is_object] // factors)):
        known[tuple(_around(cells, grid.shape, spacing).T)] = value
    for value, cells in ((0, at[~is_object] // factors), (1, at[is_object] // factors)):
        known[tuple(cells.T)] = value  # a point itself is what was said of it, whatever was said beside it
    scaled = _scaled(grid, region[tuple(at[is_object].T)])
    alike = None
    if hints.box is not None:
        if is_object.all():
            alike = _alike(scaled, known)
        _close(known, at[is_object] // factors)
    likely = _solve(_conductances(scaled, spacing), known, alike)
    if factors.max() > 1:
        likely = ndimage.zoom(likely, factors, order=1, grid_mode=True, mode="nearest")
        likely = likely[tuple(slice(0, length) for length in region.shape)]
    mask = np.asarray(likely > 0.5)
    mask[tuple(at[~is_object].T)] = False
    mask[tuple(at[is_object].T)] = True
    return box, _touched(mask, at[is_object])


def _region(shape: tuple[int, ...], spacing_kji: tuple[float, float, float], hints: Hints) -> Box:
    if hints.box is not None:
        lowest, highest = np.array(hints.box[0]), np.array(hints.box[1])
    else:
        margin = np.ceil(MARGIN_MM / np.array(spacing_kji)).astype(np.int64)
        lowest, highest = hints.at.min(axis=0) - margin, hints.at.max(axis=0) + 1 + margin
    lowest, highest = np.maximum(lowest, 0), np.minimum(highest, shape)
    return _shape(lowest), _shape(highest)


def _within(hints: Hints, box: Box) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The hints of the region, from its corner. What was said of voxels outside of it is true anyway."""
    inside = np.all((hints.at >= box[0]) & (hints.at < box[1]), axis=1)
    return hints.at[inside] - np.array(box[0]), hints.is_object[inside]


def _coarseness(shape: tuple[int, ...], spacing_kji: tuple[float, float, float]) -> NDArray[np.int64]:
    """Voxels that become one cell, along each axis: the finest axis first, so that cells become as cubes."""
    factors = np.ones(3, np.int64)
    while np.prod(-(-np.array(shape) // factors)) > MAX_NODES:
        finest = np.where(factors < np.array(shape), np.array(spacing_kji) * factors, np.inf)
        factors[np.argmin(finest)] += 1
    return factors


def _coarser(region: NDArray[np.float32], factors: NDArray[np.int64]) -> NDArray[np.float32]:
    if factors.max() == 1:
        return region.astype(np.float32)
    padded = np.pad(
        region, [(0, int(-length % by)) for length, by in zip(region.shape, factors, strict=True)], mode="edge"
    )
    (a, b, c), (x, y, z) = np.array(padded.shape) // factors, factors
    return padded.reshape(a, x, b, y, c, z).mean(axis=(1, 3, 5), dtype=np.float32)


def _around(cells: NDArray[np.int64], shape: tuple[int, ...], spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cells within POINT_MM: one voxel of a noisy volume, held alone, would hold nothing else."""
    reach = np.floor(POINT_MM / spacing).astype(np.int64)
    offsets = np.argwhere(np.ones(2 * reach + 1, np.bool_)) - reach
    offsets = offsets[np.sum((offsets * spacing) ** 2, axis=1) <= POINT_MM**2]
    near = (cells[:, None] + offsets[None]).reshape(-1, 3)
    return near[np.all((near >= 0) & (near < shape), axis=1)]


def _close(known: NDArray[np.float32], cells: NDArray[np.int64]) -> None:
    """The faces of a box that was drawn are background, but for what was pointed at."""
    for axis, length in enumerate(known.shape):
        if length > 2:
            np.moveaxis(known, axis, 0)[[0, -1]] = 0
    known[tuple(cells.T)] = 1


def _scaled(grid: NDArray[np.float32], of_object: NDArray[np.float32]) -> NDArray[np.float32]:
    """In units of the region's spread, with what is far from the object's intensities cut off: contrast is spent on its border."""
    low, middle, high = np.percentile(of_object, (5, 50, 95))
    width = max(float(high - low), 1e-6)
    if len(of_object) < 3:  # too few to know the object's own spread
        width = max(width, float(np.std(grid)) / 2, 1e-6)
    cut = np.clip(grid, middle - WINDOW * width, middle + WINDOW * width)
    return ((cut - middle) / max(float(np.std(cut)), 1e-6)).astype(np.float32)


def _alike(scaled: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each cell looks like what was pointed at, rather than like anything: 0 to 1."""
    pointed_at = np.quantile(scaled[known == 1], np.linspace(0.05, 0.95, 9))
    nearness = np.mean([np.exp(-(((scaled - value) / ALIKE) ** 2) / 2) for value in pointed_at], axis=0)
    return np.asarray(nearness / (nearness + ANYTHING), np.float32)


def _conductances(grid: NDArray[np.float32], spacing: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Between each cell and the next along each axis; a step across thick slices says less about an edge."""
    steps: list[NDArray[np.float32]] = []
    for axis in range(3):
        across = np.diff(grid, axis=axis) / np.float32(spacing[axis] / spacing.min())
        steps.append(np.exp(-EDGE * across * across) + np.float32(LEAST))
    return steps


def _solve(
    conductances: list[NDArray[np.float32]], known: NDArray[np.float32], alike: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """The probability of each cell: Dirichlet problem on the grid, by conjugate gradients with Jacobi's preconditioner.

    Each cell is drawn a little to `alike`, where it is given (Grady 2005, doi:10.1109/CVPR.2005.239).
    """
    fixed = ~np.isnan(known)
    start = np.where(fixed, known, np.float32(0)).astype(np.float64)
    weights = [one.astype(np.float64) for one in conductances]
    degree = np.zeros(known.shape)
    for axis, weight in enumerate(weights):
        degree[_but_last(axis)] += weight
        degree[_but_first(axis)] += weight
    degree += 0 if alike is None else PRIOR
    free, easing = ~fixed, 1 / degree

    def flow(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The graph's Laplacian times x, of the cells that are not known."""
        out = degree * x
        for axis, weight in enumerate(weights):
            out[_but_last(axis)] -= weight * x[_but_first(axis)]
            out[_but_first(axis)] -= weight * x[_but_last(axis)]
        out *= free
        return out

    x = start
    residual = -flow(x) if alike is None else PRIOR * alike * free - flow(x)
    eased = easing * residual
    direction = eased.copy()
    energy = float(np.vdot(residual, eased))
    goal = energy * TOLERANCE * TOLERANCE
    for _ in range(MOST_STEPS):
        if energy <= goal:
            break
        along = flow(direction)
        step = energy / float(np.vdot(direction, along))
        x += step * direction
        residual -= step * along
        eased = easing * residual
        before, energy = energy, float(np.vdot(residual, eased))
        direction *= energy / before
        direction += eased
    return x.astype(np.float32)


def _touched(mask: NDArray[np.bool_], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The parts that somebody pointed at: a similar organ elsewhere was not meant."""
    parts = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=parts)
    wanted = np.unique(parts[tuple(at.T)])
    return np.isin(parts, wanted[wanted > 0])


def _but_last(axis: int) -> tuple[slice, ...]:
    return tuple(slice(None, -1) if n == axis else slice(None) for n in range(3))


def _but_first(axis: int) -> tuple[slice, ...]:
    return tuple(slice(1, None) if n == axis else slice(None) for n in range(3))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in zip(*box, strict=True))


def _shape(of: NDArray[np.int64]) -> Shape:
    return int(of[0]), int(of[1]), int(of[2])
