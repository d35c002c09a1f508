"""How far two segments agree: overlap and distance of their surfaces. Pure; runs in a process of its own (apart.py).

Distances are between voxel centres in mm. The Hausdorff distance is that of the two sets of voxels, as SimpleITK counts it.
HD95 and NSD are of the borders: the voxels with an empty face neighbour; of both directions HD95 takes the larger 95th
percentile, NSD counts the share of all border voxels that lie within the tolerance of the other border.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import spacing_mm, voxel_volume_mm3
from annotomy.segmentations.bricks import MaskSet
from annotomy.segmentations.solid import Extent, border, extent_of, places_mm, spread

DEFAULT_TOLERANCE_MM = 1.0
PERCENTILE = 95
MANY = 2_000_000
"""Voxels of one set outside of the other that are asked one by one; a distance map answers for more."""


class Agreement(msgspec.Struct, frozen=True):
    """Distances are null where a side is empty; the scores are 1 where both are."""

    dice: float
    iou: float
    volume_mm3: float
    other_volume_mm3: float
    volume_difference_mm3: float
    """The one less the other."""
    hausdorff_mm: float | None
    hausdorff95_mm: float | None
    surface_dice: float | None
    tolerance_mm: float


def agreement(
    one: MaskSet, number: int, other: MaskSet, other_number: int, affine_lps: NDArray[np.float64], tolerance_mm: float
) -> Agreement:
    """Of a segment of each; both lie on the same grid."""
    volume = voxel_volume_mm3(affine_lps)
    sizes = [sum(c[0] for c in masks.counts(n).values()) for masks, n in ((one, number), (other, other_number))]
    extents = [extent_of(one, [number]), extent_of(other, [other_number])]
    hd = hd95 = nsd = None
    shared = 0
    if extents[0] is not None and extents[1] is not None:
        extent = _around(extents[0], extents[1])
        solids = spread(one, number, extent), spread(other, other_number, extent)
        shared = int(np.count_nonzero(solids[0] & solids[1]))
        hd, hd95, nsd = _distances(solids, np.array(spacing_mm(affine_lps))[::-1], tolerance_mm)
    either = sizes[0] + sizes[1] - shared
    return Agreement(
        dice=2 * shared / (sizes[0] + sizes[1]) if either else 1.0,
        iou=shared / either if either else 1.0,
        volume_mm3=sizes[0] * volume,
        other_volume_mm3=sizes[1] * volume,
        volume_difference_mm3=(sizes[0] - sizes[1]) * volume,
        hausdorff_mm=hd,
        hausdorff95_mm=hd95,
        surface_dice=nsd if either else 1.0,
        tolerance_mm=tolerance_mm,
    )


def _around(one: Extent, other: Extent) -> Extent:
    low = tuple(min(a, b) for a, b in zip(one.low, other.low, strict=True))
    high = tuple(max(a, b) for a, b in zip(one.high, other.high, strict=True))
    return Extent((low[0], low[1], low[2]), (high[0], high[1], high[2])).wider((1, 1, 1))


def _distances(
    solids: tuple[NDArray[np.bool_], NDArray[np.bool_]], spacing_kji_mm: NDArray[np.float64], tolerance_mm: float
) -> tuple[float, float, float]:
    from scipy.spatial import KDTree  # heavy, and only this process needs it

    points = [places_mm(border(solid), spacing_kji_mm) for solid in solids]
    # Balanced trees cost more to build than they save on points that lie on a grid.
    trees: list[Any] = [KDTree(p, leafsize=32, balanced_tree=False, compact_nodes=False) for p in points]
    between = [_nearest(trees[1 - side], points[side]) for side in (0, 1)]
    outside = [_farthest(solids[side], solids[1 - side], trees[1 - side], spacing_kji_mm) for side in (0, 1)]
    within = sum(int(np.count_nonzero(d <= tolerance_mm)) for d in between)
    return (
        max(outside),
        max(float(np.percentile(d, PERCENTILE)) for d in between),
        within / sum(len(d) for d in between),
    )


def _nearest(tree: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    distances, _ = tree.query(points, workers=-1)
    return distances


def _farthest(
    solid: NDArray[np.bool_], other: NDArray[np.bool_], tree: Any, spacing_kji_mm: NDArray[np.float64]
) -> float:
    """From a voxel of `solid` to the nearest of `other`, whose border is in `tree`."""
    alone = solid & ~other
    count = int(np.count_nonzero(alone))
    if count == 0:
        return 0.0
    if count <= MANY:
        return float(_nearest(tree, places_mm(alone, spacing_kji_mm)).max())
    from scipy import ndimage

    mapped: Any = ndimage.distance_transform_edt(~other, sampling=tuple(spacing_kji_mm))
    return float(mapped[alone].max())
