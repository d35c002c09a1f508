"""NRRD (teem's format definition) as a volume: data in the file or beside it, raw or packed by gzip."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.raw_volume import DataFile, RawVolume, unpacked, volume_bytes
from annotomy.dicom.volume_series import Told, VolumeError, digest_of, series_of

MAX_HEADER_BYTES: Final = 1 << 20
TYPES: Final = {
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "short": "i2", "short int": "i2", "signed short": "i2", "int16": "i2", "int16_t": "i2",
    "ushort": "u2", "unsigned short": "u2", "unsigned short int": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4", "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4",
    "longlong": "i8", "int64": "i8", "int64_t": "i8", "ulonglong": "u8", "uint64": "u8", "uint64_t": "u8",
    "float": "f4", "double": "f8",
}  # fmt: skip
# How the space's axes turn into LPS.
_SPACES: Final = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


def data_file_of(head: bytes) -> str | None:
    """The file that the header says its data lies in; None: behind the header."""
    return _fields(head)[0].get("data file")


def nrrd_to_dicom(path: Path, told: Told, beside: DataFile) -> Iterator[bytes]:
    """The slices as Part-10 files. Raises VolumeError."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    fields, end = _fields(head)
    dtype, shape, affine_lps = _dtype(fields), _shape(fields), _affine(fields)
    needed = volume_bytes(shape, dtype)
    data, start = path, end
    if (name := fields.get("data file")) is not None:
        found = beside(name)
        if found is None:
            raise VolumeError("The header keeps its data in another file, which is not here: send both in one archive.")
        data, start = found, 0
    skip = _whole(fields.get("byte skip", "0"))
    if _whole(fields.get("line skip", "0")) != 0:
        raise VolumeError("A NRRD whose data begins behind skipped lines is not read.")
    with ExitStack() as stack:
        header, file = stack.enter_context(path.open("rb")), stack.enter_context(data.open("rb"))
        hasher = digest_of(header) if data == path else digest_of(header, file)
        encoding = fields.get("encoding", "").lower()
        if encoding in ("gzip", "gz") and skip >= 0:
            file, start = stack.enter_context(unpacked(data, start, needed + skip)), skip
        elif encoding == "raw":
            start = file.seek(0, 2) - needed if skip == -1 else start + skip
        else:
            raise VolumeError("Of NRRD's encodings, raw and gzip are read.")
        if skip < -1:
            raise VolumeError("The NRRD's byte skip is out of bounds.")
        yield from series_of(RawVolume(file, start, dtype, shape, affine_lps), hasher, told, form="NRRD")


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """The header's fields and where it ends (an empty line, or the end of a file that is only a header)."""
    if not head.startswith(b"NRRD000"):
        raise VolumeError("The file has no NRRD header.")
    ended = re.search(rb"\r?\n\r?\n", head)
    end = ended.end() if ended else len(head)
    if ended is None and end >= MAX_HEADER_BYTES:
        raise VolumeError("The NRRD's header is longer than is read.")
    fields: dict[str, str] = {}
    for line in head[:end].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("Segment0_"):
            raise VolumeError("The NRRD holds segments, not an image: import it as a segmentation of its series.")
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower().replace("datafile", "data file")] = value.strip()
    if ended is None and "data file" not in fields:
        raise VolumeError("The NRRD's header has no end.")
    return fields, end


def _dtype(fields: dict[str, str]) -> "np.dtype[Any]":
    kind = TYPES.get(fields.get("type", "").lower())
    if kind is None:
        raise VolumeError("The NRRD's values are of a type that is not read.")
    return np.dtype(kind).newbyteorder(">" if fields.get("endian", "little").lower() == "big" else "<")


def _shape(fields: dict[str, str]) -> tuple[int, ...]:
    sizes = [_whole(size) for size in fields.get("sizes", "").split()[:16]]
    return tuple(sizes)


def _affine(fields: dict[str, str]) -> NDArray[np.float64]:
    signs = _SPACES.get(fields.get("space", "").lower())
    if signs is None:
        raise VolumeError("The NRRD names no space of the patient (such as left-posterior-superior).")
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    origin = re.findall(r"\(([^)]*)\)", fields.get("space origin", "(0,0,0)"))
    if len(vectors) != 3 or len(origin) != 1:
        raise VolumeError("The NRRD has not three space directions and one space origin.")
    affine = np.eye(4)
    for column, text in enumerate([*vectors, *origin]):
        try:
            affine[:3, column] = np.array([float(part) for part in text.split(",")]) * signs
        except ValueError as error:
            raise VolumeError("A direction or the origin of the NRRD is no vector of three numbers.") from error
    return affine


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,12}", text):
        raise VolumeError("A size in the NRRD's header is no whole number.")
    return int(text)
