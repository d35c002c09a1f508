"""NIfTI-1/2 into a DICOM series whose geometry is the file's own.

NIfTI's world is RAS+ millimetres, DICOM's is LPS+: x and y change sign. Slice k stays slice k. Within the slices the axes
are turned or flipped to how radiologists look at that plane, since viewers show a slice as it is stored; no value is
resampled. Sheared grids have no DICOM form and are refused.
"""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

MAX_VOXELS = 1 << 30
"""One series: 1024 slices of 1024 x 1024."""
MAX_FILE_BYTES = 8 << 30
MAX_LABEL_CHARACTERS = 64
MAX_SHEAR = 1e-3
"""Largest cosine between two grid axes; rounding of real headers stays far below."""


class NiftiError(ValueError):
    """The file is no NIfTI volume that has a DICOM form; the text says why."""


def nifti_to_dicom(path: Path, *, salt: str, filename: str = "", modality: str = "MR") -> Iterator[bytes]:
    """The slices as Part-10 files. UIDs derive from content, `salt` and `filename`: the same upload makes the same instances.

    NIfTI names nobody. The file's name, which is all that people know such a volume by, stands for patient and series.
    """
    data = _read_bounded(path)
    values, affine_ras = _load(data)
    values, affine_lps = _upright(values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras)
    axes = affine_lps[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(affine_lps)) or np.any(spacing < 1e-6):
        raise NiftiError("The affine of the file is degenerate.")
    directions = axes / spacing
    if np.max(np.abs(directions.T @ directions - np.eye(3))) > MAX_SHEAR:
        raise NiftiError("The grid is sheared, which DICOM cannot say.")
    stored, slope, intercept = _quantise(values)
    label = _label(filename)
    digest = hashlib.sha256(data + salt.encode() + label.encode()).digest()
    common = _common(digest, label, modality, directions, spacing, slope, intercept, stored)
    for k in range(stored.shape[2]):
        position = affine_lps @ np.array([0.0, 0.0, k, 1.0])
        yield _slice(common, digest, k, position[:3], np.ascontiguousarray(stored[:, :, k].T))


LEFT, POSTERIOR, INFERIOR = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
# Where rows run to the right, and columns down, on a screen: sagittal, coronal, axial, by the axis of the slices' normal.
_SHOWN_AS = ((POSTERIOR, INFERIOR), (LEFT, INFERIOR), (LEFT, POSTERIOR))


def _upright(values: NDArray[Any], affine_lps: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same voxels at the same places, with i along the rows and j along the columns of the usual view."""
    affine = affine_lps.copy()
    right, down = _SHOWN_AS[int(np.argmax(np.abs(affine[:3, 2])))]
    i, j = affine[:3, 0], affine[:3, 1]
    if abs(i @ down) + abs(j @ right) > abs(i @ right) + abs(j @ down):
        values, affine = values.swapaxes(0, 1), affine[:, [1, 0, 2, 3]]
    for axis, wanted in ((0, right), (1, down)):
        if affine[:3, axis] @ wanted < 0:
            values = np.flip(values, axis)
            affine[:, 3] += (values.shape[axis] - 1) * affine[:, axis]
            affine[:, axis] *= -1
    return values, affine


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NiftiError("The gzip stream is damaged.") from error
    if len(data) > MAX_FILE_BYTES:
        raise NiftiError("The file is larger than is taken in.")
    return data


def _load(data: bytes) -> tuple[NDArray[Any], NDArray[np.float64]]:
    form = nib.Nifti2Image if data[4:8] in (b"n+2\0", b"ni2\0") else nib.Nifti1Image
    try:
        image: Any = form.from_bytes(data)
        shape = image.shape
        if len(shape) == 4 and shape[3] == 1:
            shape = shape[:3]
        if len(shape) != 3 or 0 in shape:
            raise NiftiError(f"The file holds {len(shape)} dimensions; a volume has three.")
        if int(np.prod(np.array(shape, dtype=object))) > MAX_VOXELS:
            raise NiftiError("The volume is larger than is taken in.")
        return np.asarray(image.dataobj).reshape(shape), np.asarray(image.affine, np.float64)
    except (
        HeaderDataError,
        ImageFileError,
        ValueError,
        OSError,
        EOFError,
        TypeError,
    ) as error:
        if isinstance(error, NiftiError):
            raise
        raise NiftiError(f"The file cannot be read as NIfTI ({type(error).__name__}).") from error


def _quantise(values: NDArray[Any]) -> tuple[NDArray[np.int16], float, float]:
    """int16 as it is where it fits; else 16 bits over the range of the values, told by slope and intercept."""
    if np.iscomplexobj(values) or values.dtype.kind not in "iufb":
        raise NiftiError("The values are not real numbers.")
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= -32768 and high <= 32767 and np.array_equal(finite, np.rint(finite)):
        return finite.astype(np.int16), 1.0, 0.0
    slope = (high - low) / 65535 or 1.0
    intercept = low + 32768 * slope
    return np.clip(np.rint((finite - intercept) / slope), -32768, 32767).astype(np.int16), slope, intercept


def _common(
    digest: bytes,
    label: str,
    modality: str,
    directions: NDArray[np.float64],
    spacing: NDArray[np.float64],
    slope: float,
    intercept: float,
    stored: NDArray[np.int16],
) -> dict[str, Any]:
    low, high = (float(v) * slope + intercept for v in np.percentile(stored, (1, 99.5)))
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY"],
        "SOPClassUID": MRImageStorage,
        "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "", "StudyID": "1",
        "Modality": modality,
        "Manufacturer": "",
        "StudyDescription": "Imported from NIfTI",
        "SeriesDescription": label or "NIfTI volume",
        "PatientName": label or "NIfTI^Import", "PatientID": digest.hex()[:16], "PatientBirthDate": "", "PatientSex": "",
        "StudyInstanceUID": _uid(digest, "study"),
        "SeriesInstanceUID": _uid(digest, "series"),
        "FrameOfReferenceUID": _uid(digest, "frame of reference"),
        "PositionReferenceIndicator": "",
        "SeriesNumber": 1,
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "3D",
        "EchoTime": None, "EchoTrainLength": None,
        "SliceThickness": _decimal(spacing[2]), "SpacingBetweenSlices": _decimal(spacing[2]),
        "ImageOrientationPatient": [_decimal(v) for v in (*directions[:, 0], *directions[:, 1])],
        "PixelSpacing": [_decimal(spacing[1]), _decimal(spacing[0])],  # row spacing (along j) first
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[1], "Columns": stored.shape[0],
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
        "WindowCenter": _decimal((low + high) / 2), "WindowWidth": _decimal(max(high - low, 1.0)),
        "RescaleIntercept": _decimal(intercept), "RescaleSlope": _decimal(slope), "RescaleType": "US",
    }  # fmt: skip


def _slice(
    common: dict[str, Any], digest: bytes, k: int, position: NDArray[np.float64], pixels: NDArray[np.int16]
) -> bytes:
    dataset = Dataset()
    for keyword, value in common.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = _uid(digest, f"instance {k}")
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [_decimal(v) for v in position]
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _label(filename: str) -> str:
    """The name without folder and suffix, as text that PN and LO take (PS3.5 6.2: 64 characters, no delimiter)."""
    stem = re.sub(r"\.nii(\.gz)?$", "", re.split(r"[/\\]", filename)[-1], flags=re.IGNORECASE)
    return " ".join(re.sub(r"[\x00-\x1f\x7f^=]", " ", stem).split())[:MAX_LABEL_CHARACTERS].strip()


def _uid(digest: bytes, what: str) -> UID:
    """A UUID-derived UID (PS3.5 B.2)."""
    number = int.from_bytes(hashlib.sha256(digest + what.encode()).digest()[:16], "big")
    return UID(f"2.25.{number}")


def _decimal(value: float) -> str:
    """DS: at most 16 characters (PS3.5 6.2)."""
    for digits in range(12, 0, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError("a number that DS cannot hold")
