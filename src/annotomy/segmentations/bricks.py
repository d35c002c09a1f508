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
    slices, rows, columns = slab.shape
    return _brick(np.packbits(slab, axis=None, bitorder="little"), (slices, rows, columns))


def pack_bits(bits: bytes | bytearray | NDArray[np.uint8], shape: tuple[int, int, int]) -> Brick | None:
    return _brick(np.frombuffer(bits, np.uint8), shape)


def pack_places(places: NDArray[np.intp], shape: tuple[int, int, int]) -> Brick | None:
    """From ascending places in [k, j, i] order: what few voxels are set costs what they are, not what the slab is."""
    if not len(places):
        return None
    bits = np.zeros((shape[0] * shape[1] * shape[2] + 7) // 8, np.uint8)
    of_byte = places >> 3
    first = np.flatnonzero(np.diff(of_byte, prepend=-1))
    bits[of_byte[first]] = np.bitwise_or.reduceat(np.uint8(1) << (places & 7).astype(np.uint8), first)
    return _brick(bits, shape)


def _brick(bits: NDArray[np.uint8], shape: tuple[int, int, int]) -> Brick | None:
    counts = _counts(bits, shape)
    if counts is None:
        return None
    data = bits.tobytes()
    return Brick(blake3(data).digest(), zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data), counts)


def _counts(bits: NDArray[np.uint8], shape: tuple[int, int, int]) -> Counts | None:
    """Only the rows that hold something are spread out, where rows are whole bytes."""
    slices, rows, columns = shape
    if columns % 8:
        return _counts_of(_slab(bits, shape), (0, 0))
    lines = bits.reshape(slices, rows, columns // 8)
    held: NDArray[np.bool_] = np.any(lines, axis=-1)
    k, j = np.flatnonzero(np.any(held, axis=-1)), np.flatnonzero(np.any(held, axis=0))
    if not len(k):
        return None
    part = lines[k[0] : k[-1] + 1, j[0] : j[-1] + 1]
    return _counts_of(np.unpackbits(part, axis=2, bitorder="little").view(np.bool_), (int(k[0]), int(j[0])))


def _counts_of(part: NDArray[np.bool_], start: tuple[int, int]) -> Counts | None:
    """Of a part of the slab that begins at this k and j."""
    plane = np.count_nonzero(part, axis=0)
    along = (np.count_nonzero(part, axis=(1, 2)), plane.sum(axis=1), plane.sum(axis=0))
    voxels = int(along[0].sum())
    if voxels == 0:
        return None
    offsets = (*start, 0)
    where = [np.flatnonzero(count) + offset for count, offset in zip(along, offsets, strict=True)]
    sums = [int((np.arange(len(count)) + offset) @ count) for count, offset in zip(along, offsets, strict=True)]
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


Box = tuple[slice, slice, slice]


def boxed(brick: Brick, shape: tuple[int, int, int]) -> tuple[Box, NDArray[np.bool_]]:
    """The box that holds the brick's voxels, as its counts say, and the mask within it."""
    low, high = brick.counts[4:7], brick.counts[7:10]
    k, j, i = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    return (k, j, i), unpack(brick, shape)[k, j, i]


def unpack(brick: Brick, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return _slab(unpack_bits(brick, shape[0] * shape[1] * shape[2]), shape)


def _slab(bits: bytes | NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
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

    def counts(self, segment_number: int) -> dict[int, Counts]:
        """By brick index, of the bricks that hold a voxel."""
        return {index: brick.counts for (number, index), brick in self.bricks.items() if number == segment_number}


def brick_count(shape_kji: tuple[int, int, int]) -> int:
    return -(-shape_kji[0] // BRICK_SLICES)


def of_labels(labels: NDArray[Any], segment_numbers: Iterable[int]) -> MaskSet:
    """From a label map: each segment is where the voxel has its number."""
    numbers = set(segment_numbers)
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    empty, bricks = MaskSet(shape, {}), dict[BrickKey, Brick]()
    for brick_index in range(brick_count(shape)):
        part = np.ascontiguousarray(labels[brick_index * BRICK_SLICES :][:BRICK_SLICES]).reshape(-1)
        places = np.flatnonzero(part)
        if not len(places):
            continue
        # In the order of the numbers, the places of each still ascending: a radix sort for numbers of 16 bits.
        values = part[places].astype(np.uint16, copy=False)
        order = np.argsort(values, kind="stable")
        found, first = np.unique(values[order], return_index=True)
        for number, own in zip(found.tolist(), np.split(places[order], first[1:]), strict=True):
            if number in numbers:
                brick = pack_places(own, empty.slab_shape(brick_index))
                assert brick is not None, "a number that was found has a voxel"
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
