"""What is counted of a segment: voxels, volume, centroid, bounding box. Pure; added up from the counts of its bricks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import voxel_volume_mm3
from annotomy.segmentations.bricks import BRICK_SLICES, Counts

Statistics = dict[str, Any]
"""As stored and answered: plain JSON."""


def statistics_of(counts: Mapping[int, Counts], affine_lps: NDArray[np.float64]) -> Statistics:
    """`counts` by brick index. Centroid and bounding box are null for an empty segment.

    The box is told as indices (first and last voxel of each axis, inclusive) and as the LPS box of these voxels' centres.
    """
    if not counts:
        return {"voxels": 0, "volume_mm3": 0.0, "centroid_lps_mm": None, "bounding_box": None}
    table = np.array([counts[index] for index in counts], np.int64)
    above = np.array(list(counts), np.int64) * BRICK_SLICES  # slices below each brick
    voxels = int(table[:, 0].sum())
    k = float((table[:, 1] + above * table[:, 0]).sum()) / voxels
    j, i = (float(table[:, column].sum()) / voxels for column in (2, 3))
    centroid = affine_lps @ np.array([i, j, k, 1.0])
    table[:, 4] += above
    table[:, 7] += above
    first, last = table[:, 4:7].min(axis=0), table[:, 7:10].max(axis=0)
    corners = np.array(
        [[i, j, k, 1.0] for k in (first[0], last[0]) for j in (first[1], last[1]) for i in (first[2], last[2])]
    )
    places = (corners @ affine_lps.T)[:, :3]
    return {
        "voxels": voxels,
        "volume_mm3": voxels * voxel_volume_mm3(affine_lps),
        "centroid_lps_mm": [float(v) for v in centroid[:3]],
        "bounding_box": {
            "first_kji": first.tolist(),
            "last_kji": last.tolist(),
            "low_lps_mm": places.min(axis=0).tolist(),
            "high_lps_mm": places.max(axis=0).tolist(),
        },
    }
