"""Masks as NRRD (teem's format definition, NRRD0005), with the segment fields that 3D Slicer reads and writes.

Overlapping segments are layers along a first axis of kind `list`. Only attached headers, raw and gzip data.
"""

import gzip
import io
import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotomy.dicom.seg import Coded, rgb_of
from annotomy.segmentations.interchange import (
    MAX_FILE_BYTES,
    MAX_LAYERS,
    UNCODED,
    FileSegment,
    FormatError,
    LabelGrid,
    default_color,
)  # fmt: skip

MEDIA_TYPE = "application/octet-stream"
SUFFIX = ".seg.nrrd"
MAX_HEADER_BYTES = 4 << 20
_GZIP_LEVEL = 6
_TYPES = {
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "short": "i2", "int16": "i2", "int16_t": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "int32": "i4", "int32_t": "i4", "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4",
    "float": "f4", "double": "f8",
}  # fmt: skip
# How the space's axes turn into LPS.
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


def write_nrrd(grid: LabelGrid) -> bytes:
    layers = len(grid.layers)
    slices, rows, columns = grid.layers[0].shape
    values = grid.layers[0] if layers == 1 else np.stack(grid.layers, axis=-1)
    sizes, kinds = [columns, rows, slices], ["domain"] * 3
    directions = [_vector(grid.affine_lps[:3, n]) for n in range(3)]
    if layers > 1:
        sizes, kinds, directions = [layers, *sizes], ["list", *kinds], ["none", *directions]
    lines = [
        "NRRD0005",
        f"type: {'unsigned char' if values.dtype == np.uint8 else 'unsigned short'}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(size) for size in sizes)}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(grid.affine_lps[:3, 3])}",
    ]
    for n, segment in enumerate(grid.segments):
        lines += [f"Segment{n}_{name}:={text}" for name, text in _fields(segment, grid).items()]
    body = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return "\n".join([*lines, "", ""]).encode() + gzip.compress(body, _GZIP_LEVEL, mtime=0)


def _vector(values: NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(v)) for v in values)})"


def _fields(segment: FileSegment, grid: LabelGrid) -> dict[str, str]:
    layer = next((n for n, one in enumerate(grid.layers) if np.any(one == segment.number)), 0)
    category, kind = (f"{scheme}^{value}^{meaning}" for value, scheme, meaning in (segment.category, segment.code))
    return {
        "ID": f"Segment_{segment.number}",
        "Name": segment.label.replace("\n", " "),
        "Color": " ".join(f"{channel / 255:.6g}" for channel in rgb_of(segment.color)),
        "LabelValue": str(segment.number),
        "Layer": str(layer),
        "Tags": f"TerminologyEntry:Segmentation category and type - DICOM master list~{category}~{kind}"
        "~^^~Anatomic codes - DICOM master list~^^~^^|",
    }


def read_nrrd(data: bytes) -> LabelGrid:
    """Raises FormatError."""
    end = data.find(b"\n\n", 0, MAX_HEADER_BYTES)
    windows = data.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES)
    if windows >= 0 and (end < 0 or windows < end):
        end, skip = windows, 4
    else:
        skip = 2
    if end < 0 or not data.startswith(b"NRRD000"):
        raise FormatError("The file has no NRRD header.")
    fields, own = _header(data[:end].decode("utf-8", "replace"))
    values = _values(fields, data[end + skip :])
    affine, layered = _geometry(fields)
    if layered is None:
        layers = (np.asarray(values),)
    else:
        moved = np.moveaxis(values, values.ndim - 1 - layered, 0)
        if not 1 <= len(moved) <= MAX_LAYERS:
            raise FormatError("The file has more layers than are taken in.")
        layers = tuple(moved)
    if layers[0].ndim != 3:
        raise FormatError("A NRRD of masks has three dimensions, or four for segments that overlap.")
    return LabelGrid(layers, affine, _segments(own))


def _header(text: str) -> tuple[dict[str, str], dict[str, str]]:
    fields: dict[str, str] = {}
    own: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line:
            key, _, value = line.partition(":=")
            own[key.strip()] = value.strip()
        elif ": " in line:
            key, _, value = line.partition(": ")
            fields[key.strip().lower().replace("datafile", "data file")] = value.strip()
    return fields, own


def _values(fields: dict[str, str], body: bytes) -> NDArray[Any]:
    """In the order of the file reversed: slowest axis first."""
    if "data file" in fields:
        raise FormatError("The NRRD keeps its data in another file; send one file with attached data.")
    kind = _TYPES.get(fields.get("type", "").lower())
    encoding = fields.get("encoding", "").lower()
    if kind is None or encoding not in ("raw", "gzip", "gz"):
        raise FormatError("The NRRD's type or encoding is none that is read here (raw and gzip are).")
    try:
        sizes = [int(size) for size in fields.get("sizes", "").split()]
    except ValueError as error:
        raise FormatError("The NRRD's sizes are no whole numbers.") from error
    dtype = np.dtype(kind).newbyteorder(">" if fields.get("endian", "little").lower() == "big" else "<")
    expected = dtype.itemsize * int(np.prod(np.array(sizes, dtype=object), initial=1))
    if len(sizes) not in (3, 4) or min(sizes) < 1 or expected > MAX_FILE_BYTES:
        raise FormatError("The NRRD's sizes are out of bounds.")
    if encoding != "raw":
        try:
            with gzip.open(io.BytesIO(body)) as file:
                body = file.read(expected + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError("The NRRD's gzip stream is damaged.") from error
    if len(body) < expected:
        raise FormatError("The NRRD's data is cut off.")
    return np.frombuffer(body, dtype, count=expected // dtype.itemsize).reshape(sizes[::-1])


def _geometry(fields: dict[str, str]) -> tuple[NDArray[np.float64], int | None]:
    """The affine in LPS, and which axis (in the file's order) is the one of layers."""
    signs = _SPACES.get(fields.get("space", "").lower())
    if signs is None:
        raise FormatError("The NRRD names no space of the patient (such as left-posterior-superior).")
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    origin = re.findall(r"\([^)]*\)", fields.get("space origin", ""))
    spatial = [n for n, text in enumerate(directions) if text != "none"]
    if len(spatial) != 3 or len(origin) != 1:
        raise FormatError("The NRRD lacks three space directions or the space origin.")
    affine = np.eye(4)
    for column, text in enumerate([*(directions[n] for n in spatial), origin[0]]):
        try:
            vector = [float(part) for part in text.strip("()").split(",")]
        except ValueError as error:
            raise FormatError("A direction or the origin of the NRRD is no vector of numbers.") from error
        if len(vector) != 3:
            raise FormatError("A direction or the origin of the NRRD is no vector of three numbers.")
        affine[:3, column] = np.array(vector) * signs
    layered = [n for n, text in enumerate(directions) if text == "none"]
    return affine, layered[0] if layered else None


def _segments(own: dict[str, str]) -> tuple[FileSegment, ...]:
    found: list[FileSegment] = []
    for n in range(len(own)):
        name, value = own.get(f"Segment{n}_Name"), own.get(f"Segment{n}_LabelValue", str(n + 1))
        if name is None or not value.isdigit():
            break
        category, code = _codes(own.get(f"Segment{n}_Tags", ""))
        color = _color(own.get(f"Segment{n}_Color", "")) or default_color(int(value))
        found.append(FileSegment(int(value), name or f"Segment {value}", code, category, color))
    return tuple(found)


def _codes(tags: str) -> tuple[Coded, Coded]:
    """`TerminologyEntry:context~scheme^code^meaning~scheme^code^meaning~...`: category, then type."""
    entry = next((tag for tag in tags.split("|") if tag.startswith("TerminologyEntry:")), "")
    codes: list[Coded] = []
    for part in entry.split("~")[1:3]:
        pieces = part.split("^")
        complete = len(pieces) == 3 and all(pieces)
        codes.append((pieces[1], pieces[0], pieces[2]) if complete else UNCODED)
    return (codes[0], codes[1]) if len(codes) == 2 else (UNCODED, UNCODED)


def _color(text: str) -> str | None:
    try:
        channels = [round(float(part) * 255) for part in text.split()]
    except ValueError:
        return None
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        return None
    return "#{:02x}{:02x}{:02x}".format(*channels)
