"""Filling closed contours: which pixels lie inside, exactly.

A pixel belongs to a contour when its centre does, by the even-odd rule; a centre on the line belongs to one side only, so
that two areas with a common border share no pixel. A bridge to a hole that is walked twice (PS3.3 C.8.8.6.3) cancels out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(n, 2): column and row in pixels; the centre of the first pixel is (0, 0)."""


def fill(points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(rows, columns). Every edge turns over what lies right of it, on the rows that it crosses."""
    rows, columns = shape
    x, y = points[:, 0], points[:, 1]
    u, v = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.floor(np.minimum(y, v)) + 1, 0, rows).astype(np.intp)
    behind = np.clip(np.floor(np.maximum(y, v)) + 1, 0, rows).astype(np.intp)
    counts = np.maximum(behind - first, 0)
    edge = np.repeat(np.arange(len(x)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    at = x[edge] + (row - y[edge]) * ((u - x)[edge] / (v - y)[edge])
    column = np.clip(np.ceil(at), 0, columns).astype(np.intp)
    turns = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1)) & 1
    inside = np.bitwise_xor.accumulate(turns.astype(np.uint8).reshape(rows, columns + 1), axis=1)
    return inside[:, :columns].view(np.bool_)


def fill_slice(contours: Sequence[Points], shape: tuple[int, int], *, exclusive: bool = False) -> NDArray[np.bool_]:
    """What the contours of one structure on one slice enclose together.

    `exclusive` is CLOSEDPLANAR_XOR. Without it, a contour that lies wholly within what larger ones enclose is a hole, as
    most planning systems write holes; contours that merely touch or cross add up, and a copy of another adds nothing.
    """
    whole = np.zeros(shape, np.bool_)
    if exclusive:
        for points in contours:
            whole ^= fill(points, shape)
        return whole
    seen: list[NDArray[np.bool_]] = []
    for part in sorted((fill(points, shape) for points in contours), key=np.count_nonzero, reverse=True):
        if not part.any() or any(np.array_equal(part, other) for other in seen):
            continue
        seen.append(part)
        if np.all(whole[part]):
            whole &= ~part
        else:
            whole |= part
    return whole
