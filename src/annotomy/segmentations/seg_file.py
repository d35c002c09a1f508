"""The DICOM SEG of masks: their bits become frames without being spread out, as a brick's bits are in DICOM's order.

Only slices that hold something have a frame; segments without any stay described (PS3.3 C.8.20.2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.archive.volume import VolumeSource
from annotomy.dicom.geometry import spacing_mm
from annotomy.dicom.seg import (
    FRACTIONAL_MAXIMUM,
    SegForm,
    SegFrames,
    SegIdentity,
    SegSegment,
    write_seg,
)
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet, boxed, brick_count, unpack_bits
from annotomy.segmentations.errors import MaskMismatch
from annotomy.segmentations.segment import NewSegment

MAX_SEG_BYTES = 1 << 31
"""Of pixel data, which is in memory as a whole: 65,000 frames of 512 x 512 in BINARY, 8,000 in FRACTIONAL."""


def seg_of(
    masks: MaskSet,
    segments: Sequence[NewSegment],
    source: VolumeSource,
    identity: SegIdentity,
    form: SegForm = "BINARY",
) -> bytes:
    """Its segments are numbered 1, 2, ... in the order of ours (PS3.3 C.8.20.2). Raises MaskMismatch."""
    ordered = sorted(segments, key=lambda segment: segment.number)
    values = {segment.number: n for n, segment in enumerate(ordered, start=1)}
    overlap = overlapping(masks, list(values))
    if form == "LABELMAP":
        if overlap:
            raise MaskMismatch("Segments overlap; a label map holds one segment for each voxel. Export as seg instead.")
        frames = _label_frames(masks, values)
    else:
        frames = _mask_frames(masks, values, overlap, form)
    return write_seg(
        headers=source.headers,
        frame_numbers=[plane.frame_number for plane in source.planes],
        frame_of_reference_uid=source.frame_of_reference_uid,
        spacing_between_slices_mm=spacing_mm(source.affine_lps)[2],
        frames=frames,
        segments=[SegSegment(s.label, s.category, s.code, s.color, s.algorithm) for s in ordered],
        identity=identity,
        form=form,
    )


def overlapping(masks: MaskSet, segment_numbers: Sequence[int]) -> bool:
    """Whether any two share a voxel, found on the packed bits."""
    for index in range(brick_count(masks.shape_kji)):
        found = [masks.bricks[n, index] for n in segment_numbers if (n, index) in masks.bricks]
        if len(found) < 2:
            continue
        voxels = int(np.prod(masks.slab_shape(index)))
        together = np.frombuffer(bytearray(unpack_bits(found[0], voxels)), np.uint8)
        for brick in found[1:]:
            bits = np.frombuffer(unpack_bits(brick, voxels), np.uint8)
            if np.any(together & bits):
                return True
            together |= bits
    return False


def _mask_frames(masks: MaskSet, values: dict[int, int], overlap: bool, form: SegForm) -> SegFrames:
    order: list[tuple[int, int]] = []
    pixels: list[bytes | memoryview] = []
    waiting: list[NDArray[np.bool_]] = []  # frames whose bits end within a byte wait for their neighbours
    size = masks.shape_kji[1] * masks.shape_kji[2]
    taken = 0
    for segment_number, value in values.items():
        for k, bits in _slices(masks, segment_number):
            taken += size // 8 if form == "BINARY" else size
            if taken > MAX_SEG_BYTES:
                raise MaskMismatch("The segments are too large to be written as one DICOM SEG; export some of them.")
            order.append((value, k))
            if form == "FRACTIONAL":
                spread = bits if size % 8 else np.unpackbits(bits, bitorder="little")
                pixels.append((spread * np.uint8(FRACTIONAL_MAXIMUM)).tobytes())
            elif size % 8 == 0:
                pixels.append(bits.data)
            else:
                waiting.append(bits.view(np.bool_))
                if len(waiting) == 8:
                    pixels.append(np.packbits(np.concatenate(waiting), bitorder="little").tobytes())
                    waiting.clear()
    if waiting:
        pixels.append(np.packbits(np.concatenate(waiting), bitorder="little").tobytes())
    if not order:  # a SEG has a frame, also of nothing
        order, pixels = [(1, 0)], [bytes((size + 7) // 8 if form == "BINARY" else size)]
    return SegFrames(order, pixels, overlap)


def _slices(masks: MaskSet, segment_number: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(k, packed bits of the slice) where it holds something; one byte for each voxel where slices end within a byte."""
    size = masks.shape_kji[1] * masks.shape_kji[2]
    for index in range(brick_count(masks.shape_kji)):
        brick = masks.bricks.get((segment_number, index))
        if brick is None:
            continue
        slices = masks.slab_shape(index)[0]
        packed = np.frombuffer(unpack_bits(brick, slices * size), np.uint8)
        if size % 8:
            packed = np.unpackbits(packed, count=slices * size, bitorder="little")
        planes = packed.reshape(slices, -1)
        for k in np.flatnonzero(planes.any(axis=1)):
            yield index * BRICK_SLICES + int(k), planes[k]


def _label_frames(masks: MaskSet, values: dict[int, int]) -> SegFrames:
    wide = len(values) > 255
    kind: Any = np.dtype("<u2") if wide else np.uint8
    order: list[tuple[int, int]] = []
    pixels: list[bytes | memoryview] = []
    for index in range(brick_count(masks.shape_kji)):
        labels: NDArray[Any] = np.zeros(masks.slab_shape(index), kind)
        held = np.zeros(len(labels), np.bool_)
        for segment_number, value in values.items():
            brick = masks.bricks.get((segment_number, index))
            if brick is None:
                continue
            box, mask = boxed(brick, labels.shape)
            labels[box] |= mask.view(np.uint8) * labels.dtype.type(value)
            held[box[0]] |= mask.any(axis=(1, 2))
        for k in np.flatnonzero(held):
            order.append((0, index * BRICK_SLICES + int(k)))
            pixels.append(labels[k].reshape(-1).view(np.uint8).data)
    if not order:
        order, pixels = [(0, 0)], [bytes(masks.shape_kji[1] * masks.shape_kji[2] * (2 if wide else 1))]
    if sum(len(piece) for piece in pixels) > MAX_SEG_BYTES:
        raise MaskMismatch("The masks are too large to be written as one DICOM SEG.")
    return SegFrames(order, pixels, overlap=False, wide=wide)
