"""What is counted of a segment: voxels, volume, centroid, bounding box. Pure; from bricks, one at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import voxel_volume_mm3
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet

Statistics = dict[str, Any]
"""As stored and answered: plain JSON."""


def statistics_of(masks: MaskSet, segment_number: int, affine_lps: NDArray[np.float64]) -> Statistics:
    """`centroid_lps_mm` and the bounding box are null for an empty segment.

    The box is told as indices (first and last voxel of each axis, inclusive) and as the LPS box of these voxels' centres.
    """
    counts = [np.zeros(length, np.int64) for length in masks.shape_kji]
    for brick_index, slab in masks.slabs(segment_number):
        counts[0][brick_index * BRICK_SLICES :][: len(slab)] += np.count_nonzero(slab, axis=(1, 2))
        flat = np.count_nonzero(slab, axis=0)
        counts[1] += flat.sum(axis=1)
        counts[2] += flat.sum(axis=0)
    voxels = int(counts[0].sum())
    volume = voxels * voxel_volume_mm3(affine_lps)
    if voxels == 0:
        return {"voxels": 0, "volume_mm3": 0.0, "centroid_lps_mm": None, "bounding_box": None}
    k, j, i = (float(np.arange(len(count)) @ count) / voxels for count in counts)
    centroid = affine_lps @ np.array([i, j, k, 1.0])
    ranges = [np.flatnonzero(count)[[0, -1]] for count in counts]
    corners = np.array([[i, j, k, 1.0] for k in ranges[0] for j in ranges[1] for i in ranges[2]]) @ affine_lps.T
    return {
        "voxels": voxels,
        "volume_mm3": volume,
        "centroid_lps_mm": [float(v) for v in centroid[:3]],
        "bounding_box": {
            "first_kji": [int(r[0]) for r in ranges],
            "last_kji": [int(r[1]) for r in ranges],
            "low_lps_mm": [float(v) for v in corners[:, :3].min(axis=0)],
            "high_lps_mm": [float(v) for v in corners[:, :3].max(axis=0)],
        },
    }
