"""Values in a row on disk, as NRRD and MetaImage keep them: a volume whose slices are read one by one."""

import contextlib
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.volume_series import MAX_FILE_BYTES, VolumeError, require_size, unpacked_limit

DataFile = Callable[[str], Path | None]
"""Finds the file that a header names, None where there is none. The name is the file's own word and no path of ours."""


class RawVolume:
    """First axis fastest. Raises VolumeError when the file is shorter than its header says."""

    def __init__(
        self,
        file: IO[bytes],
        offset: int,
        dtype: "np.dtype[Any]",
        shape: tuple[int, ...],
        affine_lps: NDArray[np.float64],
    ) -> None:
        require_size(shape)
        self._file, self._offset, self._dtype = file, offset, dtype
        self._slice_bytes = shape[0] * shape[1] * dtype.itemsize
        self.shape, self.affine_lps = shape, affine_lps
        if offset < 0 or file.seek(0, 2) < offset + self._slice_bytes * shape[2]:
            raise VolumeError("The file is shorter than its header says.")

    def slice(self, k: int) -> NDArray[np.float64]:
        self._file.seek(self._offset + k * self._slice_bytes)
        data = self._file.read(self._slice_bytes)
        if len(data) != self._slice_bytes:
            raise VolumeError("The file is shorter than its header says.")
        values = np.frombuffer(data, self._dtype).reshape(self.shape[1], self.shape[0]).T
        return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def volume_bytes(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> int:
    """What the values take, checked against the limits. Raises VolumeError."""
    require_size(shape)
    needed = shape[0] * shape[1] * shape[2] * dtype.itemsize
    if needed > MAX_FILE_BYTES:
        raise VolumeError("The volume is larger than is taken in.")
    return needed


@contextlib.contextmanager
def unpacked(path: Path, offset: int, needed: int) -> Generator[IO[bytes]]:
    """The zlib or gzip stream from `offset` on, as a file of `needed` bytes beside `path`, gone at the end."""
    if needed > unpacked_limit(path.stat().st_size):
        raise VolumeError("The file unpacks to more than is allowed.")
    plain = path.with_name(path.name + ".unpacked")
    try:
        with path.open("rb") as source, plain.open("w+b") as target:
            source.seek(offset)
            _inflate(source, target, needed)
            yield target
    finally:
        plain.unlink(missing_ok=True)


def _inflate(source: IO[bytes], target: IO[bytes], needed: int) -> None:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either of the two headers
    piece = b""
    while needed > 0 and not inflater.eof:
        piece = inflater.unconsumed_tail or source.read(1 << 20)
        if not piece:
            break
        try:
            values = inflater.decompress(piece, min(needed, 1 << 20))
        except zlib.error as error:
            raise VolumeError("The packed data is damaged.") from error
        target.write(values)
        needed -= len(values)
    if needed > 0:
        raise VolumeError("The file is shorter than its header says.")
