"""Masks as bricks: one segment over 16 slices, packed to bits, under the hash of these bits (docs/decisions/0004).

Pure. Bits lie lowest first in [k, j, i] order, as `web/src/lib/packed-bits.ts` reads them. A brick without a voxel is
absent. Segments have bricks of their own, so they may overlap.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3
from numpy.typing import NDArray

BRICK_SLICES = 16
ZSTD_LEVEL = 3
MAX_BRICK_BYTES = 128 << 20
"""A packed brick of 8192 x 8192 planes: what an unpacked one may take at most."""

BrickKey = tuple[int, int]
"""(segment_number, brick_index)"""


Counts = tuple[int, ...]
"""What statistics add up without unpacking: voxels; sums of their k, j, i; lowest k, j, i; highest. k is within the brick."""


@dataclass(frozen=True, slots=True)
class Brick:
    address: bytes
    """BLAKE3 of the packed bits before compression."""
    data: bytes
    """zstd of the packed bits."""
    counts: Counts


class DamagedBrick(ValueError):
    """The bytes are not those of its address."""


def pack(slab: NDArray[np.bool_]) -> Brick | None:
    """At most 16 slices of one segment; None when no voxel is set."""
    counts = _counts(slab)
    if counts is None:
        return None
    bits = np.packbits(slab, axis=None, bitorder="little").tobytes()
    return Brick(blake3(bits).digest(), zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(bits), counts)


def pack_bits(bits: bytes, shape: tuple[int, int, int]) -> Brick | None:
    return pack(_slab(bits, shape)) if any(bits) else None


def _counts(slab: NDArray[np.bool_]) -> Counts | None:
    plane = np.count_nonzero(slab, axis=0)
    along = (np.count_nonzero(slab, axis=(1, 2)), plane.sum(axis=1), plane.sum(axis=0))
    voxels = int(along[0].sum())
    if voxels == 0:
        return None
    where = [np.flatnonzero(count) for count in along]
    sums = [int(np.arange(len(count)) @ count) for count in along]
    return voxels, *sums, *(int(w[0]) for w in where), *(int(w[-1]) for w in where)


def unpack_bits(brick: Brick, voxels: int) -> bytes:
    """The packed bits, checked against the address. Raises DamagedBrick."""
    try:
        bits = zstandard.ZstdDecompressor().decompress(brick.data, max_output_size=MAX_BRICK_BYTES)
    except zstandard.ZstdError as error:
        raise DamagedBrick("The brick cannot be decompressed.") from error
    if len(bits) != (voxels + 7) // 8 or blake3(bits).digest() != brick.address:
        raise DamagedBrick("The brick is not what its address says.")
    return bits


def unpack(brick: Brick, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return _slab(unpack_bits(brick, shape[0] * shape[1] * shape[2]), shape)


def _slab(bits: bytes, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    voxels = shape[0] * shape[1] * shape[2]
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=voxels, bitorder="little")
    return flat.view(np.bool_).reshape(shape)


@dataclass(frozen=True)
class MaskSet:
    """The masks of one version, as bricks."""

    shape_kji: tuple[int, int, int]
    bricks: Mapping[BrickKey, Brick]

    def slab_shape(self, brick_index: int) -> tuple[int, int, int]:
        slices, rows, columns = self.shape_kji
        return min(BRICK_SLICES, slices - brick_index * BRICK_SLICES), rows, columns

    def slab(self, segment_number: int, brick_index: int) -> NDArray[np.bool_]:
        shape = self.slab_shape(brick_index)
        brick = self.bricks.get((segment_number, brick_index))
        return np.zeros(shape, np.bool_) if brick is None else unpack(brick, shape)

    def slabs(self, segment_number: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """(brick_index, slab) of the bricks that hold a voxel, in order."""
        for brick_index in range(brick_count(self.shape_kji)):
            if (segment_number, brick_index) in self.bricks:
                yield brick_index, self.slab(segment_number, brick_index)

    def mask(self, segment_number: int) -> NDArray[np.bool_]:
        mask = np.zeros(self.shape_kji, np.bool_)
        for brick_index, slab in self.slabs(segment_number):
            mask[brick_index * BRICK_SLICES :][:BRICK_SLICES] = slab
        return mask

    def labelmap(self, values: Mapping[int, int]) -> tuple[NDArray[np.uint16], bool]:
        """Each voxel with the value of its segment, and whether segments overlap (then the later in `values` wins)."""
        labels = np.zeros(self.shape_kji, np.uint16)
        overlap = False
        for segment_number, value in values.items():
            for brick_index, slab in self.slabs(segment_number):
                part = labels[brick_index * BRICK_SLICES :][:BRICK_SLICES]
                overlap = overlap or bool(np.any(part[slab]))
                part[slab] = value
        return labels, overlap

    def counts(self, segment_number: int) -> dict[int, Counts]:
        """By brick index, of the bricks that hold a voxel."""
        return {index: brick.counts for (number, index), brick in self.bricks.items() if number == segment_number}


def brick_count(shape_kji: tuple[int, int, int]) -> int:
    return -(-shape_kji[0] // BRICK_SLICES)


def of_labels(labels: NDArray[Any], segment_numbers: Iterable[int]) -> MaskSet:
    """From a label map: each segment is where the voxel has its number."""
    from scipy import ndimage  # heavy, and most processes only read masks

    numbers = set(segment_numbers)
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    bricks: dict[BrickKey, Brick] = {}
    for brick_index in range(brick_count(shape)):
        part = labels[brick_index * BRICK_SLICES :][:BRICK_SLICES]
        boxes: list[Any] = ndimage.find_objects(part.astype(np.int32, copy=False))
        for number, box in enumerate(boxes, start=1):
            if box is None or number not in numbers:
                continue
            slab = np.zeros(part.shape, np.bool_)
            slab[box] = part[box] == number
            brick = pack(slab)
            assert brick is not None, "a label that was found has a voxel"
            bricks[number, brick_index] = brick
    return MaskSet(shape, bricks)


def of_masks(masks: Mapping[int, NDArray[np.bool_]], shape_kji: tuple[int, int, int]) -> MaskSet:
    """From one mask for each segment; they may overlap."""
    bricks: dict[BrickKey, Brick] = {}
    for number, mask in masks.items():
        for brick_index in range(brick_count(shape_kji)):
            brick = pack(mask[brick_index * BRICK_SLICES :][:BRICK_SLICES])
            if brick is not None:
                bricks[number, brick_index] = brick
    return MaskSet(shape_kji, bricks)
