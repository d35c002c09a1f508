"""One segment spread out, as small as it can be: the box that holds it and a border around, and where that box lies."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotomy.segmentations.bricks import BRICK_SLICES, Brick, BrickKey, MaskSet, boxed, brick_count, pack

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """From `low` up to, not including, `high`, as (k, j, i) of the grid; may reach beyond it, where nothing is."""

    low: Triple
    high: Triple

    @property
    def shape(self) -> Triple:
        k, j, i = (b - a for a, b in zip(self.low, self.high, strict=True))
        return k, j, i

    def wider(self, by: Triple) -> "Extent":
        low = tuple(a - n for a, n in zip(self.low, by, strict=True))
        high = tuple(b + n for b, n in zip(self.high, by, strict=True))
        return Extent((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def extent_of(masks: MaskSet, segment_numbers: Iterable[int]) -> Extent | None:
    """The box of these segments; None when they are empty."""
    numbers = set(segment_numbers)
    rows = [
        (c[4] + index * BRICK_SLICES, c[5], c[6], c[7] + index * BRICK_SLICES, c[8], c[9])
        for (number, index), brick in masks.bricks.items()
        if number in numbers and (c := brick.counts)
    ]
    if not rows:
        return None
    low, high = np.array(rows)[:, :3].min(axis=0).tolist(), (np.array(rows)[:, 3:].max(axis=0) + 1).tolist()
    return Extent((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def spread(masks: MaskSet, segment_number: int, extent: Extent) -> NDArray[np.bool_]:
    """The segment within `extent`, which has to hold all of it."""
    solid = np.zeros(extent.shape, np.bool_)
    for index in range(brick_count(masks.shape_kji)):
        brick = masks.bricks.get((segment_number, index))
        if brick is None:
            continue
        box, mask = boxed(brick, masks.slab_shape(index))
        starts = (index * BRICK_SLICES - extent.low[0], -extent.low[1], -extent.low[2])
        solid[tuple(slice(b.start + s, b.stop + s) for b, s in zip(box, starts, strict=True))] = mask
    return solid


def bricks_of(
    solid: NDArray[np.bool_], extent: Extent, segment_number: int, shape_kji: Triple
) -> dict[BrickKey, Brick]:
    """The other way round; what lies beyond the grid is cut off."""
    grid, bricks = MaskSet(shape_kji, {}), dict[BrickKey, Brick]()
    inside = [
        slice(max(0, -a), n - max(0, b - end))
        for a, b, n, end in zip(extent.low, extent.high, solid.shape, shape_kji, strict=True)
    ]
    part = solid[tuple(inside)]
    k0, j0, i0 = (max(0, a) for a in extent.low)
    for index in range(k0 // BRICK_SLICES, brick_count(shape_kji)):
        first = max(k0, index * BRICK_SLICES)
        own = part[first - k0 : (index + 1) * BRICK_SLICES - k0]
        if not own.any():
            continue
        slab = np.zeros(grid.slab_shape(index), np.bool_)
        at = first - index * BRICK_SLICES
        slab[at : at + len(own), j0 : j0 + own.shape[1], i0 : i0 + own.shape[2]] = own
        brick = pack(slab)
        assert brick is not None, "a slab with a voxel makes a brick"
        bricks[segment_number, index] = brick
    return bricks


def border(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels with an empty face neighbour. `solid` has an empty layer around it."""
    inner = solid[1:-1, 1:-1, 1:-1].copy()
    inner &= solid[2:, 1:-1, 1:-1]
    inner &= solid[:-2, 1:-1, 1:-1]
    inner &= solid[1:-1, 2:, 1:-1]
    inner &= solid[1:-1, :-2, 1:-1]
    inner &= solid[1:-1, 1:-1, 2:]
    inner &= solid[1:-1, 1:-1, :-2]
    edge = solid.copy()
    edge[1:-1, 1:-1, 1:-1] &= ~inner
    return edge


def places_mm(mask: NDArray[np.bool_], spacing_kji_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) of the voxels' centres along the grid's own axes."""
    return np.column_stack(np.unravel_index(np.flatnonzero(mask), mask.shape)) * spacing_kji_mm
