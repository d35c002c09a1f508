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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

MAX_VOXELS: Final = 1 << 30
"""One series: 1024 slices of 1024 x 1024."""
MAX_SIDE: Final = 65535
"""Rows and columns are 16-bit numbers in DICOM."""
MAX_SLICE_VOXELS: Final = 1 << 26
"""One slice is in memory at a time, as float64."""
MAX_FILE_BYTES: Final = 8 << 30
MAX_UNPACKED_RATIO: Final = 200
"""A file packed by gzip may grow by this much; real volumes grow 2 to 10 times."""
MAX_UNPACKED_FLOOR_BYTES: Final = 256 << 20
"""Up to this size by any ratio: label volumes are mostly zeros."""
WINDOW_SAMPLES: Final = 1 << 20
"""Voxels that the default window is made from, spread over the volume."""
MAX_LABEL_CHARACTERS: Final = 64
MAX_SHEAR: Final = 1e-3
"""Largest cosine between two grid axes; rounding of real headers stays far below."""


class NiftiError(ValueError):
    """The file is no NIfTI volume that has a DICOM form; the text says why."""


def nifti_to_dicom(path: Path, *, salt: str, filename: str = "", modality: str = "MR") -> Iterator[bytes]:
    """The slices as Part-10 files. UIDs derive from content, `salt` and `filename`: the same upload makes the same instances.

    NIfTI names nobody. The file's name, which is all that people know such a volume by, stands for patient and series. One slice is in memory at a time; a packed file is unpacked beside `path` and removed at the end.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    plain = path.with_suffix(".unpacked") if packed else path
    try:
        if packed:
            _unpack(path, plain)
        if plain.stat().st_size > MAX_FILE_BYTES:
            raise NiftiError("The file is larger than is taken in.")
        with plain.open("rb") as file:
            yield from _slices(file, salt, _label(filename), modality)
    finally:
        if packed:
            plain.unlink(missing_ok=True)


def _slices(file: IO[bytes], salt: str, label: str, modality: str) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    while piece := file.read(1 << 20):
        hasher.update(piece)
    hasher.update(salt.encode() + label.encode())
    volume = _Volume(file)
    upright = _upright(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine_ras, volume.shape)
    affine_lps = upright.affine_lps
    axes = affine_lps[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(affine_lps)) or np.any(spacing < 1e-6) or np.any(spacing > 1e6):
        raise NiftiError("The affine of the file is degenerate.")
    directions = axes / spacing
    if np.max(np.abs(directions.T @ directions - np.eye(3))) > MAX_SHEAR:
        raise NiftiError("The grid is sheared, which DICOM cannot say.")
    storage = _measure(volume)
    digest = hasher.digest()
    common = _common(digest, label, modality, directions, spacing, storage, upright.shape)
    for k in range(volume.shape[2]):
        position = affine_lps @ np.array([0.0, 0.0, k, 1.0])
        pixels = np.ascontiguousarray(storage.quantise(upright.of(volume.slice(k))).T)
        yield _slice(common, digest, k, position[:3], pixels)


LEFT, POSTERIOR, INFERIOR = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
# Where rows run to the right, and columns down, on a screen: sagittal, coronal, axial, by the axis of the slices' normal.
_SHOWN_AS = ((POSTERIOR, INFERIOR), (LEFT, INFERIOR), (LEFT, POSTERIOR))


@dataclass(frozen=True, slots=True)
class _Upright:
    """How a slice is turned so that i runs along the rows and j along the columns of the usual view."""

    affine_lps: NDArray[np.float64]
    shape: tuple[int, int, int]
    swapped: bool
    flipped: tuple[int, ...]

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.flip(values.T if self.swapped else values, self.flipped)


def _upright(affine_lps: NDArray[np.float64], shape: tuple[int, ...]) -> _Upright:
    """The same voxels at the same places, slices upright."""
    affine, sides = affine_lps.copy(), [*shape]
    right, down = _SHOWN_AS[int(np.argmax(np.abs(affine[:3, 2])))]
    i, j = affine[:3, 0], affine[:3, 1]
    swapped = bool(abs(i @ down) + abs(j @ right) > abs(i @ right) + abs(j @ down))
    if swapped:
        affine, sides = affine[:, [1, 0, 2, 3]], [sides[1], sides[0], sides[2]]
    flipped: list[int] = []
    for axis, wanted in ((0, right), (1, down)):
        if affine[:3, axis] @ wanted < 0:
            flipped.append(axis)
            affine[:, 3] += (sides[axis] - 1) * affine[:, axis]
            affine[:, axis] *= -1
    return _Upright(affine, (sides[0], sides[1], sides[2]), swapped, tuple(flipped))


def _unpack(path: Path, plain: Path) -> None:
    limit = min(MAX_FILE_BYTES, max(path.stat().st_size * MAX_UNPACKED_RATIO, MAX_UNPACKED_FLOOR_BYTES))
    size = 0
    try:
        with gzip.open(path) as source, plain.open("wb") as target:
            while piece := source.read(1 << 20):
                size += len(piece)
                if size > limit:
                    raise NiftiError("The file unpacks to more than is allowed.")
                target.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise NiftiError("The gzip stream is damaged.") from error


class _Volume:
    """The header, checked against the size of the file, and slices read one by one."""

    def __init__(self, file: IO[bytes]) -> None:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        form = nib.Nifti2Image if file.read(8)[4:] in (b"n+2\0", b"ni2\0") else nib.Nifti1Image
        file.seek(0)
        try:
            files: Any = {"image": file}
            image: Any = form.from_file_map(form.make_file_map(files), mmap=False)
            self._data: Any = image.dataobj
            shape, needed = tuple(int(side) for side in image.shape), int(self._data.offset)
            needed += int(np.prod(np.array(shape, dtype=object))) * self._data.dtype.itemsize
            self.affine_ras = np.asarray(image.affine, np.float64)
        except _UNREADABLE as error:
            raise NiftiError(f"The file cannot be read as NIfTI ({type(error).__name__}).") from error
        self._is_4d = len(shape) == 4 and shape[3] == 1
        shape = shape[:3] if self._is_4d else shape
        if len(shape) != 3 or min(shape) < 1:
            raise NiftiError(f"The file holds {len(shape)} dimensions; a volume has three.")
        voxels = shape[0] * shape[1] * shape[2]
        if voxels > MAX_VOXELS or max(shape) > MAX_SIDE or shape[0] * shape[1] > MAX_SLICE_VOXELS:
            raise NiftiError("The volume is larger than is taken in.")
        if needed > size or self._data.offset < 0:
            raise NiftiError("The file is shorter than its header says.")
        if self._data.dtype.kind not in "iufb":
            raise NiftiError("The values are not real numbers.")
        self.shape = shape

    def slice(self, k: int) -> NDArray[np.float64]:
        """Slice k (first axis i, second j) in the file's units; what is no number is 0."""
        try:
            values = np.asarray(self._data[:, :, k, 0] if self._is_4d else self._data[:, :, k], np.float64)
        except _UNREADABLE as error:
            raise NiftiError(f"The file cannot be read as NIfTI ({type(error).__name__}).") from error
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


_UNREADABLE = (HeaderDataError, ImageFileError, ValueError, OSError, EOFError, TypeError, KeyError, OverflowError)


@dataclass(frozen=True, slots=True)
class _Storage:
    """How values become int16: as they are, or over the range that they span; and the default window."""

    exact: bool
    slope: float
    intercept: float
    window: tuple[float, float]

    def quantise(self, values: NDArray[np.float64]) -> NDArray[np.int16]:
        if self.exact:
            return values.astype(np.int16)
        return np.clip(np.rint((values - self.intercept) / self.slope), -32768, 32767).astype(np.int16)


def _measure(volume: _Volume) -> _Storage:
    low, high, whole = np.inf, -np.inf, True
    step = max(1, -(-volume.shape[0] * volume.shape[1] * volume.shape[2] // WINDOW_SAMPLES))
    samples: list[NDArray[np.float64]] = []
    for k in range(volume.shape[2]):
        values = volume.slice(k)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        whole = whole and bool(np.array_equal(values, np.rint(values)))
        samples.append(values.ravel()[k % step :: step].copy())
    if not np.isfinite(high - low):
        raise NiftiError("The values span more than numbers hold.")
    from_value, to_value = (float(v) for v in np.percentile(np.concatenate(samples), (1, 99.5)))
    window = ((from_value + to_value) / 2, max(to_value - from_value, 1.0))
    if whole and low >= -32768 and high <= 32767:
        return _Storage(exact=True, slope=1.0, intercept=0.0, window=window)
    slope = (high - low) / 65535 or 1.0
    return _Storage(exact=False, slope=slope, intercept=low + 32768 * slope, window=window)


def _common(
    digest: bytes,
    label: str,
    modality: str,
    directions: NDArray[np.float64],
    spacing: NDArray[np.float64],
    storage: _Storage,
    shape: tuple[int, ...],
) -> dict[str, Any]:
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
        "Rows": shape[1], "Columns": shape[0],
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
        "WindowCenter": _decimal(storage.window[0]), "WindowWidth": _decimal(storage.window[1]),
        "RescaleIntercept": _decimal(storage.intercept), "RescaleSlope": _decimal(storage.slope), "RescaleType": "US",
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
