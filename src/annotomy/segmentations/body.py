"""The binary form of masks that browsers read and send (`web/src/api/masks.ts`).

A little-endian uint32 with the length of a JSON header, the header, then for each segment its voxels as packed bits,
lowest bit first, in [k, j, i] order. The header names the byte range of each segment behind it.
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet, brick_count, unpack_bits

MEDIA_TYPE = "application/octet-stream"


class SegmentRange(msgspec.Struct, frozen=True):
    segment_number: int
    offset: int
    length: int


class Header(msgspec.Struct, frozen=True):
    shape_kji: tuple[int, int, int]
    affine_lps: list[float]
    segments: list[SegmentRange]
    version: int


def encode(masks: MaskSet, segment_numbers: Sequence[int], affine_lps: list[float], version: int) -> Iterator[bytes]:
    """The body in pieces, one brick at a time."""
    slices, rows, columns = masks.shape_kji
    length = (slices * rows * columns + 7) // 8
    ranges = [SegmentRange(number, n * length, length) for n, number in enumerate(segment_numbers)]
    header = msgspec.json.encode(Header(masks.shape_kji, affine_lps, ranges, version))
    yield struct.pack("<I", len(header)) + header
    for number in segment_numbers:
        yield from _segment_bits(masks, number)


def _segment_bits(masks: MaskSet, segment_number: int) -> Iterator[bytes]:
    _, rows, columns = masks.shape_kji
    if BRICK_SLICES * rows * columns % 8:  # never: 16 slices are whole bytes
        raise AssertionError("bricks end on whole bytes")
    for brick_index in range(brick_count(masks.shape_kji)):
        voxels = int(np.prod(masks.slab_shape(brick_index)))
        brick = masks.bricks.get((segment_number, brick_index))
        yield bytes((voxels + 7) // 8) if brick is None else unpack_bits(brick, voxels)
