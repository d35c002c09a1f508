"""Any regular grid of values becomes a DICOM series whose geometry is the grid's own (PS3.3 C.7.6.2).

Slice k stays slice k. Within the slices the axes are turned or flipped to how radiologists look at that plane, since
viewers show a slice as it is stored; no value is resampled, and whole numbers that 16 bits can hold keep their value
(Hounsfield units, say). Sheared grids have no DICOM form and are refused. One slice is in memory at a time.
"""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

MAX_VOXELS: Final = 1 << 30
"""One series: 1024 slices of 1024 x 1024."""
MAX_SIDE: Final = 65535
"""Rows and columns are 16-bit numbers in DICOM."""
MAX_SLICE_VOXELS: Final = 1 << 26
"""One slice is in memory at a time, as float64."""
MAX_FILE_BYTES: Final = 8 << 30
MAX_UNPACKED_RATIO: Final = 200
"""A packed file may grow by this much; real volumes grow 2 to 10 times."""
MAX_UNPACKED_FLOOR_BYTES: Final = 256 << 20
"""Up to this size by any ratio: label volumes are mostly zeros."""
WINDOW_SAMPLES: Final = 1 << 20
"""Voxels that the default window is made from, spread over the volume."""
MAX_LABEL_CHARACTERS: Final = 64
MAX_SHEAR: Final = 1e-3
"""Largest cosine between two grid axes; rounding of real headers stays far below."""
MODALITIES: Final = ("MR", "CT", "PT", "NM", "US", "XA", "OT")
"""What a sender may call a volume. MR and CT have image objects of their own, the others are Secondary Capture."""


class VolumeError(ValueError):
    """The file is no volume that has a DICOM form; the text says why and holds no value of the file."""


class Volume(Protocol):
    """A grid whose slices are read one by one: first axis i, second j, in the file's units."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def affine_lps(self) -> NDArray[np.float64]: ...
    def slice(self, k: int) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the sender's side says of a volume. UIDs derive from content and from this: the same upload makes the same instances."""

    salt: str
    filename: str = ""
    modality: str = ""
    """Empty: what the file says, else MR."""


def series_of(volume: Volume, hasher: Any, told: Told, *, form: str, modality: str = "") -> Iterator[bytes]:
    """The slices as Part-10 files; `hasher` has seen the content. Raises VolumeError.

    Such files name nobody. The file's name, which is all that people know the volume by, stands for patient and series.
    """
    label = label_of(told.filename)
    hasher.update(told.salt.encode() + label.encode() + told.modality.encode())
    upright = _upright(volume.affine_lps, volume.shape)
    affine_lps = upright.affine_lps
    axes = affine_lps[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(affine_lps)) or np.any(spacing < 1e-6) or np.any(spacing > 1e6):
        raise VolumeError("The affine of the file is degenerate.")
    directions = axes / spacing
    if np.max(np.abs(directions.T @ directions - np.eye(3))) > MAX_SHEAR:
        raise VolumeError("The grid is sheared, which DICOM cannot say.")
    storage = _measure(volume)
    digest = hasher.digest()
    common = _common(digest, label, form, directions, spacing, storage, upright.shape)
    common |= _of_modality(told.modality or modality or "MR")
    for k in range(volume.shape[2]):
        position = affine_lps @ np.array([0.0, 0.0, k, 1.0])
        pixels = np.ascontiguousarray(storage.quantise(upright.of(volume.slice(k))).T)
        yield _slice(common, digest, k, position[:3], pixels)


def require_size(shape: tuple[int, ...]) -> None:
    """Before anything is allocated. Raises VolumeError."""
    if len(shape) != 3 or min(shape) < 1:
        raise VolumeError(f"The file holds {len(shape)} dimensions; a volume has three.")
    if shape[0] * shape[1] * shape[2] > MAX_VOXELS or max(shape) > MAX_SIDE or shape[0] * shape[1] > MAX_SLICE_VOXELS:
        raise VolumeError("The volume is larger than is taken in.")


def unpacked_limit(packed_bytes: int) -> int:
    return min(MAX_FILE_BYTES, max(packed_bytes * MAX_UNPACKED_RATIO, MAX_UNPACKED_FLOOR_BYTES))


def digest_of(*files: IO[bytes]) -> Any:
    hasher = hashlib.sha256()
    for file in files:
        file.seek(0)
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher


def unpack_gzip(path: Path, plain: Path) -> None:
    """Raises VolumeError at the limit and for a damaged stream."""
    limit, size = unpacked_limit(path.stat().st_size), 0
    try:
        with gzip.open(path) as source, plain.open("wb") as target:
            while piece := source.read(1 << 20):
                size += len(piece)
                if size > limit:
                    raise VolumeError("The file unpacks to more than is allowed.")
                target.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError("The gzip stream is damaged.") from error


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


def _measure(volume: Volume) -> _Storage:
    low, high, whole = np.inf, -np.inf, True
    step = max(1, -(-volume.shape[0] * volume.shape[1] * volume.shape[2] // WINDOW_SAMPLES))
    samples: list[NDArray[np.float64]] = []
    for k in range(volume.shape[2]):
        values = volume.slice(k)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        whole = whole and bool(np.array_equal(values, np.rint(values)))
        samples.append(values.ravel()[k % step :: step].copy())
    if not np.isfinite(high - low):
        raise VolumeError("The values span more than numbers hold.")
    from_value, to_value = (float(v) for v in np.percentile(np.concatenate(samples), (1, 99.5)))
    window = ((from_value + to_value) / 2, max(to_value - from_value, 1.0))
    if whole and low >= -32768 and high <= 32767:
        return _Storage(exact=True, slope=1.0, intercept=0.0, window=window)
    if whole and high - low <= 65535:  # unsigned 16 bits, say: shifted, every value is kept
        return _Storage(exact=False, slope=1.0, intercept=low + 32768, window=window)
    slope = (high - low) / 65535 or 1.0
    return _Storage(exact=False, slope=slope, intercept=low + 32768 * slope, window=window)


def _common(
    digest: bytes,
    label: str,
    form: str,
    directions: NDArray[np.float64],
    spacing: NDArray[np.float64],
    storage: _Storage,
    shape: tuple[int, ...],
) -> dict[str, Any]:
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "", "StudyID": "1",
        "Manufacturer": "",
        "StudyDescription": f"Imported from {form}",
        "SeriesDescription": label or f"{form} volume",
        "PatientName": label or f"{form}^Import", "PatientID": digest.hex()[:16], "PatientBirthDate": "", "PatientSex": "",
        "StudyInstanceUID": _uid(digest, "study"),
        "SeriesInstanceUID": _uid(digest, "series"),
        "FrameOfReferenceUID": _uid(digest, "frame of reference"),
        "PositionReferenceIndicator": "",
        "SeriesNumber": 1,
        "SliceThickness": _decimal(spacing[2]), "SpacingBetweenSlices": _decimal(spacing[2]),
        "ImageOrientationPatient": [_decimal(v) for v in (*directions[:, 0], *directions[:, 1])],
        "PixelSpacing": [_decimal(spacing[1]), _decimal(spacing[0])],  # row spacing (along j) first
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": shape[1], "Columns": shape[0],
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
        "WindowCenter": _decimal(storage.window[0]), "WindowWidth": _decimal(storage.window[1]),
        "RescaleIntercept": _decimal(storage.intercept), "RescaleSlope": _decimal(storage.slope),
    }  # fmt: skip


def _of_modality(modality: str) -> dict[str, Any]:
    """The object that such images are, and what its modules demand (PS3.3 C.8.3.1, C.8.2.1, C.8.6.1)."""
    plain = {"Modality": modality, "ImageType": ["DERIVED", "SECONDARY"], "RescaleType": "US"}
    if modality == "MR":
        return plain | {
            "SOPClassUID": MRImageStorage,
            "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "3D",
            "EchoTime": None, "EchoTrainLength": None,
        }  # fmt: skip
    if modality == "CT":
        return plain | {
            "SOPClassUID": CTImageStorage,
            "ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "RescaleType": "HU", "KVP": None, "AcquisitionNumber": None,
        }  # fmt: skip
    return plain | {"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "WSD"}


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


_SUFFIX = re.compile(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|zip|tar(\.gz|\.zst)?|tgz|tiff?|png|jpe?g)$", re.IGNORECASE)


def label_of(filename: str) -> str:
    """The name without folder and suffix, as text that PN and LO take (PS3.5 6.2: 64 characters, no delimiter)."""
    stem = _SUFFIX.sub("", re.split(r"[/\\]", filename)[-1])
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
