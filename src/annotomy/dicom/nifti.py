"""NIfTI-1/2 as a volume. NIfTI's world is RAS+ millimetres, DICOM's is LPS+: x and y change sign."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from annotomy.dicom.volume_series import (
    MAX_FILE_BYTES,
    Told,
    VolumeError,
    digest_of,
    require_size,
    series_of,
    unpack_gzip,
)

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti_to_dicom(path: Path, *, salt: str, filename: str = "", modality: str = "") -> Iterator[bytes]:
    """The slices as Part-10 files. A packed file is unpacked beside `path` and removed at the end. Raises VolumeError."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    plain = path.with_suffix(".unpacked") if packed else path
    try:
        if packed:
            unpack_gzip(path, plain)
        if plain.stat().st_size > MAX_FILE_BYTES:
            raise VolumeError("The file is larger than is taken in.")
        with plain.open("rb") as file:
            hasher = digest_of(file)
            yield from series_of(_Volume(file), hasher, Told(salt, filename, modality), form="NIfTI")
    finally:
        if packed:
            plain.unlink(missing_ok=True)


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
            self.affine_lps = _RAS_TO_LPS @ np.asarray(image.affine, np.float64)
        except _UNREADABLE as error:
            raise VolumeError(f"The file cannot be read as NIfTI ({type(error).__name__}).") from error
        self._is_4d = len(shape) == 4 and shape[3] == 1
        shape = shape[:3] if self._is_4d else shape
        require_size(shape)
        if needed > size or self._data.offset < 0:
            raise VolumeError("The file is shorter than its header says.")
        if self._data.dtype.kind not in "iufb":
            raise VolumeError("The values are not real numbers.")
        self.shape = shape

    def slice(self, k: int) -> NDArray[np.float64]:
        """Slice k (first axis i, second j) in the file's units; what is no number is 0."""
        try:
            values = np.asarray(self._data[:, :, k, 0] if self._is_4d else self._data[:, :, k], np.float64)
        except _UNREADABLE as error:
            raise VolumeError(f"The file cannot be read as NIfTI ({type(error).__name__}).") from error
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


_UNREADABLE = (HeaderDataError, ImageFileError, ValueError, OSError, EOFError, TypeError, KeyError, OverflowError)
