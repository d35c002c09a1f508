"""MetaImage (MHA, MHD) as a volume: data in the file or beside it, raw or packed by zlib. Its world is LPS, as DICOM's."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.raw_volume import DataFile, RawVolume, unpacked, volume_bytes
from annotomy.dicom.volume_series import MODALITIES, Told, VolumeError, digest_of, series_of

MAX_HEADER_BYTES: Final = 64 << 10
_TYPES: Final = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
# The same field under the names that the format has had.
_DIRECTIONS: Final = ("TransformMatrix", "Orientation", "Rotation")
_ORIGIN: Final = ("Offset", "Origin", "Position")
_BIG_ENDIAN: Final = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
BEGINS: Final = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment|TransformType|ID|Name)\s*=", re.ASCII)


def data_file_of(head: bytes) -> str | None:
    """The file that the header says its data lies in; None: behind the header."""
    name = _fields(head)[0]["ElementDataFile"]
    return None if name.upper() == "LOCAL" else name


def metaimage_to_dicom(path: Path, told: Told, beside: DataFile) -> Iterator[bytes]:
    """The slices as Part-10 files. Raises VolumeError."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    fields, end = _fields(head)
    dtype, shape, affine_lps = _dtype(fields), _shape(fields), _affine(fields)
    needed = volume_bytes(shape, dtype)
    data, start = path, end
    if (name := data_file_of(head)) is not None:
        found = beside(name)
        if found is None:
            raise VolumeError("The header keeps its data in another file, which is not here: send both in one archive.")
        data, start = found, 0
    skip = int(_numbers(fields, ("HeaderSize",), 1, [0.0])[0])
    if skip < -1:
        raise VolumeError("The MetaImage's HeaderSize is out of bounds.")
    with ExitStack() as stack:
        header, file = stack.enter_context(path.open("rb")), stack.enter_context(data.open("rb"))
        hasher = digest_of(header) if data == path else digest_of(header, file)
        if _true(fields, ("CompressedData",)):
            file, start = stack.enter_context(unpacked(data, start, needed)), 0
        else:
            start = file.seek(0, 2) - needed if skip == -1 else start + skip
        volume = RawVolume(file, start, dtype, shape, affine_lps)
        modality = fields.get("Modality", "").removeprefix("MET_MOD_")
        yield from series_of(
            volume, hasher, told, form="MetaImage", modality=modality if modality in MODALITIES else ""
        )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """The header's fields and where it ends: ElementDataFile is the last one."""
    fields: dict[str, str] = {}
    at = 0
    while (newline := head.find(b"\n", at)) >= 0 or at < len(head):
        newline = newline if newline >= 0 else len(head) - 1
        line, at = head[at : newline + 1], newline + 1
        key, equals, value = line.decode("utf-8", "replace").partition("=")
        if not equals:
            if line.strip():
                break
            continue
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            if re.match(r"LIST\b|.*%", value.strip()):
                raise VolumeError("A MetaImage of several data files is not read.")
            return fields, at
    raise VolumeError("The MetaImage's header has no ElementDataFile.")


def _dtype(fields: dict[str, str]) -> "np.dtype[Any]":
    kind = _TYPES.get(fields.get("ElementType", ""))
    if kind is None or fields.get("ElementNumberOfChannels", "1") != "1":
        raise VolumeError("The MetaImage's elements are of a type that is not read.")
    if not _true(fields, ("BinaryData",), default="True"):
        raise VolumeError("A MetaImage of text is not read.")
    return np.dtype(kind).newbyteorder(">" if _true(fields, _BIG_ENDIAN) else "<")


def _shape(fields: dict[str, str]) -> tuple[int, ...]:
    sizes = fields.get("DimSize", "").split()[:16]
    if not all(re.fullmatch(r"\d{1,12}", size) for size in sizes):
        raise VolumeError("The MetaImage's DimSize holds no whole numbers.")
    return tuple(int(size) for size in sizes)


def _affine(fields: dict[str, str]) -> NDArray[np.float64]:
    """Three numbers after each other in TransformMatrix are the direction of one axis of the grid."""
    directions = _numbers(fields, _DIRECTIONS, 9, [1, 0, 0, 0, 1, 0, 0, 0, 1])
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), 3, [1.0, 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions).reshape(3, 3).T * np.array(spacing)
    affine[:3, 3] = _numbers(fields, _ORIGIN, 3, [0.0, 0.0, 0.0])
    return affine


def _numbers(fields: dict[str, str], names: tuple[str, ...], count: int, default: list[float]) -> list[float]:
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return default
    try:
        numbers = [float(part) for part in text.split()[:64]]
    except ValueError as error:
        raise VolumeError("The MetaImage's geometry holds what is no number.") from error
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise VolumeError("The MetaImage's geometry is not that of three dimensions.")
    return numbers


def _true(fields: dict[str, str], names: tuple[str, ...], default: str = "False") -> bool:
    return next((fields[name] for name in names if name in fields), default).lower() in ("true", "1", "t", "y", "yes")
