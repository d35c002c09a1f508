"""The binary form of masks that browsers read and send (`web/src/api/masks.ts`).

A little-endian uint32 with the length of a JSON header, the header, then for each segment its voxels as packed bits,
lowest bit first, in [k, j, i] order. The header names the byte range of each segment behind it. What is sent to save an
edit may name `bricks` instead: 16 slices of one segment each (bricks.py).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from annotomy.errors import BadRequest
from annotomy.segmentations.bricks import BRICK_SLICES, Brick, BrickKey, MaskSet, brick_count, pack_bits, unpack_bits
from annotomy.segmentations.errors import MaskMismatch
from annotomy.segmentations.schemas import DescribedSegment

MEDIA_TYPE = "application/octet-stream"
MAX_HEADER_BYTES = 4 << 20
"""Ranges of 1024 segments with 64 bricks each."""


class SegmentRange(msgspec.Struct, frozen=True):
    segment_number: int
    offset: int
    length: int


class Header(msgspec.Struct, frozen=True):
    shape_kji: tuple[int, int, int]
    affine_lps: list[float]
    segments: list[SegmentRange]
    version: int
    first_slice: int = 0
    """Slice k of the body is slice `first_slice` + k of the segmentation: of a part, `shape_kji` and `affine_lps` are its own."""


class BrickRange(msgspec.Struct, frozen=True):
    segment_number: int
    brick_index: int
    offset: int
    length: int


class EditHeader(msgspec.Struct, frozen=True):
    """What changed, against the version that If-Match names; what is not named stays as it is."""

    shape_kji: tuple[int, int, int]
    affine_lps: list[float] | None = None
    """Not read: the grid of a segmentation never changes. Taken so that a read body can be sent back."""
    segments: list[SegmentRange] = []
    """Whole masks."""
    bricks: list[BrickRange] = []
    """16 slices of one segment each; all bits 0 empties them."""
    describe: list[DescribedSegment] | None = None
    """All segments of the new version. One that is left out is removed, a new one begins empty; null: as before."""
    why: Annotated[str, msgspec.Meta(max_length=1000)] = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """`changed` holds None for a brick without a voxel."""

    changed: dict[BrickKey, Brick | None]
    describe: Sequence[DescribedSegment] | None
    why: str


def decode(body: bytes, shape_kji: tuple[int, int, int]) -> Edit:
    """What a client saves. Raises BadRequest, or MaskMismatch for another grid."""
    header, payload = _split(body)
    if header.shape_kji != shape_kji:
        raise MaskMismatch("The masks have another number of slices, rows or columns than the segmentation.")
    changed: dict[BrickKey, Brick | None] = {}
    grid = MaskSet(shape_kji, {})
    slices, rows, columns = shape_kji
    for segment in header.segments:
        bits = _range(payload, segment, slices * rows * columns)
        step = BRICK_SLICES * rows * columns // 8
        for index in range(brick_count(shape_kji)):
            brick = pack_bits(bits[index * step : (index + 1) * step], grid.slab_shape(index))
            changed[segment.segment_number, index] = brick
    for one in header.bricks:
        if not 0 <= one.brick_index < brick_count(shape_kji):
            raise BadRequest("The body names a brick that the segmentation does not have.")
        shape = grid.slab_shape(one.brick_index)
        bits = _range(payload, one, shape[0] * shape[1] * shape[2])
        changed[one.segment_number, one.brick_index] = pack_bits(bits, shape)
    return Edit(changed, header.describe, header.why)


def _split(body: bytes) -> tuple[EditHeader, memoryview]:
    try:
        (length,) = struct.unpack_from("<I", body)
        if length > MAX_HEADER_BYTES or 4 + length > len(body):
            raise BadRequest("The body is shorter than its header says, or its header is too long.")
        return msgspec.json.decode(body[4 : 4 + length], type=EditHeader), memoryview(body)[4 + length :]
    except (struct.error, msgspec.MsgspecError) as error:
        raise BadRequest("The body does not begin with the length of a JSON header and the header.") from error


def _range(payload: memoryview, told: SegmentRange | BrickRange, voxels: int) -> bytes:
    if told.length != (voxels + 7) // 8 or told.offset < 0 or told.offset + told.length > len(payload):
        raise BadRequest("A byte range of the body does not hold as many bits as there are voxels.")
    bits = bytes(payload[told.offset : told.offset + told.length])
    if voxels % 8 and bits[-1] >> voxels % 8:
        raise BadRequest("Bits behind the last voxel are not 0.")
    return bits


def encode(masks: MaskSet, segment_numbers: Sequence[int], affine_lps: list[float], version: int) -> Iterator[bytes]:
    """The body in pieces, one brick at a time."""
    slices, rows, columns = masks.shape_kji
    length = (slices * rows * columns + 7) // 8
    ranges = [SegmentRange(number, n * length, length) for n, number in enumerate(segment_numbers)]
    header = msgspec.json.encode(Header(masks.shape_kji, affine_lps, ranges, version))
    yield struct.pack("<I", len(header)) + header
    for number in segment_numbers:
        yield from _segment_bits(masks, number)


def encode_slices(
    masks: MaskSet, segment_numbers: Sequence[int], affine_lps: list[float], version: int, first: int, last: int
) -> Iterator[bytes]:
    """The same body of the slices from `first` to `last` alone."""
    _, rows, columns = masks.shape_kji
    shape = (last - first + 1, rows, columns)
    length = (shape[0] * rows * columns + 7) // 8
    affine = np.array(affine_lps).reshape(4, 4)
    affine[:3, 3] += first * affine[:3, 2]
    ranges = [SegmentRange(number, n * length, length) for n, number in enumerate(segment_numbers)]
    header = msgspec.json.encode(Header(shape, affine.reshape(-1).tolist(), ranges, version, first))
    yield struct.pack("<I", len(header)) + header
    for number in segment_numbers:
        part = np.zeros(shape, np.bool_)
        for brick_index in range(first // BRICK_SLICES, last // BRICK_SLICES + 1):
            if (number, brick_index) in masks.bricks:
                start = brick_index * BRICK_SLICES
                slab = masks.slab(number, brick_index)[max(0, first - start) : last + 1 - start]
                at = max(0, start - first)
                part[at : at + len(slab)] = slab
        yield np.packbits(part, axis=None, bitorder="little").tobytes() if part.any() else bytes(length)


def _segment_bits(masks: MaskSet, segment_number: int) -> Iterator[bytes]:
    for brick_index in range(brick_count(masks.shape_kji)):
        voxels = int(np.prod(masks.slab_shape(brick_index)))
        brick = masks.bricks.get((segment_number, brick_index))
        yield bytes((voxels + 7) // 8) if brick is None else unpack_bits(brick, voxels)
