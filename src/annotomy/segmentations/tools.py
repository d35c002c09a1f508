"""What the server does to a segment: fill, clean, grow, smooth, interpolate, combine. Pure; runs in a process of its own.

Lengths are mm along the grid's axes, so that anisotropic voxels are no excuse. What would leave the grid is cut off.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.geometry import spacing_mm
from annotomy.segmentations.bricks import Brick, BrickKey, MaskSet
from annotomy.segmentations.solid import bricks_of, extent_of, spread

MAX_MM = 100.0
SMOOTH_REACH = 3
"""Standard deviations after which the Gaussian is cut off."""

Millimetres = Annotated[float, msgspec.Meta(gt=0, le=MAX_MM)]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class FillHoles(msgspec.Struct, frozen=True, tag="fill_holes", tag_field="tool"):
    """What the segment encloses becomes part of it."""

    by_slice: bool = False
    """Each slice for itself: also what is open along the slices."""


class KeepLargest(msgspec.Struct, frozen=True, tag="keep_largest", tag_field="tool"):
    """Only the largest part stays; parts touch by faces, edges or corners."""


class Grow(msgspec.Struct, frozen=True, tag="grow", tag_field="tool"):
    """By all voxels whose centre is at most this far from one of the segment."""

    by_mm: Millimetres


class Shrink(msgspec.Struct, frozen=True, tag="shrink", tag_field="tool"):
    """By all voxels whose centre is at most this far from one outside; the edge of the volume counts as outside."""

    by_mm: Millimetres


class Smooth(msgspec.Struct, frozen=True, tag="smooth", tag_field="tool"):
    """Where the segment, blurred by a Gaussian, is at least one half."""

    sigma_mm: Millimetres


class Interpolate(msgspec.Struct, frozen=True, tag="interpolate", tag_field="tool"):
    """Empty slices between drawn ones, by the signed distance to the outlines on both sides."""


class Combine(msgspec.Struct, frozen=True, tag="combine", tag_field="tool"):
    """With another segment, which stays as it is."""

    operation: Annotated[str, msgspec.Meta(pattern="^(union|intersection|difference|exclusive)$")]
    with_segment: Number


Tool = FillHoles | KeepLargest | Grow | Shrink | Smooth | Interpolate | Combine


def apply(tool: Tool, masks: MaskSet, segment_number: int, affine_lps: NDArray[np.float64]) -> dict[BrickKey, Brick]:
    """The bricks of the segment afterwards."""
    spacing = np.array(spacing_mm(affine_lps))[::-1]
    numbers = [segment_number, tool.with_segment] if isinstance(tool, Combine) else [segment_number]
    extent = extent_of(masks, numbers)
    if extent is None:
        return {}
    extent = extent.wider(_reach(tool, spacing))
    solid = spread(masks, segment_number, extent)
    if isinstance(tool, Combine):
        changed = _COMBINATIONS[tool.operation](solid, spread(masks, tool.with_segment, extent))
    else:
        changed = _changed(tool, solid, spacing)
    return bricks_of(changed, extent, segment_number, masks.shape_kji)


_COMBINATIONS: dict[str, Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.bool_]]] = {
    "union": lambda a, b: a | b,
    "intersection": lambda a, b: a & b,
    "difference": lambda a, b: a & ~b,
    "exclusive": lambda a, b: a ^ b,
}


def _reach(tool: Tool, spacing_kji_mm: NDArray[np.float64]) -> tuple[int, int, int]:
    """How many voxels around the segment the tool looks at."""
    length = tool.by_mm if isinstance(tool, Grow) else tool.sigma_mm * SMOOTH_REACH if isinstance(tool, Smooth) else 0.0
    k, j, i = (int(n) + 1 for n in np.ceil(length / spacing_kji_mm))
    return k, j, i


def _changed(tool: Tool, solid: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    from scipy import ndimage  # heavy, and only this process needs it

    of: Any = ndimage
    sampling = tuple(float(v) for v in spacing)
    match tool:
        case FillHoles(by_slice=True):
            return np.stack([of.binary_fill_holes(plane) for plane in solid])
        case FillHoles():
            return of.binary_fill_holes(solid)
        case KeepLargest():
            parts, count = of.label(solid, structure=np.ones((3, 3, 3)))
            sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
            sizes[0] = 0
            return parts == int(np.argmax(sizes))
        case Grow():
            return of.distance_transform_edt(~solid, sampling=sampling) <= tool.by_mm + 1e-6
        case Shrink():
            return of.distance_transform_edt(solid, sampling=sampling) > tool.by_mm + 1e-6
        case Smooth():
            sigma = tuple(float(tool.sigma_mm / v) for v in spacing)
            blurred = of.gaussian_filter(solid.astype(np.float32), sigma, mode="constant", truncate=SMOOTH_REACH)
            return blurred >= 0.5
        case Interpolate():
            return _interpolated(solid, spacing, of)
        case Combine():
            raise AssertionError("combined by the caller")


def _interpolated(solid: NDArray[np.bool_], spacing: NDArray[np.float64], of: Any) -> NDArray[np.bool_]:
    drawn = np.flatnonzero(solid.any(axis=(1, 2)))
    filled = solid.copy()
    sampling = (float(spacing[1]), float(spacing[2]))

    def signed(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
        return of.distance_transform_edt(plane, sampling=sampling) - of.distance_transform_edt(
            ~plane, sampling=sampling
        )

    for below, above in zip(drawn[:-1].tolist(), drawn[1:].tolist(), strict=True):
        if above - below < 2:
            continue
        first, last = signed(solid[below]), signed(solid[above])
        for k in range(below + 1, above):
            share = (k - below) / (above - below)
            filled[k] = (1 - share) * first + share * last > 0
    return filled
