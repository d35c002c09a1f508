"""Hints as voxels: strokes are filled between their points, boxes are cut out of each other."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotomy.interactive.errors import NothingPointedAt
from annotomy.interactive.schemas import Hint
from annotomy.interactive.walker_process import Box

MAX_VOXELS = 100_000
"""Of all strokes; more say nothing new."""


def rasterise(hints: list[Hint], shape_kji: tuple[int, int, int]) -> tuple[NDArray[np.int32], Box | None]:
    """(n, 4) rows of k, j, i and whether it is the object, each voxel once: what was said last of it holds. And the box.

    What lies outside of the volume is left out. Raises NothingPointedAt.
    """
    box: Box | None = None
    said: dict[tuple[int, int, int], bool] = {}
    for hint in hints:
        at = np.array(hint.at_kji, np.int64)
        if hint.kind == "box":
            box = _cut(box, at, shape_kji)
            continue
        for voxel in _line(at) if hint.kind == "stroke" else at:
            if np.all(voxel < shape_kji):
                where = (int(voxel[0]), int(voxel[1]), int(voxel[2]))
                said.pop(where, None)
                said[where] = hint.on_object
    rows = np.array([(*where, is_object) for where, is_object in said.items()][-MAX_VOXELS:], np.int32).reshape(-1, 4)
    inside = rows if box is None else rows[np.all((rows[:, :3] >= box[0]) & (rows[:, :3] < box[1]), axis=1)]
    if not np.any(inside[:, 3]):
        raise NothingPointedAt("No hint is on the object, within the volume and the box.")
    return rows, box


def _cut(box: Box | None, corners: NDArray[np.int64], shape_kji: tuple[int, int, int]) -> Box:
    lowest, behind = corners.min(axis=0), np.minimum(corners.max(axis=0) + 1, shape_kji)
    if box is not None:
        lowest, behind = np.maximum(lowest, box[0]), np.minimum(behind, box[1])
    if np.any(behind <= lowest):
        raise NothingPointedAt("The boxes have no voxel in common, or lie outside of the volume.")
    return tuple(lowest.tolist()), tuple(behind.tolist())


def _line(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels from point to point without a gap."""
    pieces = [points[:1]]
    for start, end in pairwise(points):
        steps = int(np.abs(end - start).max())
        if steps:
            share = np.arange(1, steps + 1)[:, None] / steps
            pieces.append(np.rint(start + share * (end - start)).astype(np.int64))
    return np.concatenate(pieces)
