"""What must be true of the demo's results, each measured on what the server gives back and compared with a named reference."""

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from scipy.ndimage import affine_transform

LEAST_BRAIN_DICE = 0.85
"""The coarse head model misses part of the cortex; a wrong side, shift or scale falls far below."""

HIPPOCAMPUS_ML = (2.38, 4.41)
"""Smallest and largest of one hippocampus among the 230 expert masks that the model was trained and validated with."""


class CheckFailed(Exception):
    """A result is not what it should be; the text says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A segmentation as labels on a grid (i, j, k) in RAS millimetres; its segments do not overlap."""

    labels: NDArray[np.uint8]
    affine_ras: NDArray[np.float64]

    @property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine_ras[:3, :3]))) / 1000

    @classmethod
    def from_masks_body(cls, body: bytes) -> "Mask":
        """What GET /segmentations/{id}/masks answers: a header, then packed bits for each segment in [k, j, i] order."""
        header_bytes = struct.unpack_from("<I", body)[0]
        header = json.loads(body[4 : 4 + header_bytes])
        k, j, i = header["shape_kji"]
        labels = np.zeros(k * j * i, np.uint8)
        for segment in header["segments"]:
            start = 4 + header_bytes + segment["offset"]
            bits = np.frombuffer(body, np.uint8, segment["length"], start)
            labels[np.unpackbits(bits, count=labels.size, bitorder="little") > 0] = segment["segment_number"]
        affine_lps = np.array(header["affine_lps"], np.float64).reshape(4, 4)
        return cls(labels.reshape(k, j, i).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps)


def check_statistics(mask: Mask, segment: dict[str, Any]) -> None:
    """The figures that the API tells are those of the mask that it gives. Raises CheckFailed."""
    voxels = int((mask.labels == segment["segment_number"]).sum())
    told = segment["statistics"]
    if voxels != told["voxels"] or abs(voxels * mask.voxel_ml * 1000 - told["volume_mm3"]) > 0.001 * told["volume_mm3"]:
        raise CheckFailed(
            f"{segment['label']} has {voxels} voxels in its mask; {told['voxels']} and"
            f" {told['volume_mm3']:.0f} mm3 were told"
        )


def brain_dice(mask: Mask) -> float:
    """Overlap with nilearn's MNI152 brain mask (threshold of the shipped template). Raises CheckFailed."""
    from nilearn.datasets import load_mni152_brain_mask  # takes seconds to import

    reference: Any = load_mni152_brain_mask(resolution=1)
    expected = _at_voxels_of(mask, np.asarray(reference.dataobj), np.asarray(reference.affine))
    found = mask.labels > 0
    dice = 2.0 * float((found & expected).sum()) / float(found.sum() + expected.sum())
    if dice < LEAST_BRAIN_DICE:
        raise CheckFailed(f"the brain overlaps the reference with Dice {dice:.3f}; at least {LEAST_BRAIN_DICE} was due")
    return dice


def hippocampi_ml(mask: Mask) -> tuple[float, float]:
    """Right and left volume, parted at the middle of the head (x = 0 in MNI space). Raises CheckFailed."""
    found = np.argwhere(mask.labels > 0)
    x_mm = (mask.affine_ras @ np.c_[found, np.ones(len(found))].T)[0]
    right, left = (float((x_mm > 0).sum()) * mask.voxel_ml, float((x_mm <= 0).sum()) * mask.voxel_ml)
    low, high = HIPPOCAMPUS_ML
    for side, volume in (("right", right), ("left", left)):
        if not low <= volume <= high:
            raise CheckFailed(f"the {side} hippocampus has {volume:.2f} mL; experts' masks have {low} to {high}")
    return right, left


def check_dicom_seg(data: bytes, segments: list[dict[str, Any]]) -> None:
    """The SEG is read by highdicom, and each segment has the name and the voxels that the API told. Raises CheckFailed."""
    seg: Any = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(data)), copy=False)
    numbers = sorted(seg.segment_numbers)
    expected = sorted(segment["segment_number"] for segment in segments)
    if numbers != expected:
        raise CheckFailed(f"the DICOM SEG holds the segments {numbers}; {expected} were due")
    volume = seg.get_volume(combine_segments=False, segment_numbers=numbers)
    counted = (np.asarray(volume.array) > 0).sum(axis=(0, 1, 2))
    for segment in segments:
        number, voxels = segment["segment_number"], segment["statistics"]["voxels"]
        label = seg.get_segment_description(number).segment_label
        found = int(counted[numbers.index(number)])
        if label != segment["label"] or found != voxels:
            raise CheckFailed(
                f"segment {number} of the DICOM SEG is {label} with {found} voxels;"
                f" {segment['label']} with {voxels} was due"
            )


def image_of(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A series of parallel slices as (i, j, k) values and its RAS affine, by the plane module (PS3.3 C.7.6.2)."""
    slices: list[Any] = [dcmread(path) for path in folder.rglob("*.dcm")]
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    slices.sort(key=lambda one: float(np.array(one.ImagePositionPatient, float) @ normal))
    first, last = (np.array(one.ImagePositionPatient, float) for one in (slices[0], slices[-1]))
    row_spacing, column_spacing = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * column_spacing, along_column * row_spacing
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    values = np.stack([one.pixel_array.T * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices], -1)
    return values.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def on_grid_of(mask: Mask, shape: tuple[int, ...], affine_ras: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The labels at the voxels of an image. Raises CheckFailed when the mask lies outside of it."""
    target = Mask(np.zeros(shape, np.uint8), affine_ras)
    found = _at_voxels_of(target, mask.labels, mask.affine_ras, np.uint8)
    if int((found > 0).sum()) == 0:
        raise CheckFailed("the segmentation does not lie in its image")
    return found


def _at_voxels_of(
    mask: Mask, values: NDArray[Any], affine_ras: NDArray[np.float64], kind: type[np.generic] = np.bool_
) -> NDArray[Any]:
    """Nearest value of another grid at each voxel centre of the mask; 0 outside of it."""
    to_other = np.linalg.inv(affine_ras) @ mask.affine_ras
    offset: Any = to_other[:3, 3]
    sampled: Any = affine_transform(
        values.astype(np.uint8), to_other[:3, :3], offset, output_shape=mask.labels.shape, order=0
    )
    return sampled.astype(kind)
