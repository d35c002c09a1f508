"""What mask files of other programs hold: label grids. Each format has a module that reads and writes them.

A file that holds one number for each voxel cannot say that segments overlap, so overlapping segments are spread over
layers: each layer is a label map of the same grid, and the numbers stay those of the segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.seg import ANATOMICAL_STRUCTURE, Coded
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet

MAX_FILE_BYTES = 1 << 31
"""Of one mask file after decompression: 512 x 512 x 1024 voxels in several layers."""
MAX_LAYERS = 64

UNCODED: Coded = ("85756007", "SCT", "Tissue")
"""What a segment is when its file does not say: the code that other segmentation tools use for it."""

# Distinct on grey images, and for people with red-green blindness.
COLORS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#fabed4", "#469990", "#dcbeff")


class FormatError(ValueError):
    """The file is not what it should be; the text says why and names no value of the file."""


@dataclass(frozen=True, slots=True)
class FileSegment:
    """A segment as a file describes it; `number` is its value in the label map."""

    number: int
    label: str
    code: Coded = UNCODED
    category: Coded = ANATOMICAL_STRUCTURE
    color: str = COLORS[0]
    algorithm: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LabelGrid:
    """Label maps (k, j, i) of one grid. `segments` is empty when the file names none."""

    layers: tuple[NDArray[Any], ...]
    affine_lps: NDArray[np.float64]
    segments: tuple[FileSegment, ...] = ()


def layers_of(masks: MaskSet, segment_numbers: Sequence[int]) -> tuple[NDArray[np.uint16], ...]:
    """As few label maps as hold these segments without one hiding another; one when none overlap."""
    layers: list[NDArray[np.uint16]] = []
    for number in segment_numbers:
        slabs = list(masks.slabs(number))
        for layer in layers:
            if not any(np.any(_part(layer, index)[slab]) for index, slab in slabs):
                break
        else:
            layer = np.zeros(masks.shape_kji, np.uint16)
            layers.append(layer)
        for index, slab in slabs:
            _part(layer, index)[slab] = number
    return tuple(_narrow(layer) for layer in layers)


def _part(layer: NDArray[Any], brick_index: int) -> NDArray[Any]:
    return layer[brick_index * BRICK_SLICES :][:BRICK_SLICES]


def _narrow(layer: NDArray[np.uint16]) -> NDArray[Any]:
    return layer.astype(np.uint8) if layer.max(initial=0) < 256 else layer


def default_color(number: int) -> str:
    return COLORS[(number - 1) % len(COLORS)]
