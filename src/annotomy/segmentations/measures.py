"""What is measured of a segment beyond what its bricks count: diameter, parts, areas. Pure; runs in a process of its own."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import spacing_mm
from annotomy.segmentations.bricks import MaskSet
from annotomy.segmentations.solid import border, extent_of, places_mm, spread

FEW = 64
"""Points that are compared each with each; of more, only those on the convex hull."""


class Measures(msgspec.Struct, frozen=True):
    longest_diameter_mm: float
    """Between the centres of the two voxels that are farthest apart; 0 for one voxel and for an empty segment."""
    parts: int
    """Connected by faces, edges or corners."""
    slice_areas_mm2: dict[int, float]
    """By slice (k) that holds something."""


def measures(masks: MaskSet, segment_number: int, affine_lps: NDArray[np.float64]) -> Measures:
    from scipy import ndimage  # heavy, and only this process needs it

    extent = extent_of(masks, [segment_number])
    if extent is None:
        return Measures(0.0, 0, {})
    extent = extent.wider((1, 1, 1))
    solid = spread(masks, segment_number, extent)
    spacing = np.array(spacing_mm(affine_lps))[::-1]
    labelled: Any = ndimage.label(solid, structure=np.ones((3, 3, 3)))
    voxels = np.count_nonzero(solid, axis=(1, 2))
    areas = {extent.low[0] + int(k): float(voxels[k] * spacing[1] * spacing[2]) for k in np.flatnonzero(voxels)}
    return Measures(_diameter(places_mm(border(solid), spacing)), int(labelled[1]), areas)


def _diameter(points: NDArray[np.float64]) -> float:
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    if len(points) > FEW:
        # Flat and thin segments have no hull in space: then in the directions that they have.
        centred = points - points.mean(axis=0)
        _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
        flat = centred @ axes[lengths > 1e-6].T
        if flat.shape[1] == 1:
            points = points[[int(flat.argmin()), int(flat.argmax())]]
        else:
            try:
                points = points[ConvexHull(flat).vertices]
            except QhullError:
                points = points[ConvexHull(flat, qhull_options="QJ").vertices]
    return float(pdist(points).max()) if len(points) > 1 else 0.0
